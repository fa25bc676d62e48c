//! One plugin's view of a cache.

mod lists;

use std::sync::Arc;

use bytes::Bytes;

use crate::answer_limit::AnswerLimit;
use crate::backend::{ClearProgress, KeyState, Version};
use crate::cache::Cache;
use crate::cache_metrics::CacheMetrics;
use crate::error::CacheError;
use crate::fast_path::{FastPath, NearPath};
use crate::get_or_set::in_flight::Owner;
use crate::get_or_set::lookup::Entry;
use crate::get_or_set::refresh::Freshness;
use crate::get_or_set::vacancy::Vacancy;
use crate::key::{Namespace, Selection};
use crate::policy::{Duration, Policy};
use crate::scope::{Access, Limits, Scope};
use crate::value::Value;

/// One plugin's view of a cache. It checks the plugin's arguments, puts its keys into its namespace, enforces its
/// access, and counts its calls.
///
/// In an outage a write returns [`CacheError::Timeout`], [`CacheError::Lost`] or [`CacheError::Unavailable`]; a read
/// returns the same, or a miss if the cache's `on_outage` is [`OnOutage::Miss`](crate::OnOutage::Miss). A call may also
/// return [`CacheError::WrongType`] or [`CacheError::Refused`] from a server.
#[derive(Debug, Clone)]
pub struct ScopedCache {
    cache: Arc<Cache>,
    scope: Scope,
}

impl ScopedCache {
    /// What the host takes for a name in a list beside its length, in bytes.
    pub const KEY_OVERHEAD: usize = 64;

    /// The view of `owner`, with [`Limits::default`].
    pub fn new(cache: Arc<Cache>, namespace: Option<Namespace>, access: Access, owner: Owner) -> Self {
        Self { cache, scope: Scope { namespace, access, owner, limits: Limits::default(), answers: None } }
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.scope.limits = limits;
        self
    }

    /// The same view for another owner of vacancies, who waits for those of the first one.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.scope.owner = owner;
        self
    }

    /// The same view for concurrent calls of one plugin instance, whose answers are within this limit. A call waits for room
    /// before it is sent, so another call must not keep it from being polled.
    #[must_use]
    pub fn with_answer_limit(mut self, answers: Arc<AnswerLimit>) -> Self {
        self.scope.answers = Some(answers);
        self
    }

    /// The cache's name.
    pub fn name(&self) -> &str {
        self.cache.name()
    }

    /// The duration of a value that is stored without one, and must have another [`Version`] each time it is stored: the
    /// cache's `default_expire`, or [`Duration::lasting`] if that is no expiry.
    pub fn default_or_lasting(&self) -> Duration {
        if self.cache.has_default_expire() { Duration::Default } else { Duration::lasting() }
    }

    /// The synchronous fast path, if the cache's backend has one.
    pub fn fast_path(&self) -> Option<FastPath<'_>> {
        Some(FastPath::new(&self.scope, &self.cache, self.cache.as_sync()?))
    }

    /// The synchronous path of what is near, if the cache has a near tier.
    pub fn near_path(&self) -> Option<NearPath<'_>> {
        Some(NearPath::new(&self.scope, &self.cache, self.cache.near()?))
    }

    /// Returns the key's value, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for an invalid key; in an outage as [`ScopedCache`] describes;
    /// [`CacheError::ValueTooLarge`] if another program stored a value over the limit.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        if let Some(fast_path) = self.fast_path() {
            return fast_path.get(key);
        }
        if let Some(value) = self.near_path().and_then(|near| near.get(key)) {
            return Ok(Some(value));
        }
        let found = async {
            let key = self.scope.key(key)?;
            let reserved = self.cache.reserve(self.answers(), Policy::max_string).await;
            Ok(self.cache.get(&key).await?.map(|value| reserved.hold(value)))
        };
        self.metrics().get.call(found).await
    }

    /// Returns the values of many keys, in the order of the keys.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::get`]; also [`CacheError::InvalidArgument`] for a batch over [`Limits::max_batch`] or
    /// [`Limits::max_batch_bytes`], and [`CacheError::ValueTooLarge`] if the values exceed the cache's limit in total.
    pub async fn get_many(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Bytes>>, CacheError> {
        if let Some(fast_path) = self.fast_path() {
            return fast_path.get_many(keys);
        }
        if let Some(values) = self.near_path().and_then(|near| near.get_many(keys)) {
            return Ok(values);
        }
        let found = async {
            let keys = self.scope.keys(keys)?;
            let reserved = self.cache.reserve(self.answers(), Policy::max_reply).await;
            Ok(reserved.hold_many(self.cache.get_many(&keys).await?))
        };
        self.metrics().get_many.call(found).await
    }

    /// Returns true if the key holds a value.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::get`], without [`CacheError::ValueTooLarge`].
    pub async fn exists(&self, key: &str) -> Result<bool, CacheError> {
        let found = async {
            let key = self.scope.key(key)?;
            let _reserved = self.cache.reserve(self.answers(), Policy::max_string).await;
            self.cache.exists(&key).await
        };
        self.metrics().exists.call(found).await
    }

    /// Returns what the key holds, for an operator. It is not counted as a call.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::exists`], but also in an outage.
    pub async fn describe(&self, key: &str) -> Result<KeyState, CacheError> {
        self.cache.describe(&self.scope.key(key)?).await
    }

    /// Returns the key's value and its version, which [`ScopedCache::replace_copy`] compares, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::get`], but never a miss instead of an error in an outage.
    pub async fn read_version(&self, key: &str) -> Result<Option<(Bytes, Version)>, CacheError> {
        let found = async {
            let key = self.scope.key(key)?;
            let reserved = self.cache.reserve(self.answers(), Policy::max_string).await;
            let found = self.cache.read_version(&key).await?;
            Ok(found.map(|(value, version)| (reserved.hold(value), version)))
        };
        self.metrics().read_version.call(found).await
    }

    /// Returns an error if the grant of this cache allows no writes, as each call that writes does.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`].
    pub fn check_write(&self) -> Result<(), CacheError> {
        self.scope.check_write()
    }

    /// Stores a value if the key still has this version of its value, or, for `None`, still has no value, in one atomic
    /// step. Returns true if it was stored.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set`].
    pub async fn replace(
        &self,
        key: &str,
        version: Option<&Version>,
        value: Bytes,
        duration: Duration,
    ) -> Result<bool, CacheError> {
        self.replace_value(key, version, value, duration).await
    }

    /// Stores a copy of a value if the key still has this version of its value, or, for `None`, still has no value, in one
    /// atomic step. Returns true if it was stored.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set`].
    pub async fn replace_copy(
        &self,
        key: &str,
        version: Option<&Version>,
        value: &[u8],
        duration: Duration,
    ) -> Result<bool, CacheError> {
        self.replace_value(key, version, value, duration).await
    }

    async fn replace_value(
        &self,
        key: &str,
        version: Option<&Version>,
        value: impl Value,
        duration: Duration,
    ) -> Result<bool, CacheError> {
        let replace = async {
            let key = self.scope.key_to_write(key)?;
            self.cache.replace_value(key, version, value, duration).await
        };
        self.metrics().replace.call(replace).await
    }

    /// Adds to the number that the key holds as decimal text, in one atomic step. Returns the sum. A key without a value
    /// counts as 0 and then gets the duration; a number keeps its remaining life, except as
    /// [`CacheBackend::increment`](crate::CacheBackend::increment) says.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set`] without [`CacheError::ValueTooLarge`]; [`CacheError::NotANumber`];
    /// [`CacheError::NumberOverflow`]. After [`CacheError::Timeout`] or [`CacheError::Lost`] the number may or may not
    /// have changed; the call is never repeated.
    pub async fn increment(&self, key: &str, delta: i64, duration: Duration) -> Result<i64, CacheError> {
        let add = async { self.cache.increment(self.scope.key_to_write(key)?, delta, duration).await };
        self.metrics().increment.call(add).await
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`]; [`CacheError::InvalidArgument`] for an invalid key, a duration of zero, or a value
    /// that begins with [`Lease::MARK`](crate::Lease::MARK); [`CacheError::ValueTooLarge`]; in an outage as
    /// [`ScopedCache`] describes.
    pub async fn set(&self, key: &str, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        self.set_value(key, value, duration).await
    }

    /// Stores a copy of a value. It is copied after the checks, so a value that is refused takes no memory.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set`].
    pub async fn set_copy(&self, key: &str, value: &[u8], duration: Duration) -> Result<(), CacheError> {
        self.set_value(key, value, duration).await
    }

    async fn set_value(&self, key: &str, value: impl Value, duration: Duration) -> Result<(), CacheError> {
        if let Some(fast_path) = self.fast_path() {
            return fast_path.set_value(key, value, duration);
        }
        let set = async { self.cache.set_value(self.scope.key_to_write(key)?, value, duration).await };
        self.metrics().set.call(set).await
    }

    /// Stores many values with one duration.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set`]; also [`CacheError::InvalidArgument`] for a batch over [`Limits::max_batch`] or
    /// [`Limits::max_batch_bytes`].
    pub async fn set_many<V: Into<Bytes>>(
        &self,
        entries: Vec<(String, V)>,
        duration: Duration,
    ) -> Result<(), CacheError> {
        self.set_many_values(entries.into_iter().map(|(key, value)| (key, value.into())).collect(), duration).await
    }

    /// Stores copies of many values with one duration. They are copied after the checks, so a batch that is refused
    /// takes no memory.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::set_many`].
    pub async fn set_many_copies(
        &self,
        entries: Vec<(impl AsRef<str>, &[u8])>,
        duration: Duration,
    ) -> Result<(), CacheError> {
        self.set_many_values(entries, duration).await
    }

    async fn set_many_values<V: Value>(
        &self,
        entries: Vec<(impl AsRef<str>, V)>,
        duration: Duration,
    ) -> Result<(), CacheError> {
        let set = async { self.cache.set_many_values(self.scope.entries(entries)?, duration).await };
        self.metrics().set_many.call(set).await
    }

    // Decision: docs/decisions/0012-get-or-set-needs-write-access-even-on-a-hit.md
    /// Returns the key's value, or a vacancy for the caller to compute it.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`]; [`CacheError::InvalidArgument`] for an invalid key, or one whose vacancy this owner
    /// already holds; in an outage as [`ScopedCache`] describes.
    pub async fn get_or_set(&self, key: &str) -> Result<Entry, CacheError> {
        let found = match self.fast_path() {
            Some(fast_path) => fast_path.occupied(key),
            None => self.near_path().and_then(|near| near.occupied(key)),
        };
        if let Some(value) = found {
            return Ok(Entry::Occupied(value));
        }
        let found = async {
            let key = self.scope.key_to_write(key)?;
            self.cache.get_or_set_within(&key, self.scope.owner, self.answers()).await
        };
        self.metrics().get_or_set.call(found).await
    }

    /// Returns the key's value. If it expires within `stale`, one caller also gets the right to refresh it, and no caller
    /// waits. Without a value, returns a vacancy or waits, as [`ScopedCache::get_or_set`] does.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::get_or_set`]; [`CacheError::InvalidArgument`] if `stale` is zero or unlimited.
    pub async fn get_or_refresh(&self, key: &str, stale: Duration) -> Result<Freshness, CacheError> {
        let found = match self.fast_path() {
            Some(fast_path) => fast_path.fresh(key, stale),
            None => self.near_path().and_then(|near| near.fresh(key, stale)),
        };
        if let Some(value) = found {
            return Ok(Freshness::Fresh(value));
        }
        let found = async {
            let key = self.scope.key_to_write(key)?;
            self.cache.get_or_refresh_within(&key, stale, self.scope.owner, self.answers()).await
        };
        self.metrics().get_or_refresh.call(found).await
    }

    /// Fills a vacancy that [`ScopedCache::get_or_set`] or [`ScopedCache::get_or_refresh`] returned. Returns true if the value was stored.
    ///
    /// # Errors
    ///
    /// As [`Cache::fill`].
    pub async fn fill(&self, vacancy: Vacancy, value: Bytes, duration: Duration) -> Result<bool, CacheError> {
        self.metrics().fill.call(self.cache.fill(vacancy, value, duration)).await
    }

    /// Fills a vacancy with a copy of a value. It is copied after the checks, so a value that is refused takes no
    /// memory.
    ///
    /// # Errors
    ///
    /// As [`Cache::fill`].
    pub async fn fill_copy(&self, vacancy: Vacancy, value: &[u8], duration: Duration) -> Result<bool, CacheError> {
        self.metrics().fill.call(self.cache.fill_value(vacancy, value, duration)).await
    }

    /// Fills a vacancy with a value that [`ScopedCache::get_or_refresh`] returns as stale in the last part of its life,
    /// which is `duration` and `stale` together.
    ///
    /// # Errors
    ///
    /// As [`Cache::fill_stale`].
    pub async fn fill_stale(
        &self,
        vacancy: Vacancy,
        value: Bytes,
        duration: Duration,
        stale: Duration,
    ) -> Result<bool, CacheError> {
        self.metrics().fill_stale.call(self.cache.fill_stale(vacancy, value, duration, stale)).await
    }

    /// [`ScopedCache::fill_stale`] with a copy of a value. It is copied after the checks, so a value that is refused takes
    /// no memory.
    ///
    /// # Errors
    ///
    /// As [`Cache::fill_stale`].
    pub async fn fill_stale_copy(
        &self,
        vacancy: Vacancy,
        value: &[u8],
        duration: Duration,
        stale: Duration,
    ) -> Result<bool, CacheError> {
        self.metrics().fill_stale.call(self.cache.fill_stale_value(vacancy, value, duration, stale)).await
    }

    /// Removes one key. Returns true if it held a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::ReadOnly`]; [`CacheError::InvalidArgument`] for an invalid key; in an outage as [`ScopedCache`]
    /// describes.
    pub async fn clear(&self, key: &str) -> Result<bool, CacheError> {
        self.metrics().clear.call(async { self.cache.clear(&self.scope.key_to_write(key)?).await }).await
    }

    /// Removes many keys. Returns how many held a value; a key that is repeated counts once.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::clear`]; also [`CacheError::InvalidArgument`] for a batch over [`Limits::max_batch`] or
    /// [`Limits::max_batch_bytes`]. After an error of the backend some keys may be removed.
    pub async fn clear_many(&self, keys: &[impl AsRef<str>]) -> Result<u64, CacheError> {
        self.metrics().clear_many.call(async { self.cache.clear_many(self.scope.keys_to_write(keys)?).await }).await
    }

    /// Removes the keys of this key space that match a glob. Returns how many held a value.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::clear`]; [`CacheError::InvalidArgument`] for an invalid pattern, or one over
    /// [`Limits::max_pattern_bytes`]. After an error some keys may be removed.
    pub async fn clear_pattern(&self, pattern: &str) -> Result<u64, CacheError> {
        let cleared = async { self.clear_selected(&self.scope.matching(pattern)?, &ClearProgress::default()).await };
        self.metrics().clear_pattern.call(cleared).await
    }

    /// Removes all keys of this key space. Returns how many held a value.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::clear`]. After an error some keys may be removed.
    pub async fn clear_all(&self) -> Result<u64, CacheError> {
        let cleared = async { self.clear_selected(&self.scope.all()?, &ClearProgress::default()).await };
        self.metrics().clear_all.call(cleared).await
    }

    /// As [`ScopedCache::clear_pattern`], or as [`ScopedCache::clear_all`] without a pattern, and counts what it does.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::clear_pattern`].
    pub async fn clear_with(&self, pattern: Option<&str>, progress: &ClearProgress) -> Result<u64, CacheError> {
        let operation = if pattern.is_some() { &self.metrics().clear_pattern } else { &self.metrics().clear_all };
        let cleared = async {
            let selection = pattern.map_or_else(|| self.scope.all(), |pattern| self.scope.matching(pattern))?;
            self.clear_selected(&selection, progress).await
        };
        operation.call(cleared).await
    }

    async fn clear_selected(&self, selection: &Selection, progress: &ClearProgress) -> Result<u64, CacheError> {
        let _turn = match self.answers() {
            Some(answers) => answers.begin_clear().await,
            None => None,
        };
        self.cache.clear_matching_with(selection, progress).await
    }

    fn answers(&self) -> Option<&Arc<AnswerLimit>> {
        self.scope.answers.as_ref()
    }

    fn metrics(&self) -> &CacheMetrics {
        self.cache.metrics()
    }
}
