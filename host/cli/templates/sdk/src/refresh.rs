//! Get-or-refresh: a stale value at once, and one caller that refreshes it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Lookup, Vacancy};
use crate::{Duration, Error, bindings, codec};

/// The result of [`Cache::freshness`].
#[derive(Debug)]
pub enum Freshness {
    /// The value of the key, which is not stale.
    Fresh(Vec<u8>),
    /// The value of the key, which expires soon.
    Stale {
        /// The value.
        value: Vec<u8>,
        /// The right to compute the next value. Exactly one caller at a time has it.
        refresh: Option<Vacancy>,
    },
    /// The key has no value, and this caller computes it.
    Vacant(Vacancy),
}

/// The right to refresh a stale value, which [`Cache::get_then_refresh`] returns with it.
///
/// The plugin may answer with the stale value first, and compute and store the next one then. Dropping the refresh gives
/// it back: another caller gets it after about a second.
#[derive(Debug)]
#[must_use = "a refresh that is dropped keeps others from refreshing for about a second"]
pub struct Refresh {
    vacancy: Vacancy,
    duration: Duration,
    stale: Duration,
}

impl Refresh {
    pub(crate) fn new(vacancy: Vacancy, duration: Duration, stale: Duration) -> Self {
        Self { vacancy, duration, stale }
    }

    /// Stores the next value, with the durations that were given to [`Cache::get_then_refresh`].
    ///
    /// Returns `true` if the value was stored. Returns `false`, and stores nothing, if the stale value is no longer there:
    /// the key was cleared, set or filled, or the value was evicted or has expired.
    ///
    /// # Errors
    ///
    /// As [`Vacancy::fill`]; also [`Error::Codec`] if JSON cannot represent the value.
    pub fn store<T: Serialize + ?Sized>(self, value: &T) -> Result<bool, Error> {
        self.vacancy.fill_stale(&codec::encode(value)?, self.duration, self.stale)
    }

    /// As [`Refresh::store`], for a caller that has its value, whether it is stored or not.
    pub(crate) fn offer<T: Serialize + ?Sized>(self, value: &T) {
        let _stored = self.store(value);
    }
}

impl Cache {
    /// Returns the value of a key at once, also if it is stale, and refreshes it.
    ///
    /// A value that was stored by this call is fresh for `duration`, and then stale for `stale`. While it is stale, one
    /// caller at a time, across all host processes that share the cache, calls `compute` and returns the new value; all
    /// others return the stale value at once. Without a value this does the same as [`Cache::get_or_set`].
    ///
    /// `duration` and `stale` together are at most the cache's `max_expire`, and `stale` at most half of it. All callers
    /// of a key should use the same `stale`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), larder::Error> {
    /// use std::time::Duration;
    ///
    /// let cache = larder::Cache::default()?;
    /// let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    /// let rates: Vec<f64> = cache.get_or_refresh("rates", minute, hour, || fetch_rates())?;
    /// # Ok(())
    /// # }
    /// # fn fetch_rates() -> Vec<f64> { Vec::new() }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_set`]; also [`Error::InvalidArgument`] if `stale` is zero or unlimited.
    pub fn get_or_refresh<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_refresh(key, duration, stale, || Ok(compute()), |_: Error| {})
    }

    /// [`Cache::get_or_refresh`] with a closure that can fail.
    ///
    /// If the closure fails and there is a stale value, the stale value is returned, and the error is given to
    /// `on_error`. No caller tries again for about a second, and the value keeps its expiry, so that it is never older than
    /// `duration` and `stale` together. Without a value, the error of the closure is returned.
    ///
    /// # Errors
    ///
    /// The error of the closure if there is no value, or an error of [`Cache::get_or_refresh`], converted into `E`.
    pub fn try_get_or_refresh<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl FnOnce() -> Result<T, E>,
        on_error: impl FnOnce(E),
    ) -> Result<T, E> {
        match self.begin(key.as_ref(), duration.into(), stale.into())? {
            Begun::Found(value) => Ok(value),
            Begun::Compute(old, refresh) => settle(compute(), old, on_error, |value| refresh.offer(value)),
        }
    }

    /// [`Cache::get_or_refresh`] with an async closure.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_refresh`].
    pub async fn get_or_refresh_async<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_refresh_async(key, duration, stale, async || Ok(compute().await), |_: Error| {}).await
    }

    /// [`Cache::try_get_or_refresh`] with an async closure.
    ///
    /// # Errors
    ///
    /// As [`Cache::try_get_or_refresh`].
    pub async fn try_get_or_refresh_async<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
        on_error: impl FnOnce(E),
    ) -> Result<T, E> {
        match self.begin(key.as_ref(), duration.into(), stale.into())? {
            Begun::Found(value) => Ok(value),
            Begun::Compute(old, refresh) => settle(compute().await, old, on_error, |value| refresh.offer(value)),
        }
    }

    /// Returns the value of a key at once, and a [`Refresh`] if this caller is the one to refresh it. `compute` is called
    /// only if there is no value.
    ///
    /// A served plugin answers with the value first and refreshes it then, so that the one who refreshes does not wait
    /// either:
    ///
    /// ```no_run
    /// # fn respond(_: &str) {}
    /// # fn render() -> String { String::new() }
    /// # fn main() -> Result<(), larder::Error> {
    /// use std::time::Duration;
    ///
    /// let cache = larder::Cache::default()?;
    /// let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    /// let (page, refresh) = cache.get_then_refresh("page", minute, hour, || render())?;
    /// respond(&page);
    /// if let Some(refresh) = refresh {
    ///     refresh.store(&render())?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_refresh`].
    pub fn get_then_refresh<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl FnOnce() -> T,
    ) -> Result<(T, Option<Refresh>), Error> {
        self.try_get_then_refresh(key, duration, stale, || Ok(compute()))
    }

    /// [`Cache::get_then_refresh`] with a closure that can fail.
    ///
    /// # Errors
    ///
    /// The error of the closure, or an error of [`Cache::get_or_refresh`], converted into `E`.
    pub fn try_get_then_refresh<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, Option<Refresh>), E> {
        match self.begin(key.as_ref(), duration.into(), stale.into())? {
            Begun::Found(value) => Ok((value, None)),
            Begun::Compute(Some(old), refresh) => Ok((old, Some(refresh))),
            Begun::Compute(None, refresh) => {
                let value = compute()?;
                refresh.offer(&value);
                Ok((value, None))
            }
        }
    }

    /// [`Cache::get_then_refresh`] with an async closure.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_refresh`].
    pub async fn get_then_refresh_async<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> T,
    ) -> Result<(T, Option<Refresh>), Error> {
        self.try_get_then_refresh_async(key, duration, stale, async || Ok(compute().await)).await
    }

    /// [`Cache::try_get_then_refresh`] with an async closure.
    ///
    /// # Errors
    ///
    /// As [`Cache::try_get_then_refresh`].
    pub async fn try_get_then_refresh_async<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<(T, Option<Refresh>), E> {
        match self.begin(key.as_ref(), duration.into(), stale.into())? {
            Begun::Found(value) => Ok((value, None)),
            Begun::Compute(Some(old), refresh) => Ok((old, Some(refresh))),
            Begun::Compute(None, refresh) => {
                let value = compute().await?;
                refresh.offer(&value);
                Ok((value, None))
            }
        }
    }

    /// Returns the bytes of a key at once, also if they expire within `stale`; then one caller at a time also gets the
    /// right to refresh them.
    ///
    /// [`Cache::get_or_refresh`] and its variants are built on this call.
    ///
    /// # Errors
    ///
    /// As [`Cache::entry`]; also [`Error::InvalidArgument`] if `stale` is zero or unlimited.
    pub fn freshness(&self, key: impl AsRef<str>, stale: impl Into<Duration>) -> Result<Freshness, Error> {
        Ok(match self.0.get_or_refresh(key.as_ref(), stale.into().into())? {
            bindings::Freshness::Fresh(bytes) => Freshness::Fresh(bytes),
            bindings::Freshness::Stale(bindings::StaleValue { value, refresh }) => {
                Freshness::Stale { value, refresh: refresh.map(Vacancy) }
            }
            bindings::Freshness::Vacant(vacancy) => Freshness::Vacant(Vacancy(vacancy)),
        })
    }

    /// Looks up the key, for a caller that stores what it computes with these durations.
    fn begin<T: DeserializeOwned>(&self, key: &str, duration: Duration, stale: Duration) -> Result<Begun<T>, Error> {
        let refresh = |vacancy| Refresh::new(vacancy, duration, stale);
        Ok(match self.look_up(key, stale)? {
            LookedUp::Found(value) => Begun::Found(value),
            LookedUp::Stale(old, vacancy) => Begun::Compute(Some(old), refresh(vacancy)),
            LookedUp::Missing(vacancy) => Begun::Compute(None, refresh(vacancy)),
        })
    }

    /// Looks up the key for a get-or-refresh. Replaces stored bytes that are not valid JSON of a `T`.
    pub(crate) fn look_up<T: DeserializeOwned>(&self, key: &str, stale: Duration) -> Result<LookedUp<T>, Error> {
        let (bytes, refresh) = match self.freshness(key, stale)? {
            Freshness::Vacant(vacancy) => return Ok(LookedUp::Missing(vacancy)),
            Freshness::Fresh(bytes) => (bytes, None),
            Freshness::Stale { value, refresh } => (value, refresh),
        };
        Ok(match (codec::decode(&bytes), refresh) {
            (Ok(value), None) => LookedUp::Found(value),
            (Ok(value), Some(vacancy)) => LookedUp::Stale(value, vacancy),
            (Err(_), Some(vacancy)) => LookedUp::Missing(vacancy),
            (Err(_), None) => self.lookup(key)?.into(),
        })
    }
}

/// The result of a typed look-up that may return a stale value.
pub(crate) enum LookedUp<T> {
    /// A value that this caller does not compute.
    Found(T),
    /// A value that this caller refreshes.
    Stale(T, Vacancy),
    Missing(Vacancy),
}

/// A get-or-refresh that has looked its key up.
enum Begun<T> {
    Found(T),
    /// This caller computes. It has the stale value, if there is one.
    Compute(Option<T>, Refresh),
}

impl<T> From<Lookup<T>> for LookedUp<T> {
    fn from(lookup: Lookup<T>) -> Self {
        match lookup {
            Lookup::Found(value) => Self::Found(value),
            Lookup::Missing(vacancy) => Self::Missing(vacancy),
        }
    }
}

/// What a get-or-refresh returns after its computation: the new value, which it stores, or the old one if it failed.
pub(crate) fn settle<T, E>(
    computed: Result<T, E>,
    old: Option<T>,
    on_error: impl FnOnce(E),
    store: impl FnOnce(&T),
) -> Result<T, E> {
    match (computed, old) {
        (Ok(value), _) => {
            store(&value);
            Ok(value)
        }
        (Err(error), Some(old)) => {
            on_error(error);
            Ok(old)
        }
        (Err(error), None) => Err(error),
    }
}
