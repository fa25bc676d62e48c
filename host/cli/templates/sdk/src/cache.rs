//! The cache API for plugins: typed values, raw bytes, and get-or-set with closures.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Duration, Error, bindings, codec};

/// An open cache of the host.
///
/// Typed calls store values as JSON. Calls with `bytes` in their name store them unchanged. The operator configures the
/// backend of each cache and the duration of values that are stored without one.
///
/// # Limits
///
/// The operator may change these defaults.
///
/// - A key has 1 to 1,024 bytes and no control characters. Otherwise the call fails with [`Error::InvalidArgument`].
/// - A value has at most 1 MiB (`max_value_bytes`). Otherwise the call fails with [`Error::ValueTooLarge`]. It must not
///   begin with a zero byte followed by `larder-lease:`, which is an [`Error::InvalidArgument`].
/// - A batch has at most 1,024 keys, and at most 8 MiB of keys and values. Otherwise the call fails with
///   [`Error::InvalidArgument`], or with [`Error::ValueTooLarge`] if the values that it reads exceed 8 MiB.
/// - A plugin instance holds at most 1,024 handles (`max_handles`) and 256 vacancies (`max_vacancies`). Otherwise
///   opening a cache or looking up a missing key fails with [`Error::Other`].
///
/// # Errors of every call
///
/// In addition to the errors that each method lists, every call may fail with:
///
/// - [`Error::Timeout`] and [`Error::Unavailable`] during an outage. Reads fail with them only if the operator
///   configured `on_outage = "error"`; otherwise they return a miss.
/// - [`Error::Other`] if the key holds a value of another type, if the server refuses the command, or if the plugin
///   instance has too many calls in progress (`max_concurrent_calls`).
#[derive(Debug)]
pub struct Cache(pub(crate) bindings::Cache);

/// The result of [`Cache::entry`].
#[derive(Debug)]
pub enum Entry {
    /// The value of the key.
    Occupied(Vec<u8>),
    /// The key has no value, and this caller computes it.
    Vacant(Vacancy),
}

/// The right to compute the value of one key, while other callers wait for it or get the stale value.
///
/// Dropping a vacancy without filling it passes it to exactly one of the waiters. A trap does the same.
///
/// The host renews the vacancy until the plugin's run or HTTP request ends, up to the cache's `max_lease` (5 minutes by
/// default). After that it passes to another caller, and filling it stores nothing.
#[derive(Debug)]
pub struct Vacancy(pub(crate) bindings::Vacancy);

impl Vacancy {
    /// Stores the value and wakes the waiters.
    ///
    /// Returns `true` if the value was stored. Returns `false`, and stores nothing, if the key was cleared, set or
    /// filled after the vacancy was handed out, or if the host can no longer tell.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] for a duration of zero, or for a value that begins like a lease of the host.
    /// - [`Error::ValueTooLarge`] if the value exceeds `max_value_bytes`.
    /// - [`Error::Timeout`] and [`Error::Unavailable`] during an outage. After a timeout the value may be stored.
    /// - [`Error::Other`] if the server refuses the command.
    pub fn fill(self, value: &[u8], duration: impl Into<Duration>) -> Result<bool, Error> {
        Ok(bindings::Vacancy::fill(self.0, value, duration.into().into())?)
    }

    /// Stores the value for `duration` and `stale` together. In the last `stale` of that time [`Cache::get_or_refresh`] and
    /// its variants treat it as stale, if they are called with the same `stale`.
    ///
    /// Returns as [`Vacancy::fill`] does. A refresh is stored only if the key still has the stale value.
    ///
    /// # Errors
    ///
    /// As [`Vacancy::fill`]; also [`Error::InvalidArgument`] if `stale` is zero or unlimited.
    pub fn fill_stale(
        self,
        value: &[u8],
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
    ) -> Result<bool, Error> {
        Ok(bindings::Vacancy::fill_stale(self.0, value, duration.into().into(), stale.into().into())?)
    }
}

impl Cache {
    /// Opens the cache of this name, as the operator configured it.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchCache`] if no cache of this name is configured. The operator can add one.
    /// - [`Error::AccessDenied`] if the cache is not granted to this plugin. The operator can grant it.
    /// - [`Error::Other`] if this plugin instance holds too many handles: 1,024, unless the operator changes
    ///   `max_handles`.
    pub fn open(name: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self(bindings::open(name.as_ref())?))
    }

    /// Opens the default cache, which the operator chose.
    ///
    /// # Errors
    ///
    /// As [`Cache::open`].
    #[expect(clippy::should_implement_trait, reason = "opening can fail, which `Default` cannot express")]
    pub fn default() -> Result<Self, Error> {
        Ok(Self(bindings::open_default()?))
    }

    /// Returns the value of a key, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_bytes`]; also [`Error::Codec`] if the stored bytes are not valid JSON of a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>, Error> {
        self.get_bytes(key)?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Returns the values of many keys in one round trip, in the order of the keys. A key may be repeated.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_many_bytes`]; also [`Error::Codec`] if the stored bytes of a key are not valid JSON of a `T`.
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<T>>, Error> {
        let decode = |found: Option<Vec<u8>>| found.map(|bytes| codec::decode(&bytes)).transpose();
        self.get_many_bytes(keys)?.into_iter().map(decode).collect()
    }

    /// Stores a value for the cache's `default_expire`.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_bytes`]; also [`Error::Codec`] if JSON cannot represent the value.
    pub fn set<T: Serialize + ?Sized>(&self, key: impl AsRef<str>, value: &T) -> Result<(), Error> {
        self.set_bytes(key, &codec::encode(value)?)
    }

    /// Stores a value for the given duration.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_bytes_with_duration`]; also [`Error::Codec`] if JSON cannot represent the value.
    pub fn set_with_duration<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<str>,
        value: &T,
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        self.set_bytes_with_duration(key, &codec::encode(value)?, duration)
    }

    /// Stores many values for one duration in one round trip. If a key is repeated, its last value is stored.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_many_bytes`]; also [`Error::Codec`] if JSON cannot represent a value.
    pub fn set_many<T: Serialize>(
        &self,
        entries: &[(impl AsRef<str>, T)],
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        let encode = |(key, value): &(_, T)| Ok((AsRef::<str>::as_ref(key).to_owned(), codec::encode(value)?));
        let entries = entries.iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
        Ok(self.0.set_many(&entries, duration.into().into())?)
    }

    /// Returns the value of a key. On a miss, calls `compute` and stores its value for `duration`.
    ///
    /// If several callers miss the same key, one of them computes the value and the others wait for it, in all host
    /// processes that share the cache. A wait is bounded by the cache's `wait`; a caller whose wait times out computes
    /// for itself.
    ///
    /// The computed value is returned even if it could not be stored, or if the key was set or cleared in the meantime.
    /// Stored bytes that are not valid JSON of a `T`, for instance after a change of `T`, are cleared and the value is
    /// computed again. [`Cache::try_get_or_set`] takes a closure that can fail.
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
    /// As [`Cache::entry`]; also [`Error::Codec`] if the bytes that replace a value that is not valid JSON are not
    /// valid JSON of a `T` either. Clearing such a value may fail as [`Cache::clear`] does. A failure to store the
    /// computed value is not an error.
    pub fn get_or_set<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        compute: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_set(key, duration, || Ok(compute()))
    }

    /// [`Cache::get_or_set`] with a closure that can fail.
    ///
    /// If the closure fails, its error is returned unchanged and nothing is stored; one of the waiters computes next.
    ///
    /// # Errors
    ///
    /// The error of the closure, or an error of [`Cache::get_or_set`], converted into `E`.
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
    /// The lookup itself does not yield: while another caller computes the value, the whole plugin instance waits.
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

    /// Returns the bytes of a key, or a vacancy if this caller is the one to compute them.
    ///
    /// [`Cache::get_or_set`] and its variants are built on this call. Use it if the code needs to know whether its
    /// value was stored.
    ///
    /// # Errors
    ///
    /// - [`Error::AccessDenied`] on a read-only grant.
    /// - [`Error::InvalidArgument`] for a bad key, and for a key whose vacancy this plugin instance already holds, as a
    ///   closure that requests its own key does.
    /// - [`Error::ValueTooLarge`] if another program stored a value over `max_value_bytes`.
    /// - [`Error::Other`] if this plugin instance holds too many vacancies: 256, unless the operator changes
    ///   `max_vacancies`.
    pub fn entry(&self, key: impl AsRef<str>) -> Result<Entry, Error> {
        Ok(match self.0.get_or_set(key.as_ref())? {
            bindings::Entry::Occupied(bytes) => Entry::Occupied(bytes),
            bindings::Entry::Vacant(vacancy) => Entry::Vacant(Vacancy(vacancy)),
        })
    }

    /// Removes one key, and returns whether it had a value. A `*` in the key is an ordinary character.
    ///
    /// # Errors
    ///
    /// - [`Error::AccessDenied`] on a read-only grant.
    /// - [`Error::InvalidArgument`] for a bad key.
    /// - [`Error::Timeout`] and [`Error::Unavailable`] during an outage, whatever `on_outage` is. The plugin should
    ///   repeat the clear; otherwise the old value may be served until it expires.
    pub fn clear(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        Ok(self.0.clear(key.as_ref())?)
    }

    /// Removes all keys of the plugin's key space that match a pattern, and returns how many had a value.
    ///
    /// The pattern is a Redis glob that must match the whole key: `*`, `?`, `[a-z]` and `[^a-z]`. A backslash makes the
    /// next character literal.
    ///
    /// # Errors
    ///
    /// As [`Cache::clear`]; also [`Error::InvalidArgument`] for a pattern that is empty, is longer than 1,024 bytes,
    /// has a control character, or has a range from an ASCII to a non-ASCII character. After an error some keys may
    /// already be removed; the call can be repeated safely.
    pub fn clear_pattern(&self, pattern: impl AsRef<str>) -> Result<u64, Error> {
        Ok(self.0.clear_pattern(pattern.as_ref())?)
    }

    /// Removes all keys of the plugin's key space, and returns how many had a value.
    ///
    /// # Errors
    ///
    /// As [`Cache::clear`]. After an error some keys may already be removed; the call can be repeated safely.
    pub fn clear_all(&self) -> Result<u64, Error> {
        Ok(self.0.clear_all()?)
    }

    /// Returns the bytes of a key, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] for a bad key.
    /// - [`Error::ValueTooLarge`] if another program stored a value over `max_value_bytes`.
    pub fn get_bytes(&self, key: impl AsRef<str>) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key.as_ref())?)
    }

    /// Returns the bytes of many keys in one round trip, in the order of the keys. A key may be repeated.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] for a bad key or a batch over the limit.
    /// - [`Error::ValueTooLarge`] as for [`Cache::get_bytes`], and if the values together exceed 8 MiB.
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

    /// Stores bytes for the given duration.
    ///
    /// # Errors
    ///
    /// - [`Error::AccessDenied`] on a read-only grant.
    /// - [`Error::InvalidArgument`] for a bad key, for a duration of zero, or for a value that begins like a lease of
    ///   the host.
    /// - [`Error::ValueTooLarge`] if the value exceeds `max_value_bytes`.
    /// - [`Error::Timeout`] and [`Error::Unavailable`] during an outage, whatever `on_outage` is. After a timeout the
    ///   value may be stored.
    pub fn set_bytes_with_duration(
        &self,
        key: impl AsRef<str>,
        value: &[u8],
        duration: impl Into<Duration>,
    ) -> Result<(), Error> {
        Ok(self.0.set_with_duration(key.as_ref(), value, duration.into().into())?)
    }

    /// Stores the bytes of many keys for one duration in one round trip. If a key is repeated, its last value is
    /// stored.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_bytes_with_duration`]; also [`Error::InvalidArgument`] for a batch over the limit. After
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

    /// Looks up the key for a get-or-set. Clears stored bytes that are not valid JSON of a `T`.
    pub(crate) fn lookup<T: DeserializeOwned>(&self, key: &str) -> Result<Lookup<T>, Error> {
        Ok(match self.entry(key)? {
            Entry::Vacant(vacancy) => Lookup::Missing(vacancy),
            Entry::Occupied(bytes) => match codec::decode(&bytes) {
                Ok(value) => Lookup::Found(value),
                // The clear makes it a miss for all callers, so only one of them computes.
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

/// The result of a typed lookup.
pub(crate) enum Lookup<T> {
    Found(T),
    Missing(Vacancy),
}

/// Stores a computed value, and ignores a failure: the caller already has the value, and the next caller computes it
/// again.
pub(crate) fn store<T: Serialize>(vacancy: Vacancy, value: &T, duration: Duration) {
    let _stored = codec::encode(value).and_then(|bytes| vacancy.fill(&bytes, duration));
}
