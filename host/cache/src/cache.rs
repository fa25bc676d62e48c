//! One configured cache: a backend, and what is the same for all backends.

mod get_or_set;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use bytes::Bytes;

use crate::answer_limit::{AnswerLimit, Reserved};
use crate::backend::{
    CacheBackend, ClearProgress, Health, KeyPage, KeyState, ListCursor, NearLookup, SyncBackend, Version,
};
use crate::cache_metrics::CacheMetrics;
use crate::error::CacheError;
use crate::get_or_set::in_flight::Leaders;
use crate::get_or_set::state::CacheState;
use crate::get_or_set::stats::{GetOrSetStats, RefreshStats};
use crate::key::{Key, Selection};
use crate::policy::{Duration, OnOutage, Policy};
use crate::value::Value;

/// One configured cache. It applies a [`Policy`] to a [`CacheBackend`], and implements get-or-set.
///
/// Every call returns the errors of the backend, as [`CacheBackend`] describes them. In an outage a read returns a miss
/// instead if the policy's `on_outage` is [`OnOutage::Miss`].
#[derive(Debug)]
pub struct Cache {
    state: Arc<CacheState>,
}

impl Cache {
    /// A cache with the operator's name for it.
    pub fn new(name: impl Into<String>, backend: Arc<dyn CacheBackend>, policy: Policy) -> Self {
        Self { state: Arc::new(CacheState::new(name.into(), backend, policy)) }
    }

    /// The operator's name for the cache.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Returns the key's value, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        self.or_miss(self.metrics().get.timed(self.state.backend.get(key)).await, || None)
    }

    /// Returns the values of many keys, in the order of the keys. Makes one round trip.
    ///
    /// # Errors
    ///
    /// The backend's; [`CacheError::ValueTooLarge`] if the values exceed [`Policy::max_batch_bytes`] in total.
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.metrics().get_many.timed(self.state.backend.get_many(keys)).await;
        self.check_found(self.or_miss(found, || vec![None; keys.len()])?)
    }

    /// Checks the total length of a batch's values, and counts its hits and misses.
    pub(crate) fn check_found(&self, values: Vec<Option<Bytes>>) -> Result<Vec<Option<Bytes>>, CacheError> {
        self.state.policy.check_found(&values)?;
        self.metrics().count_keys(&values);
        Ok(values)
    }

    /// Returns true if the key holds a value.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub async fn exists(&self, key: &Key) -> Result<bool, CacheError> {
        self.or_miss(self.metrics().exists.timed(self.state.backend.exists(key)).await, || false)
    }

    /// Returns what the key holds, for an operator.
    ///
    /// # Errors
    ///
    /// The backend's, also in an outage.
    pub async fn describe(&self, key: &Key) -> Result<KeyState, CacheError> {
        self.state.backend.describe(key).await
    }

    /// Returns a page of the names of the selected keys, as [`CacheBackend::list_keys`] describes it.
    ///
    /// # Errors
    ///
    /// The backend's, also in an outage: an empty list would say that there are no keys.
    /// [`CacheError::InvalidArgument`] for a cursor that is not valid any more.
    pub async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError> {
        self.metrics().list_keys.timed(self.state.backend.list_keys(selection, cursor, max_keys)).await
    }

    /// True if a value that is stored without a duration expires.
    pub(crate) fn has_default_expire(&self) -> bool {
        self.state.policy.default_expire.is_some()
    }

    /// Returns the key's value and its version, which [`Cache::replace`] compares, or `None` on a miss.
    ///
    /// # Errors
    ///
    /// The backend's, also in an outage: what was not seen must not be compared.
    pub async fn read_version(&self, key: &Key) -> Result<Option<(Bytes, Version)>, CacheError> {
        let found = self.metrics().read_version.timed(self.state.backend.get_version(key)).await?;
        Ok(found.map(|(found, version)| (found.value, version)))
    }

    /// Stores a value if the key still has this version of its value, or, for `None`, still has no value, in one atomic
    /// step. Returns true if it was stored.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`].
    pub async fn replace(
        &self,
        key: Key,
        version: Option<&Version>,
        value: Bytes,
        duration: Duration,
    ) -> Result<bool, CacheError> {
        self.replace_value(key, version, value, duration).await
    }

    /// [`Cache::replace`] with any kind of value.
    pub(crate) async fn replace_value(
        &self,
        key: Key,
        version: Option<&Version>,
        value: impl Value,
        duration: Duration,
    ) -> Result<bool, CacheError> {
        let duration = self.state.policy.check_store([value.as_ref()], duration)?;
        let leaders = self.state.in_flight.leaders_of([&key]);
        let replaced = self.state.backend.replace(key, version, value.into_bytes(), duration);
        match self.metrics().replace.timed(replaced).await {
            Ok(false) => Ok(false),
            outcome => self.end_write(leaders, outcome),
        }
    }

    /// Adds to the number that the key holds as decimal text, in one atomic step. Returns the sum. A key without a value
    /// counts as 0 and then gets the duration; a number keeps its remaining life, except as
    /// [`CacheBackend::increment`](crate::CacheBackend::increment) says. After [`CacheError::Timeout`] or
    /// [`CacheError::Lost`] the number may or may not have changed; the call is never repeated.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a duration of zero; [`CacheError::NotANumber`];
    /// [`CacheError::NumberOverflow`]; the backend's.
    pub async fn increment(&self, key: Key, delta: i64, duration: Duration) -> Result<i64, CacheError> {
        let duration = self.state.policy.check_store([], duration)?;
        let leaders = self.state.in_flight.leaders_of([&key]);
        let outcome = self.metrics().increment.timed(self.state.backend.increment(key, delta, duration)).await;
        self.end_write(leaders, outcome)
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a duration of zero, or a value that begins with
    /// [`Lease::MARK`](crate::Lease::MARK); [`CacheError::ValueTooLarge`]; the backend's.
    pub async fn set(&self, key: Key, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        self.set_value(key, value, duration).await
    }

    /// [`Cache::set`] of any kind of value.
    pub(crate) async fn set_value(&self, key: Key, value: impl Value, duration: Duration) -> Result<(), CacheError> {
        let duration = self.state.policy.check_store([value.as_ref()], duration)?;
        let leaders = self.state.in_flight.leaders_of([&key]);
        let outcome = self.metrics().set.timed(self.state.backend.set(key, value.into_bytes(), duration)).await;
        self.end_write(leaders, outcome)
    }

    /// [`Cache::set`] on the cache's own backend, without a future.
    pub(crate) fn set_sync(
        &self,
        backend: &dyn SyncBackend,
        key: Key,
        value: impl Value,
        duration: Duration,
    ) -> Result<(), CacheError> {
        let duration = self.state.policy.check_store([value.as_ref()], duration)?;
        let leaders = self.state.in_flight.leaders_of([&key]);
        self.metrics().set.timed_sync(|| backend.store(key, value.into_bytes(), duration));
        self.end_write(leaders, Ok(()))
    }

    /// Stores many values with one duration. Makes one round trip.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`]. After an error of the backend some values may be stored.
    pub async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Duration) -> Result<(), CacheError> {
        self.set_many_values(entries, duration).await
    }

    /// [`Cache::set_many`] of any kind of values.
    pub(crate) async fn set_many_values<V: Value>(
        &self,
        entries: Vec<(Key, V)>,
        duration: Duration,
    ) -> Result<(), CacheError> {
        let duration = self.state.policy.check_store(entries.iter().map(|(_, value)| value.as_ref()), duration)?;
        if entries.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
        let leaders = self.state.in_flight.leaders_of(entries.iter().map(|(key, _)| key));
        let outcome = self.metrics().set_many.timed(self.state.backend.set_many(entries, duration)).await;
        self.end_write(leaders, outcome)
    }

    /// Removes one key. Returns true if it held a value.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        let leaders = self.state.in_flight.leaders_of([key]);
        let outcome = self.metrics().clear.timed(self.state.backend.clear(key)).await;
        self.end_write(leaders, outcome)
    }

    /// Removes many keys. Returns how many held a value; a key that is repeated counts once.
    ///
    /// # Errors
    ///
    /// The backend's. Some keys may then be removed.
    pub async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let leaders = self.state.in_flight.leaders_of(&keys);
        let outcome = self.metrics().clear_many.timed(self.state.backend.clear_many(keys)).await;
        self.end_write(leaders, outcome)
    }

    /// Removes the selected keys. Returns how many held a value.
    ///
    /// # Errors
    ///
    /// The backend's. Some keys may then be removed.
    pub async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.clear_matching_with(selection, &ClearProgress::default()).await
    }

    /// As [`Cache::clear_matching`], and counts what it does.
    ///
    /// # Errors
    ///
    /// As [`Cache::clear_matching`].
    pub async fn clear_matching_with(
        &self,
        selection: &Selection,
        progress: &ClearProgress,
    ) -> Result<u64, CacheError> {
        let leaders = self.state.in_flight.leaders_in(selection).await;
        let operation = if selection.is_all() { &self.metrics().clear_all } else { &self.metrics().clear_pattern };
        let outcome = operation.timed(self.state.backend.clear_matching_with(selection, progress)).await;
        self.end_write(leaders, outcome)
    }

    /// Sets those [metrics](crate::metrics) that are not recorded as calls happen. Performs no I/O.
    pub fn publish(&self) {
        self.metrics().publish(&self.state.backend.status(), &self.stats(), &self.refresh_stats());
        if let Some(near) = self.near() {
            self.metrics().publish_near(&near.status());
        }
    }

    /// True if reads return a miss in an outage.
    pub fn degrades(&self) -> bool {
        self.state.policy.on_outage == OnOutage::Miss
    }

    /// Waits for room for an answer of the size that the policy allows.
    pub(crate) async fn reserve(&self, answers: Option<&Arc<AnswerLimit>>, max: fn(&Policy) -> usize) -> Reserved {
        self.state.reserve(answers, max(&self.state.policy)).await
    }

    /// The synchronous interface of the backend, if it has one.
    pub(crate) fn as_sync(&self) -> Option<&dyn SyncBackend> {
        self.state.backend.as_sync()
    }

    /// The values of the backend that are near, if it has a near tier.
    pub(crate) fn near(&self) -> Option<&dyn NearLookup> {
        self.state.backend.near()
    }

    /// The time before its expiry in which a value is stale.
    pub(crate) fn resolve_stale(&self, stale: Duration) -> Result<StdDuration, CacheError> {
        self.state.policy.resolve_stale(stale)
    }

    pub(crate) fn metrics(&self) -> &CacheMetrics {
        &self.state.metrics
    }

    /// The counters of get-or-set in this process.
    pub fn stats(&self) -> GetOrSetStats {
        self.state.counters.read()
    }

    /// The counters of get-or-refresh in this process.
    pub fn refresh_stats(&self) -> RefreshStats {
        self.state.refreshes.counters.read()
    }

    /// Waits until the pending releases of leases have succeeded or failed. If a program exits earlier, the leases
    /// expire, and callers in other processes wait for that.
    pub async fn drain(&self) {
        self.state.releases.wait().await;
    }

    /// Contacts the backend and reports its kind, version and capabilities.
    ///
    /// # Errors
    ///
    /// The backend's, also if the policy's `on_outage` is [`OnOutage::Miss`].
    pub async fn check(&self) -> Result<Health, CacheError> {
        self.state.backend.check().await
    }

    /// Invalidates those that were leaders of the keys before the set or clear: their waiters claim again. Also after
    /// an error, because the write may have happened.
    fn end_write<T>(&self, leaders: Leaders, outcome: Result<T, CacheError>) -> Result<T, CacheError> {
        if outcome.is_ok() {
            self.state.in_flight.record_write();
        }
        self.state.in_flight.invalidate(leaders);
        outcome
    }

    /// Replaces an outage's error by a miss if the policy says so.
    fn or_miss<T>(&self, outcome: Result<T, CacheError>, miss: impl FnOnce() -> T) -> Result<T, CacheError> {
        outcome.or_else(|error| if self.state.degrades_to_miss(&error) { Ok(miss()) } else { Err(error) })
    }
}
