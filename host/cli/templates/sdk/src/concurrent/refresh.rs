//! Get-or-refresh for plugins of WASI 0.3.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cache, Lookup, Vacancy};
use crate::bindings::concurrent as bindings;
use crate::refresh::settle;
use crate::{Duration, Error, codec};

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

impl Vacancy {
    /// Stores a value that is fresh for `duration` and then stale for `stale`, as [`Vacancy::fill`] stores one.
    ///
    /// # Errors
    ///
    /// As [`crate::Vacancy::fill_stale`].
    pub async fn fill_stale(
        self,
        value: &[u8],
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
    ) -> Result<bool, Error> {
        let (duration, stale) = (duration.into().into(), stale.into().into());
        Ok(bindings::Vacancy::fill_stale(self.0, value.to_vec(), duration, stale).await?)
    }
}

impl Cache {
    /// Returns the value of a key at once, also if it is stale, and refreshes it, as [`crate::Cache::get_or_refresh`]. While
    /// this caller computes, other tasks of the instance go on.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get_or_refresh`].
    pub async fn get_or_refresh<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_refresh(key, duration, stale, async || Ok(compute().await), |_: Error| {}).await
    }

    /// As [`Cache::get_or_refresh`], with a computation that can fail: the stale value is returned then, if there is one, and
    /// the error is given to `on_error`.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::try_get_or_refresh`].
    pub async fn try_get_or_refresh<T: Serialize + DeserializeOwned, E: From<Error>>(
        &self,
        key: impl AsRef<str>,
        duration: impl Into<Duration>,
        stale: impl Into<Duration>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
        on_error: impl FnOnce(E),
    ) -> Result<T, E> {
        let (duration, stale) = (duration.into(), stale.into());
        let (old, vacancy) = match self.look_up(key.as_ref(), stale).await? {
            LookedUp::Found(value) => return Ok(value),
            LookedUp::Stale(old, vacancy) => (Some(old), vacancy),
            LookedUp::Missing(vacancy) => (None, vacancy),
        };
        let computed = compute().await;
        if let Ok(value) = &computed
            && let Ok(bytes) = codec::encode(value)
        {
            // The caller gets the value whether or not it is stored.
            let _stored = vacancy.fill_stale(&bytes, duration, stale).await;
        }
        settle(computed, old, on_error, |_stored| {})
    }

    /// Returns the bytes of a key at once, also if they expire within `stale`; then one caller at a time also gets the
    /// right to refresh them.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::freshness`].
    pub async fn freshness(&self, key: impl AsRef<str>, stale: impl Into<Duration>) -> Result<Freshness, Error> {
        Ok(match self.0.get_or_refresh(key.as_ref().to_owned(), stale.into().into()).await? {
            bindings::Freshness::Fresh(bytes) => Freshness::Fresh(bytes),
            bindings::Freshness::Stale(bindings::StaleValue { value, refresh }) => {
                Freshness::Stale { value, refresh: refresh.map(Vacancy) }
            }
            bindings::Freshness::Vacant(vacancy) => Freshness::Vacant(Vacancy(vacancy)),
        })
    }

    /// Looks up the key. Replaces stored bytes that are not valid JSON of a `T`.
    async fn look_up<T: DeserializeOwned>(&self, key: &str, stale: Duration) -> Result<LookedUp<T>, Error> {
        let (bytes, refresh) = match self.freshness(key, stale).await? {
            Freshness::Vacant(vacancy) => return Ok(LookedUp::Missing(vacancy)),
            Freshness::Fresh(bytes) => (bytes, None),
            Freshness::Stale { value, refresh } => (value, refresh),
        };
        Ok(match (codec::decode(&bytes), refresh) {
            (Ok(value), None) => LookedUp::Found(value),
            (Ok(value), Some(vacancy)) => LookedUp::Stale(value, vacancy),
            (Err(_), Some(vacancy)) => LookedUp::Missing(vacancy),
            (Err(_), None) => match self.lookup(key).await? {
                Lookup::Found(value) => LookedUp::Found(value),
                Lookup::Missing(vacancy) => LookedUp::Missing(vacancy),
            },
        })
    }
}

/// The result of a typed look-up that may return a stale value.
enum LookedUp<T> {
    /// A value that this caller does not compute.
    Found(T),
    /// A value that this caller refreshes.
    Stale(T, Vacancy),
    Missing(Vacancy),
}
