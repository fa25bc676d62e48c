//! What one plugin may see of a cache: the one place where its keys are checked, namespaced and its grant enforced.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache_metrics::CacheMetrics;
use crate::glob::Pattern;
use crate::{
    Cache, CacheError, Duration, Entry, FastPath, Key, KeyRef, Namespace, Owner, Selection, Vacancy, check_text,
};

/// What a plugin may do with the caches it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everything.
    #[default]
    ReadWrite,
    /// `get` and `get-many`.
    ReadOnly,
}

/// The most that one call of a plugin may name. A call beyond is refused and does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key in bytes; never over [`Key::MAX_LENGTH`], which is the default.
    pub max_key_bytes: usize,
    /// The longest pattern in bytes; never over [`Pattern::MAX_LENGTH`], which is the default.
    pub max_pattern_bytes: usize,
    /// The most keys of one batch. Defaults to 1,024.
    pub max_batch: usize,
    /// The most bytes of keys and values of one batch. Defaults to 64 MiB.
    pub max_batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_key_bytes: Key::MAX_LENGTH,
            max_pattern_bytes: Pattern::MAX_LENGTH,
            max_batch: 1024,
            max_batch_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Refuses a batch of this many keys or entries, with so many bytes each.
    pub(super) fn check_batch(
        &self,
        argument: &str,
        bytes: impl ExactSizeIterator<Item = usize>,
    ) -> Result<(), CacheError> {
        let (len, max) = (bytes.len(), self.max_batch);
        if len > max {
            return Err(CacheError::InvalidArgument(format!("{argument}: must not be more than {max}, but are {len}")));
        }
        let (bytes, max) = (bytes.fold(0, usize::saturating_add), self.max_batch_bytes);
        if bytes > max {
            let rule = format!("{argument}: must not be over {max} bytes, but are {bytes}");
            return Err(CacheError::InvalidArgument(rule));
        }
        Ok(())
    }
}

/// The caches that one plugin instance may open.
#[derive(Debug, Clone)]
pub struct PluginCaches {
    /// All caches of the host; those not granted have no value.
    by_name: BTreeMap<String, Option<ScopedCache>>,
    default: String,
}

/// Why a cache cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No cache of that name is configured.
    #[error("no cache of that name is configured")]
    NoSuchCache,
    /// The cache is configured, but not granted to this plugin.
    #[error("the cache is not granted to this plugin")]
    NotGranted,
}

impl PluginCaches {
    /// All caches of the host by name, without a value where one is not granted, and the default's name.
    pub fn new(by_name: BTreeMap<String, Option<ScopedCache>>, default: impl Into<String>) -> Self {
        Self { by_name, default: default.into() }
    }

    /// Opens a cache by name.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(&self, name: &str) -> Result<&ScopedCache, OpenError> {
        self.by_name.get(name).ok_or(OpenError::NoSuchCache)?.as_ref().ok_or(OpenError::NotGranted)
    }

    /// Opens the default cache.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_default(&self) -> Result<&ScopedCache, OpenError> {
        self.open(&self.default)
    }
}

/// A cache within one grant.
#[derive(Debug, Clone)]
pub struct ScopedCache {
    pub(super) cache: Arc<Cache>,
    namespace: Option<Namespace>,
    access: Access,
    owner: Owner,
    pub(super) limits: Limits,
}

impl ScopedCache {
    /// A cache as `owner` may use it, within [`Limits::default`].
    pub fn new(cache: Arc<Cache>, namespace: Option<Namespace>, access: Access, owner: Owner) -> Self {
        Self { cache, namespace, access, owner, limits: Limits::default() }
    }

    /// The same within other limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The cache's name.
    pub fn name(&self) -> &str {
        self.cache.name()
    }

    /// The cache as one that answers at once, where it is in this process.
    pub fn fast_path(&self) -> Option<FastPath<'_>> {
        Some(FastPath::new(self, self.cache.as_sync()?))
    }

    /// The key's value, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a bad key; an outage's error where the operator chose that over a miss.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        if let Some(cache) = self.fast_path() {
            return cache.get(key);
        }
        let found = async { self.cache.get(&self.key(key)?).await };
        self.metrics().get.call(found, Option::is_some).await
    }

    /// The values of many keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::get`]; also for a batch over [`Limits::max_batch`] or [`Limits::max_batch_bytes`].
    pub async fn get_many(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Bytes>>, CacheError> {
        if let Some(cache) = self.fast_path() {
            return cache.get_many(keys);
        }
        let found = async {
            self.limits.check_batch("keys", keys.iter().map(|key| key.as_ref().len()))?;
            let keys = keys.iter().map(|key| self.key(key.as_ref())).collect::<Result<Vec<_>, _>>()?;
            self.cache.get_many(&keys).await
        };
        self.metrics().get_many.call(found, |_| true).await
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`], [`CacheError::InvalidArgument`] for a bad key or a duration of zero,
    /// [`CacheError::ValueTooLarge`], and what an outage brings.
    pub async fn set(&self, key: &str, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        if let Some(cache) = self.fast_path() {
            return cache.set(key, value, duration);
        }
        let set = async {
            self.check_write()?;
            self.cache.set(self.key(key)?, value, duration).await
        };
        self.metrics().set.call(set, |_| true).await
    }

    /// Stores many values for one duration.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set`]; also for a batch over [`Limits::max_batch`] or [`Limits::max_batch_bytes`].
    pub async fn set_many<V: Into<Bytes>>(
        &self,
        entries: Vec<(String, V)>,
        duration: Duration,
    ) -> Result<(), CacheError> {
        let entries: Vec<(String, Bytes)> = entries.into_iter().map(|(key, value)| (key, value.into())).collect();
        let set = async {
            self.check_write()?;
            let bytes = |(key, value): &(String, Bytes)| key.len().saturating_add(value.len());
            self.limits.check_batch("entries", entries.iter().map(bytes))?;
            let keyed = |(key, value): (String, Bytes)| Ok((self.key(&key)?, value));
            let entries = entries.into_iter().map(keyed).collect::<Result<Vec<_>, CacheError>>()?;
            self.cache.set_many(entries, duration).await
        };
        self.metrics().set_many.call(set, |_| true).await
    }

    // Decision: docs/decisions/0012-get-or-set-needs-write-access-even-on-a-hit.md
    /// The key's value, or the vacancy to compute it.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`]; [`CacheError::InvalidArgument`] for a bad key, or one whose vacancy this owner holds.
    pub async fn get_or_set(&self, key: &str) -> Result<Entry, CacheError> {
        if let Some(value) = self.fast_path().and_then(|cache| cache.occupied(key)) {
            return Ok(Entry::Occupied(value));
        }
        let found = async {
            self.check_write()?;
            self.cache.get_or_set(&self.key(key)?, self.owner).await
        };
        self.metrics().get_or_set.call(found, |entry| matches!(entry, Entry::Occupied(_))).await
    }

    /// Fills a vacancy that [`ScopedCache::get_or_set`] gave.
    ///
    /// # Errors
    ///
    /// As [`Cache::fill`].
    pub async fn fill(&self, vacancy: Vacancy, value: Bytes, duration: Duration) -> Result<bool, CacheError> {
        let filled = self.cache.fill(vacancy, value, duration);
        self.metrics().fill.call(filled, |is_stored| *is_stored).await
    }

    /// Removes one key and says whether it held a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`], [`CacheError::InvalidArgument`] for a bad key, and what an outage brings.
    pub async fn clear(&self, key: &str) -> Result<bool, CacheError> {
        let cleared = async {
            self.check_write()?;
            self.cache.clear(&self.key(key)?).await
        };
        self.metrics().clear.call(cleared, |_| true).await
    }

    /// Removes the keys of this key space that match a glob, and says how many.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::clear`]; [`CacheError::InvalidArgument`] for a bad pattern.
    pub async fn clear_pattern(&self, pattern: &str) -> Result<u64, CacheError> {
        let cleared = async {
            self.check_write()?;
            check_text("pattern", pattern, self.limits.max_pattern_bytes.min(Pattern::MAX_LENGTH))?;
            self.cache.clear_matching(&Selection::matching(self.namespace.clone(), pattern)?).await
        };
        self.metrics().clear_pattern.call(cleared, |_| true).await
    }

    /// Removes all keys of this key space, and says how many.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::clear`].
    pub async fn clear_all(&self) -> Result<u64, CacheError> {
        let cleared = async {
            self.check_write()?;
            self.cache.clear_matching(&Selection::all(self.namespace.clone())).await
        };
        self.metrics().clear_all.call(cleared, |_| true).await
    }

    pub(super) fn metrics(&self) -> &CacheMetrics {
        self.cache.metrics()
    }

    pub(super) fn key(&self, key: &str) -> Result<Key, CacheError> {
        Key::within(self.limits.max_key_bytes, self.namespace.as_ref(), key)
    }

    /// Looks up a key, which is put together without allocating.
    pub(super) fn look_up<T>(&self, key: &str, look: impl FnOnce(KeyRef<'_>) -> T) -> Result<T, CacheError> {
        Key::look_up(self.limits.max_key_bytes, self.namespace.as_ref(), key, look)
    }

    pub(super) fn check_write(&self) -> Result<(), CacheError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(CacheError::ReadOnly),
        }
    }
}
