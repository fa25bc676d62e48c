//! The RAM backend: limited by bytes, with optional shares for namespaces.
//!
//! Every read checks the expiry of its entry. The sweeper only frees memory.

// Decision: docs/decisions/0025-a-share-of-a-ram-cache-is-a-partition-of-its-own.md

pub(crate) mod clock;
mod leases;
mod listing;
pub(crate) mod partition;
mod weight;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{
    BackendStatus, CacheBackend, Health, KeyPage, ListCursor, Release, SyncBackend, Version, WithLife, parse_number,
};
use crate::error::CacheError;
use crate::get_or_set::lease::{Claim, Lease};
use crate::key::{Key, KeyRef, Namespace, Selection};
use crate::policy::Duration;
use crate::ram::clock::{Clock, NEVER};
use crate::ram::leases::Leases;
use crate::ram::partition::{Partitions, Stored, Usage};

pub use weight::{ENTRY_OVERHEAD, least_capacity};

/// The interval between sweeps of entries that are not served any more.
const SWEEP_INTERVAL: StdDuration = StdDuration::from_secs(5);

/// A cache in the memory of this process.
#[derive(Debug)]
pub struct RamBackend {
    partitions: Partitions,
    clock: Clock,
    leases: Leases,
    /// The order in which keys are listed.
    order: RandomState,
}

impl RamBackend {
    /// A cache of `max_bytes` for values of up to `max_value_bytes`. Keys, values and [`ENTRY_OVERHEAD`] count.
    ///
    /// Each of the `shares` reserves a number of bytes for one namespace, whose entries evict only each other. The rest
    /// is for all other entries. A share or a rest below [`least_capacity`] does not store the largest values. On a
    /// Tokio runtime a task sweeps expired entries until the cache is dropped. Without a runtime they stay until they
    /// are read, overwritten or evicted.
    pub fn new(max_bytes: u64, max_value_bytes: usize, shares: &[(Namespace, u64)]) -> Arc<Self> {
        let backend = Arc::new(Self {
            partitions: Partitions::new(max_bytes, max_value_bytes, shares),
            clock: Clock::new(),
            leases: Leases::default(),
            order: RandomState::new(),
        });
        sweep_at_intervals(&backend, Self::remove_expired);
        backend
    }

    fn stored(&self, value: Bytes, duration: Option<StdDuration>) -> Stored {
        Stored { value, expires_at: duration.map_or(NEVER, |duration| self.clock.after(duration)), beside: () }
    }

    /// A live entry with its remaining life.
    fn with_life(&self, stored: &Stored) -> WithLife {
        let life = (stored.expires_at != NEVER).then(|| stored.expires_at.saturating_sub(self.clock.now()));
        WithLife { value: stored.value.clone(), life }
    }

    fn insert(&self, key: Key, stored: Stored) {
        self.partitions.of(key.as_ref()).insert(key, stored);
    }

    fn remove_expired(&self) {
        let now = self.clock.now();
        self.partitions.all().for_each(|partition| partition.sweep(now, |_| false));
    }
}

fn version(stored: &Stored) -> Version {
    Version::new(&stored.value, (stored.expires_at != NEVER).then_some(stored.expires_at))
}

/// Sweeps the entries of a cache that are not served any more, until the cache is dropped: in a task, if there is a Tokio
/// runtime.
pub(crate) fn sweep_at_intervals<T: Send + Sync + 'static>(cache: &Arc<T>, sweep: fn(&T)) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let cache = Arc::downgrade(cache);
    runtime.spawn(async move {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            match cache.upgrade() {
                Some(cache) => sweep(&cache),
                None => return,
            }
        }
    });
}

impl SyncBackend for RamBackend {
    fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes> {
        self.partitions.of(key).live(key, &self.clock).map(|stored| stored.value)
    }

    fn look_up_with_life(&self, key: KeyRef<'_>) -> Option<WithLife> {
        self.partitions.of(key).live(key, &self.clock).map(|stored| self.with_life(&stored))
    }

    fn store(&self, key: Key, value: Bytes, duration: Option<StdDuration>) {
        self.leases.remove([&key]);
        self.insert(key, self.stored(value, duration));
    }
}

#[async_trait]
impl CacheBackend for RamBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        Ok(self.look_up(key.as_ref()))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        Ok(keys.iter().map(|key| self.look_up(key.as_ref())).collect())
    }

    async fn exists(&self, key: &Key) -> Result<bool, CacheError> {
        Ok(self.look_up(key.as_ref()).is_some())
    }

    async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError> {
        let partition = self.partitions.of_namespace(selection.namespace());
        Ok(listing::page(partition, &self.clock, &self.order, selection, cursor, max_keys).await)
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.store(key, value, duration);
        Ok(())
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.leases.remove(entries.iter().map(|(key, _)| key));
        for (key, value) in entries {
            self.insert(key, self.stored(value, duration));
        }
        Ok(())
    }

    async fn increment(&self, key: Key, delta: i64, duration: Option<StdDuration>) -> Result<i64, CacheError> {
        let partition = self.partitions.of(key.as_ref());
        let lasting = duration.filter(|duration| *duration >= Duration::LASTING);
        let renewal = lasting.map(|duration| (self.clock.after(Duration::LASTING), self.clock.after(duration)));
        let add = |stored: &mut Stored| {
            let number = parse_number(&stored.value).ok_or(CacheError::NotANumber)?;
            let sum = number.checked_add(delta).ok_or(CacheError::NumberOverflow)?;
            stored.value = sum.to_string().into();
            if let Some((from, renewed)) = renewal
                && stored.expires_at >= from
            {
                stored.expires_at = renewed;
            }
            Ok(sum)
        };
        // Increments exclude one another here; each turn of the loop means that a set or clear came between its two steps.
        self.leases.store(&key, || {
            loop {
                if let Some(sum) = partition.update(&key, &self.clock, add) {
                    return (sum.is_ok(), sum);
                }
                let fresh = self.stored(delta.to_string().into(), duration);
                if partition.insert_if_absent(&key, fresh, &self.clock) {
                    return (true, Ok(delta));
                }
            }
        })
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        self.leases.remove([key]);
        Ok(self.partitions.of(key.as_ref()).take(key, &self.clock))
    }

    async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError> {
        self.leases.remove(&keys);
        let removed = keys.iter().filter(|key| self.partitions.of(key.as_ref()).take(key, &self.clock)).count();
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.leases.remove_selected(selection).await;
        Ok(self.partitions.of_namespace(selection.namespace()).take_selected(selection, &self.clock).await)
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        Ok(self.leases.claim(key, lease, || self.look_up(key.as_ref())))
    }

    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError> {
        self.leases.changed(key, lease).await;
        Ok(())
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let fresh = self.stored(value, duration);
        let store = || self.partitions.of(key.as_ref()).insert_if_absent(&key, fresh, &self.clock);
        Ok(self.leases.fill(&key, lease, store))
    }

    async fn get_with_life(&self, key: &Key) -> Result<Option<WithLife>, CacheError> {
        Ok(self.look_up_with_life(key.as_ref()))
    }

    async fn get_version(&self, key: &Key) -> Result<Option<(WithLife, Version)>, CacheError> {
        let stored = self.partitions.of(key.as_ref()).live(key.as_ref(), &self.clock);
        Ok(stored.map(|stored| (self.with_life(&stored), version(&stored))))
    }

    async fn replace(
        &self,
        key: Key,
        expected: Option<&Version>,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let partition = self.partitions.of(key.as_ref());
        let Some(expected) = expected else {
            let fresh = self.stored(value, duration);
            return Ok(self.leases.store(&key, || {
                let is_stored = partition.insert_if_absent(&key, fresh, &self.clock);
                (is_stored, is_stored)
            }));
        };
        let Some(found) = partition.live(key.as_ref(), &self.clock).filter(|found| version(found) == *expected) else {
            return Ok(false);
        };
        // The digest is not computed under the lock. The value that was compared is held, so nothing else can be stored
        // in its memory.
        let is_found = |stored: &Stored| {
            stored.expires_at == found.expires_at
                && stored.value.as_ptr() == found.value.as_ptr()
                && self.clock.is_before(stored.expires_at)
        };
        let fresh = self.stored(value, duration);
        // No claim finds the key without a value meanwhile.
        Ok(self.leases.without_claims(|| partition.replace_if(&key, is_found, fresh)))
    }

    fn lease_time(&self) -> Option<StdDuration> {
        None
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        Ok(self.leases.has(key, lease))
    }

    fn release(&self, key: &Key, lease: &Lease) -> Release {
        self.leases.release(key, lease);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn check(&self) -> Result<Health, CacheError> {
        Ok(Health::new("RAM"))
    }

    fn status(&self) -> BackendStatus {
        let Usage { bytes, max_bytes, entries, evictions } = self.partitions.usage();
        BackendStatus::Ram { bytes, max_bytes, entries, evictions }
    }

    fn as_sync(&self) -> Option<&dyn SyncBackend> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
