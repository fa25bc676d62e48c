//! The cache as a plugin author sees it: a handle, typed values, closures for what is missing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Duration, Error, bindings, codec};

/// An open cache of the host.
///
/// Typed calls keep values as JSON; those with `bytes` in their name keep them as given. Which cache stands behind a
/// name, and for how long it keeps what has no duration of its own, is the operator's choice.
///
/// Keys are 1 to 1,024 bytes without control characters; values are at most the operator's `max_value_bytes`, 1 MiB
/// unless changed; a batch holds at most 1,024 keys. A breach is [`Error::InvalidArgument`] or
/// [`Error::ValueTooLarge`]. Every call may also fail with [`Error::Timeout`] or [`Error::Unavailable`]; reads do so
/// only where the operator chose errors over misses (`on_outage = "error"`).
#[derive(Debug)]
pub struct Cache(bindings::Cache);

/// What [`Cache::entry`] found.
#[derive(Debug)]
pub enum Entry {
    /// The key's value.
    Occupied(Vec<u8>),
    /// There is none, and this caller is the one to compute it.
    Vacant(Vacancy),
}

/// The right to compute the value of one key while others wait for it.
///
/// Dropping it unfilled passes it to exactly one of those who wait; so does a trap.
#[derive(Debug)]
pub struct Vacancy(bindings::Vacancy);

impl Vacancy {
    /// Stores the value and wakes those who wait for it.
    ///
    /// True when stored; false, with nothing stored, when the key was cleared or set since the vacancy was handed out,
    /// or has a value by now.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a duration of zero, [`Error::ValueTooLarge`], and what an outage brings.
    pub fn fill(self, value: &[u8], duration: impl Into<Duration>) -> Result<bool, Error> {
        Ok(bindings::Vacancy::fill(self.0, value, duration.into().into())?)
    }
}

impl Cache {
    /// Opens a cache by the name the operator gave it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCache`] and [`Error::AccessDenied`], which the operator mends; [`Error::Other`] when this
    /// plugin instance holds all the handles it may (1,024, unless the operator changes `max_handles`).
    pub fn open(name: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self(bindings::open(name.as_ref())?))
    }

    /// Opens the cache that the operator made the default.
    ///
    /// # Errors
    ///
    /// As [`Cache::open`].
    #[expect(clippy::should_implement_trait, reason = "opening can fail, which `Default` cannot say")]
    pub fn default() -> Result<Self, Error> {
        Ok(Self(bindings::open_default()?))
    }

    /// The key's value, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] when what is stored is not the JSON of a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>, Error> {
        self.get_bytes(key)?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// The values of many keys, in their order, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<T>>, Error> {
        let decode = |found: Option<Vec<u8>>| found.map(|bytes| codec::decode(&bytes)).transpose();
        self.get_many_bytes(keys)?.into_iter().map(decode).collect()
    }

    /// Stores a value for the cache's `default_expire`.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] for what JSON has no form for, [`Error::AccessDenied`] on a read-only grant.
    pub fn set<T: Serialize + ?Sized>(&self, key: impl AsRef<str>, value: &T) -> Result<(), Error> {
        self.set_bytes(key, &codec::encode(value)?)
    }

    /// Stores a value for a duration of its own.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`]; [`Error::InvalidArgument`] for a duration of zero.
    pub fn set_with_duration<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<str>,
        value: &T,
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        self.set_bytes_with_duration(key, &codec::encode(value)?, duration)
    }

    /// Stores many values for one duration, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_with_duration`]. On [`Error::Timeout`] some values may be stored and others not.
    pub fn set_many<T: Serialize>(
        &self,
        entries: &[(impl AsRef<str>, T)],
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        let encode = |(key, value): &(_, T)| Ok((AsRef::<str>::as_ref(key).to_owned(), codec::encode(value)?));
        let entries = entries.iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
        Ok(self.0.set_many(&entries, duration.into().into())?)
    }

    /// The key's value; on a miss `compute` makes it, and it is stored for `duration`.
    ///
    /// Of all callers that miss the same key at once, in whatever host process, one computes and the others receive its
    /// value.
    /// The value comes back even when it could not be stored, or was superseded by a clear. What is stored but is not
    /// the JSON of a `T`, as after a change of `T`, is cleared and computed anew. See [`Cache::try_get_or_set`] for a
    /// closure that can fail.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), larder::Error> {
    /// use std::time::Duration;
    ///
    /// let cache = larder::Cache::default()?;
    /// let squares: Vec<u64> = cache.get_or_set("squares", Duration::from_secs(30), || {
    ///     (1..=10).map(|n| n * n).collect()
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a bad key, and for a key whose vacancy this plugin instance holds already (a
    /// `compute` that asks for its own key); [`Error::AccessDenied`] on a read-only grant.
    pub fn get_or_set<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_set(key, duration, || Ok(compute()))
    }

    /// [`Cache::get_or_set`] with a closure that can fail. Its error is returned as it is and nothing is stored; one of
    /// those who wait computes next.
    ///
    /// # Errors
    ///
    /// The closure's, and the cache's own as [`Cache::get_or_set`], which `E` must be able to hold.
    pub fn try_get_or_set<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let vacancy = match self.lookup(key.as_ref())? {
            Lookup::Found(value) => return Ok(value),
            Lookup::Missing(vacancy) => vacancy,
        };
        let value = compute()?;
        store(vacancy, &value, duration.into());
        Ok(value)
    }

    /// [`Cache::get_or_set`] with an async closure.
    ///
    /// The look-up itself does not yield: while another plugin computes the value, this instance waits for it.
    ///
    /// ```no_run
    /// # async fn fetch() -> String { String::new() }
    /// # async fn example() -> Result<(), larder::Error> {
    /// use std::time::Duration;
    ///
    /// let cache = larder::Cache::open("valkey")?;
    /// let page: String = cache
    ///     .get_or_set_async("page", Duration::from_secs(30), async || fetch().await)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_set`].
    pub async fn get_or_set_async<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_set_async(key, duration, async || Ok(compute().await)).await
    }

    /// [`Cache::try_get_or_set`] with an async closure.
    ///
    /// # Errors
    ///
    /// As [`Cache::try_get_or_set`].
    pub async fn try_get_or_set_async<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let vacancy = match self.lookup(key.as_ref())? {
            Lookup::Found(value) => return Ok(value),
            Lookup::Missing(vacancy) => vacancy,
        };
        let value = compute().await?;
        store(vacancy, &value, duration.into());
        Ok(value)
    }

    /// The key's bytes, or the vacancy to compute them: what `get_or_set` is made of, for code that wants to see
    /// whether its value was stored.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_set`].
    pub fn entry(&self, key: impl AsRef<str>) -> Result<Entry, Error> {
        Ok(match self.0.get_or_set(key.as_ref())? {
            bindings::Entry::Occupied(bytes) => Entry::Occupied(bytes),
            bindings::Entry::Vacant(vacancy) => Entry::Vacant(Vacancy(vacancy)),
        })
    }

    /// Removes one key and says whether it held a value. A `*` in it is a character like any other.
    ///
    /// # Errors
    ///
    /// [`Error::AccessDenied`] on a read-only grant, [`Error::InvalidArgument`] for a bad key.
    pub fn clear(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        Ok(self.0.clear(key.as_ref())?)
    }

    /// Removes every key that matches a Redis glob as a whole (`*`, `?`, `[a-z]`, `[^a-z]`, `\x`) and says how many.
    ///
    /// # Errors
    ///
    /// As [`Cache::clear`]; some keys may be gone already, and calling again is safe. [`Error::InvalidArgument`] also
    /// for a pattern that is empty, over 1,024 bytes, holds a control character, or has a range from an ASCII to a
    /// non-ASCII character.
    pub fn clear_pattern(&self, pattern: impl AsRef<str>) -> Result<u64, Error> {
        Ok(self.0.clear_pattern(pattern.as_ref())?)
    }

    /// Removes every key of this plugin's key space and says how many.
    ///
    /// # Errors
    ///
    /// As [`Cache::clear`]; some keys may be gone already, and calling again is safe.
    pub fn clear_all(&self) -> Result<u64, Error> {
        Ok(self.0.clear_all()?)
    }

    /// The key's bytes, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a bad key.
    pub fn get_bytes(&self, key: impl AsRef<str>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key.as_ref())?)
    }

    /// The bytes of many keys, in their order, in one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a bad key or a batch over the limit.
    pub fn get_many_bytes(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<String> = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        Ok(self.0.get_many(&keys)?)
    }

    /// Stores bytes for the cache's `default_expire`.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_bytes_with_duration`].
    pub fn set_bytes(&self, key: impl AsRef<str>, value: &[u8]) -> Result<(), Error> {
        Ok(self.0.set(key.as_ref(), value)?)
    }

    /// Stores bytes for a duration of their own.
    ///
    /// # Errors
    ///
    /// [`Error::AccessDenied`] on a read-only grant, [`Error::InvalidArgument`] for a bad key or a duration of zero,
    /// [`Error::ValueTooLarge`].
    pub fn set_bytes_with_duration(
        &self,
        key: impl AsRef<str>,
        value: &[u8],
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        Ok(self.0.set_with_duration(key.as_ref(), value, duration.into().into())?)
    }

    /// Stores the bytes of many keys for one duration, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_bytes_with_duration`]; [`Error::InvalidArgument`] also for a batch over the limit. On
    /// [`Error::Timeout`] some values may be stored and others not.
    pub fn set_many_bytes(
        &self,
        entries: &[(impl AsRef<str>, impl AsRef<[u8]>)],
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        let own = |(key, value): &(_, _)| (AsRef::<str>::as_ref(key).to_owned(), AsRef::<[u8]>::as_ref(value).to_vec());
        let entries: Vec<_> = entries.iter().map(own).collect();
        Ok(self.0.set_many(&entries, duration.into().into())?)
    }

    /// The first half of every `get_or_set`.
    fn lookup<T: DeserializeOwned>(&self, key: &str) -> Result<Lookup<T>, Error> {
        Ok(match self.entry(key)? {
            Entry::Vacant(vacancy) => Lookup::Missing(vacancy),
            Entry::Occupied(bytes) => match codec::decode(&bytes) {
                Ok(value) => Lookup::Found(value),
                // As if it had expired: the key is cleared, and one of all who come across it computes.
                Err(_) => {
                    self.clear(key)?;
                    match self.entry(key)? {
                        Entry::Vacant(vacancy) => Lookup::Missing(vacancy),
                        Entry::Occupied(bytes) => Lookup::Found(codec::decode(&bytes)?),
                    }
                }
            },
        })
    }
}

/// What a typed look-up found.
enum Lookup<T> {
    Found(T),
    Missing(Vacancy),
}

/// Stores a computed value as well as can be: the caller has it in hand, so a failure here costs the next one a
/// computation and nobody an error.
fn store<T: Serialize>(vacancy: Vacancy, value: &T, duration: Duration) {
    let _stored = codec::encode(value).and_then(|bytes| vacancy.fill(&bytes, duration));
}
