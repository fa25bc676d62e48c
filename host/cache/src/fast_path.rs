//! The synchronous fast path: calls on a cache in this process, and hits in a near tier, without a future. A look-up
//! allocates nothing.

use std::fmt;

use bytes::Bytes;

use crate::backend::{NearLookup, SyncBackend};
use crate::cache::Cache;
use crate::error::CacheError;
use crate::policy::Duration;
use crate::scope::Scope;
use crate::value::Value;

/// One plugin's view of a cache in this process. Each call does the same as the call of
/// [`ScopedCache`](crate::ScopedCache) with the same name.
#[derive(Clone, Copy)]
pub struct FastPath<'a> {
    scope: &'a Scope,
    cache: &'a Cache,
    backend: &'a dyn SyncBackend,
}

impl fmt::Debug for FastPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastPath").field("scope", self.scope).field("cache", self.cache).finish_non_exhaustive()
    }
}

impl<'a> FastPath<'a> {
    pub(crate) fn new(scope: &'a Scope, cache: &'a Cache, backend: &'a dyn SyncBackend) -> Self {
        Self { scope, cache, backend }
    }

    /// Returns the key's value, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for an invalid key.
    pub fn get(self, key: &str) -> Result<Option<Bytes>, CacheError> {
        let metrics = &self.cache.metrics().get;
        metrics.call_sync(|| self.scope.look_up(key, |key| metrics.timed_sync(|| self.backend.look_up(key))))
    }

    /// Returns the values of many keys, in the order of the keys.
    ///
    /// # Errors
    ///
    /// As [`FastPath::get`]; also [`CacheError::InvalidArgument`] for a batch over
    /// [`Limits::max_batch`](crate::Limits::max_batch) or [`Limits::max_batch_bytes`](crate::Limits::max_batch_bytes),
    /// and [`CacheError::ValueTooLarge`] if the values exceed the cache's limit in total.
    pub fn get_many(self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let metrics = &self.cache.metrics().get_many;
        metrics.call_sync(|| {
            self.scope.check_keys(keys)?;
            let look_up = |key: &_| self.scope.look_up(AsRef::as_ref(key), |key| self.backend.look_up(key));
            self.cache.check_found(metrics.timed_sync(|| keys.iter().map(look_up).collect::<Result<_, _>>())?)
        })
    }

    /// Returns the key's value if get-or-set may return it. `None`: fall back to
    /// [`ScopedCache::get_or_set`](crate::ScopedCache::get_or_set), which waits or returns the error.
    pub fn occupied(self, key: &str) -> Option<Bytes> {
        self.scope.check_write().ok()?;
        let metrics = &self.cache.metrics().get_or_set;
        let found = self.scope.look_up(key, |key| {
            // The claim that follows a miss is timed instead of the miss.
            metrics.timed_sync_if(|| self.backend.look_up(key), Option::is_some)
        });
        let found @ Some(_) = found.ok()? else { return None };
        metrics.call_sync(|| Ok(found)).ok()?
    }

    /// Returns the key's value if get-or-refresh may return it as fresh. `None`: fall back to
    /// [`ScopedCache::get_or_refresh`](crate::ScopedCache::get_or_refresh).
    pub fn fresh(self, key: &str, stale: Duration) -> Option<Bytes> {
        self.scope.check_write().ok()?;
        let stale = self.cache.resolve_stale(stale).ok()?;
        let metrics = &self.cache.metrics().get_or_refresh;
        let found = self.scope.look_up(key, |key| {
            let fresh = || self.backend.look_up_with_life(key).filter(|found| !found.is_stale(stale));
            metrics.timed_sync_if(fresh, Option::is_some)
        });
        let value = found.ok()??.value;
        metrics.call_sync(|| Ok(Some(value))).ok()?
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`]; [`CacheError::InvalidArgument`] for an invalid key, a duration of zero, or a value
    /// that begins with [`Lease::MARK`](crate::Lease::MARK); [`CacheError::ValueTooLarge`].
    pub fn set(self, key: &str, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        self.set_value(key, value, duration)
    }

    /// Stores a copy of a value. It is copied after the checks, so a value that is refused takes no memory.
    ///
    /// # Errors
    ///
    /// As [`FastPath::set`].
    pub fn set_copy(self, key: &str, value: &[u8], duration: Duration) -> Result<(), CacheError> {
        self.set_value(key, value, duration)
    }

    pub(crate) fn set_value(self, key: &str, value: impl Value, duration: Duration) -> Result<(), CacheError> {
        let set = || self.cache.set_sync(self.backend, self.scope.key_to_write(key)?, value, duration);
        self.cache.metrics().set.call_sync(set)
    }
}

/// One plugin's view of what a cache has near. Each call returns what is near; after `None`, fall back to the call of
/// [`ScopedCache`](crate::ScopedCache) with the same name, which asks the server or returns the error.
#[derive(Clone, Copy)]
pub struct NearPath<'a> {
    scope: &'a Scope,
    cache: &'a Cache,
    near: &'a dyn NearLookup,
}

impl fmt::Debug for NearPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearPath").field("scope", self.scope).field("cache", self.cache).finish_non_exhaustive()
    }
}

impl<'a> NearPath<'a> {
    pub(crate) fn new(scope: &'a Scope, cache: &'a Cache, near: &'a dyn NearLookup) -> Self {
        Self { scope, cache, near }
    }

    /// The key's value, if it is near.
    pub fn get(self, key: &str) -> Option<Bytes> {
        let found @ Some(_) = self.look_up(key) else { return None };
        self.near.count_hits(1);
        self.cache.metrics().get.call_sync(|| Ok(found)).ok()?
    }

    /// The values of many keys, in the order of the keys, if all of them are near.
    pub fn get_many(self, keys: &[impl AsRef<str>]) -> Option<Vec<Option<Bytes>>> {
        self.scope.check_keys(keys).ok()?;
        let found: Option<Vec<Option<Bytes>>> = keys.iter().map(|key| self.look_up(key.as_ref()).map(Some)).collect();
        let found = self.cache.check_found(found?).ok()?;
        self.near.count_hits(found.len());
        self.cache.metrics().get_many.call_sync(|| Ok(found)).ok()
    }

    /// The key's value, if it is near and get-or-set may return it.
    pub fn occupied(self, key: &str) -> Option<Bytes> {
        self.scope.check_write().ok()?;
        let found @ Some(_) = self.look_up(key) else { return None };
        self.near.count_hits(1);
        self.cache.metrics().get_or_set.call_sync(|| Ok(found)).ok()?
    }

    /// The key's value, if it is near and get-or-refresh may return it as fresh.
    pub fn fresh(self, key: &str, stale: Duration) -> Option<Bytes> {
        self.scope.check_write().ok()?;
        let stale = self.cache.resolve_stale(stale).ok()?;
        let found @ Some(_) = self.scope.look_up(key, |key| self.near.look_up_fresh(key, stale)).ok()? else {
            return None;
        };
        self.near.count_hits(1);
        self.cache.metrics().get_or_refresh.call_sync(|| Ok(found)).ok()?
    }

    fn look_up(self, key: &str) -> Option<Bytes> {
        self.scope.look_up(key, |key| self.near.look_up(key)).ok()?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::ram::RamBackend;
    use crate::{Access, Entry, Namespace, Owner, Policy, ScopedCache};

    #[test]
    fn a_look_up_allocates_nothing() {
        let policy = Policy::default();
        let cache = Arc::new(Cache::new("cache", RamBackend::new(16 << 20, policy.max_value_bytes, &[]), policy));
        for namespace in [None, Some(Namespace::new("shop").unwrap())] {
            let view = ScopedCache::new(Arc::clone(&cache), namespace, Access::ReadWrite, Owner::new());
            let view = view.fast_path().unwrap();
            view.set("k", vec![b'v'; 10_000].into(), Duration::Default).unwrap();
            // The first look-up allocates once, as `Bytes` makes the value shareable.
            assert!(view.get("k").unwrap().is_some());
            let counted = allocation_counter::measure(|| {
                assert_eq!(view.get("k").unwrap().map(|value| value.len()), Some(10_000));
                assert_eq!(view.occupied("k").map(|value| value.len()), Some(10_000));
                assert!(view.get("other").unwrap().is_none());
            });
            assert_eq!(counted.count_total, 0);
        }
    }

    #[tokio::test]
    async fn a_value_that_is_refused_is_not_copied() {
        let policy = Policy { max_value_bytes: 10_000, ..Policy::default() };
        let cache = Arc::new(Cache::new("cache", RamBackend::new(16 << 20, policy.max_value_bytes, &[]), policy));
        let view = ScopedCache::new(Arc::clone(&cache), None, Access::ReadWrite, Owner::new());
        let reader = ScopedCache::new(Arc::clone(&cache), None, Access::ReadOnly, Owner::new());
        let Entry::Vacant(vacancy) = view.get_or_set("v").await.unwrap() else { panic!("no vacancy") };
        let (large, small) = (vec![b'v'; 1 << 20], vec![b'v'; 10_000]);
        let counted = allocation_counter::measure(|| {
            assert!(view.fast_path().unwrap().set_copy("k", &large, Duration::Default).is_err());
            assert!(view.fast_path().unwrap().set_copy("k", &small, Duration::Milliseconds(0)).is_err());
            assert!(view.fast_path().unwrap().set_copy("", &small, Duration::Default).is_err());
            assert!(reader.fast_path().unwrap().set_copy("k", &small, Duration::Default).is_err());
            assert!(view.set_many_copies(vec![("k", &large[..])], Duration::Default).now_or_never().unwrap().is_err());
            assert!(view.fill_copy(vacancy, &large, Duration::Default).now_or_never().unwrap().is_err());
        });
        assert!(counted.bytes_total < 8192, "{counted:?}");
    }
}
