//! The cache for plugins of WASI 0.3, which answer many requests at the same time: a call that waits stops no other task of
//! its instance. It needs the feature `async`, and exists in WebAssembly only.
//!
//! ```ignore
//! use std::time::Duration;
//!
//! use larder::concurrent::Cache;
//!
//! async fn page(path: &str) -> Result<String, larder::Error> {
//!     let cache = Cache::default()?;
//!     cache.get_or_set(path, Duration::from_secs(60), async || render(path).await).await
//! }
//! ```

mod refresh;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use refresh::Freshness;

use crate::bindings::concurrent as bindings;
use crate::{Duration, Error, codec};

/// An open cache, as [`crate::Cache`]. Its calls are asynchronous.
#[derive(Debug)]
pub struct Cache(bindings::Cache);

/// The result of [`Cache::entry`].
#[derive(Debug)]
pub enum Entry {
    /// The value of the key.
    Occupied(Vec<u8>),
    /// The key has no value, and this caller is to compute it.
    Vacant(Vacancy),
}

/// The right to fill a key that has no value, as [`crate::Vacancy`]. Dropping it passes the computation to another caller.
#[derive(Debug)]
pub struct Vacancy(bindings::Vacancy);

impl Vacancy {
    /// Stores the value and hands it to those who wait for it. Returns false, and stores nothing, if the key was set or
    /// cleared meanwhile.
    ///
    /// # Errors
    ///
    /// As [`crate::Vacancy::fill`].
    pub async fn fill(self, value: &[u8], duration: impl Into<Duration>) -> Result<bool, Error> {
        Ok(bindings::Vacancy::fill(self.0, value.to_vec(), duration.into().into()).await?)
    }
}

impl Cache {
    /// Opens a cache by its name.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCache`], [`Error::AccessDenied`], and [`Error::Other`] with too many open caches.
    pub fn open(name: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self(bindings::open(name.as_ref())?))
    }

    /// Opens the operator's default cache.
    ///
    /// # Errors
    ///
    /// As [`Cache::open`].
    #[expect(clippy::should_implement_trait, reason = "opening can fail, which `Default` cannot express")]
    pub fn default() -> Result<Self, Error> {
        Ok(Self(bindings::open_default()?))
    }

    /// Reads a value; `None` is a miss.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get`].
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>, Error> {
        self.get_bytes(key).await?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Stores a value for the default duration.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::set`].
    pub async fn set<T: Serialize + ?Sized>(&self, key: impl AsRef<str>, value: &T) -> Result<(), Error> {
        self.set_with_duration(key, value, Duration::Default).await
    }

    /// Stores a value for a duration.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::set_with_duration`].
    pub async fn set_with_duration<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<str>,
        value: &T,
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        self.set_bytes_with_duration(key, codec::encode(value)?, duration).await
    }

    /// Reads a value, or computes and stores it. Of all callers of the key, in all instances and host processes, one
    /// computes, and the others wait for its value; other tasks of this instance go on meanwhile. The computed value is
    /// returned even if it cannot be stored.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get_or_set`].
    pub async fn get_or_set<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_set(key, duration, async || Ok(compute().await)).await
    }

    /// As [`Cache::get_or_set`], with a computation that can fail. Its error is returned, and nothing is stored.
    ///
    /// # Errors
    ///
    /// That of the computation, or as [`crate::Cache::try_get_or_set`].
    pub async fn try_get_or_set<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let vacancy = match self.lookup(key.as_ref()).await? {
            Lookup::Found(value) => return Ok(value),
            Lookup::Missing(vacancy) => vacancy,
        };
        let value = compute().await?;
        if let Ok(bytes) = codec::encode(&value) {
            // The caller gets the value whether or not it is stored.
            let _stored = vacancy.fill(&bytes, duration).await;
        }
        Ok(value)
    }

    /// Reads a value as bytes, or returns the right to fill the key.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::entry`].
    pub async fn entry(&self, key: impl AsRef<str>) -> Result<Entry, Error> {
        Ok(match self.0.get_or_set(key.as_ref().to_owned()).await? {
            bindings::Entry::Occupied(bytes) => Entry::Occupied(bytes),
            bindings::Entry::Vacant(vacancy) => Entry::Vacant(Vacancy(vacancy)),
        })
    }

    /// Removes a value, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::clear`].
    pub async fn clear(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        Ok(self.0.clear(key.as_ref().to_owned()).await?)
    }

    /// Removes the values of all keys that match the pattern, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::clear_pattern`].
    pub async fn clear_pattern(&self, pattern: impl AsRef<str>) -> Result<u64, Error> {
        Ok(self.0.clear_pattern(pattern.as_ref().to_owned()).await?)
    }

    /// Removes all values, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::clear_all`].
    pub async fn clear_all(&self) -> Result<u64, Error> {
        Ok(self.0.clear_all().await?)
    }

    /// Reads a value as bytes; `None` is a miss.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get_bytes`].
    pub async fn get_bytes(&self, key: impl AsRef<str>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key.as_ref().to_owned()).await?)
    }

    /// Reads several values as bytes in one round trip, in the order of the keys.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get_many_bytes`].
    pub async fn get_many_bytes(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        Ok(self.0.get_many(keys).await?)
    }

    /// Stores bytes for a duration.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::set_bytes_with_duration`].
    pub async fn set_bytes_with_duration(
        &self,
        key: impl AsRef<str>,
        value: Vec<u8>,
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        Ok(self.0.set_with_duration(key.as_ref().to_owned(), value, duration.into().into()).await?)
    }

    async fn lookup<T: DeserializeOwned>(&self, key: &str) -> Result<Lookup<T>, Error> {
        Ok(match self.entry(key).await? {
            Entry::Vacant(vacancy) => Lookup::Missing(vacancy),
            Entry::Occupied(bytes) => match codec::decode(&bytes) {
                Ok(value) => Lookup::Found(value),
                // The clear makes it a miss for all callers, so only one of them computes.
                Err(_) => {
                    self.clear(key).await?;
                    match self.entry(key).await? {
                        Entry::Vacant(vacancy) => Lookup::Missing(vacancy),
                        Entry::Occupied(bytes) => Lookup::Found(codec::decode(&bytes)?),
                    }
                }
            },
        })
    }
}

enum Lookup<T> {
    Found(T),
    Missing(Vacancy),
}
