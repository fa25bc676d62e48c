//! Calls on a cache that is in this process: no future, and for a look-up nothing is allocated.

use std::fmt;

use bytes::Bytes;

use crate::{CacheError, Duration, ScopedCache, SyncBackend};

/// A cache within one grant, whose answers need no waiting. Each call does what [`ScopedCache`]'s of the same name does.
#[derive(Clone, Copy)]
pub struct FastPath<'a> {
    scoped: &'a ScopedCache,
    backend: &'a dyn SyncBackend,
}

impl fmt::Debug for FastPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FastPath").field(self.scoped).finish()
    }
}

impl<'a> FastPath<'a> {
    pub(super) fn new(scoped: &'a ScopedCache, backend: &'a dyn SyncBackend) -> Self {
        Self { scoped, backend }
    }

    /// The key's value, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a bad key.
    pub fn get(self, key: &str) -> Result<Option<Bytes>, CacheError> {
        let operation = &self.scoped.metrics().get;
        operation.call_at_once(
            || self.scoped.look_up(key, |key| operation.timed_at_once(|| self.backend.look_up(key))),
            Option::is_some,
        )
    }

    /// The values of many keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`FastPath::get`]; also for a batch over [`Limits::max_batch`](crate::Limits::max_batch) or
    /// [`Limits::max_batch_bytes`](crate::Limits::max_batch_bytes).
    pub fn get_many(self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let operation = &self.scoped.metrics().get_many;
        let found = || {
            self.scoped.limits.check_batch("keys", keys.iter().map(|key| key.as_ref().len()))?;
            let look = |key: &_| self.scoped.look_up(AsRef::as_ref(key), |key| self.backend.look_up(key));
            let values = operation.timed_at_once(|| keys.iter().map(look).collect::<Result<Vec<_>, _>>())?;
            self.scoped.cache.check_batch(&values)?;
            Ok(values)
        };
        operation.call_at_once(found, |_| true)
    }

    /// The key's value as `get-or-set` answers it. `None` is to be asked again, with time to wait for what another one
    /// computes.
    pub fn occupied(self, key: &str) -> Option<Bytes> {
        self.scoped.check_write().ok()?;
        let operation = &self.scoped.metrics().get_or_set;
        let found = self.scoped.look_up(key, |key| {
            // A miss is timed by the claim that follows it.
            operation.timed_at_once_if(|| self.backend.look_up(key), Option::is_some)
        });
        let found = found.ok()??;
        operation.call_at_once(|| Ok(found), |_| true).ok()
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`], [`CacheError::InvalidArgument`] for a bad key or a duration of zero, and
    /// [`CacheError::ValueTooLarge`].
    pub fn set(self, key: &str, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        let set = || {
            self.scoped.check_write()?;
            self.scoped.cache.set_at_once(self.backend, self.scoped.key(key)?, value, duration)
        };
        self.scoped.metrics().set.call_at_once(set, |()| true)
    }
}
