//! RAM backend: a quick_cache bounded by bytes, with our own expiry around it.
//!
//! Expiry is checked on every read, so the sweeper only gives memory back. The clock is Tokio's, which a test can
//! pause.

mod leases;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle, EntryAction, EntryResult};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::time::Instant;

use crate::cache::ram::leases::Leases;
use crate::cache::{CacheBackend, CacheError, Claim, Health, Key, Lease, Release, Selection};

/// What an entry costs beside its key and value, in bytes: the slot, two reference counts, the map's share and the
/// allocator's rounding.
pub const ENTRY_OVERHEAD: u64 = 192;

/// How often expired entries are looked for.
const SWEEP_INTERVAL: StdDuration = StdDuration::from_secs(5);

/// The share of a shard that one entry may fill; quick_cache silently drops what exceeds 97 %.
const LARGEST_SHARE: f64 = 0.9;

/// The least `max_bytes` for a cache that must hold values of `max_value_bytes`.
pub fn least_capacity(max_value_bytes: usize) -> u64 {
    (largest_weight(max_value_bytes) as f64 / LARGEST_SHARE).ceil() as u64
}

/// The weight of the largest entry a cache must hold.
fn largest_weight(max_value_bytes: usize) -> u64 {
    let key = Key::MAX_LENGTH.saturating_add(crate::cache::Namespace::MAX_LENGTH).saturating_add(1);
    ENTRY_OVERHEAD.saturating_add(key as u64).saturating_add(max_value_bytes as u64)
}

/// A cache in this process's memory.
#[derive(Debug)]
pub struct RamBackend {
    entries: Cache<Key, Stored, ByBytes, DefaultHashBuilder>,
    /// Where the clock's milliseconds begin.
    started: Instant,
    /// No entry expires before this; what the sweeper looks at first.
    earliest_expiry: AtomicU64,
    leases: Leases,
}

#[derive(Debug, Clone)]
struct Stored {
    value: Bytes,
    /// Milliseconds since the backend's start; [`NEVER`] without expiry.
    expires_at: u64,
}

const NEVER: u64 = u64::MAX;

impl Stored {
    fn is_live(&self, now: u64) -> bool {
        now < self.expires_at
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Stored> for ByBytes {
    fn weight(&self, key: &Key, stored: &Stored) -> u64 {
        let payload = key.as_str().len().saturating_add(stored.value.len());
        ENTRY_OVERHEAD.saturating_add(payload as u64)
    }
}

impl RamBackend {
    /// A cache of `max_bytes`, counting keys, values and [`ENTRY_OVERHEAD`], for values up to `max_value_bytes`.
    ///
    /// It has at most four shards per core, and fewer where a shard could not hold the largest value; below
    /// [`least_capacity`] the largest values are not kept. On a Tokio runtime a task sweeps expired entries until the
    /// cache is dropped; elsewhere they stay until read, overwritten or evicted.
    pub fn new(max_bytes: u64, max_value_bytes: usize) -> Arc<Self> {
        let fitting = max_bytes.checked_div(least_capacity(max_value_bytes)).unwrap_or(1).max(1);
        let wanted = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_mul(4));
        let most = usize::try_from(fitting).unwrap_or(usize::MAX).min(wanted);
        // The library rounds up to a power of two; rounding down here keeps each shard large enough.
        let shards = 1_usize.checked_shl(most.ilog2()).unwrap_or(1);
        // Only sizes the list of keys lately evicted, so a guess of 1 KiB an entry is good enough.
        let estimated_items = usize::try_from(max_bytes / 1024).unwrap_or(usize::MAX).max(64);
        let mut options = OptionsBuilder::new();
        options.shards(shards).weight_capacity(max_bytes).estimated_items_capacity(estimated_items);
        #[expect(clippy::expect_used, reason = "building fails only where one of the three options is not set")]
        let options = options.build().expect("all options are set");
        let backend = Arc::new(Self {
            entries: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default()),
            started: Instant::now(),
            earliest_expiry: AtomicU64::new(NEVER),
            leases: Leases::default(),
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(sweep(Arc::downgrade(&backend)));
        }
        backend
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER)
    }

    fn stored(&self, value: Bytes, duration: Option<StdDuration>) -> Stored {
        let expires_at = duration
            .map_or(NEVER, |duration| self.now().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(NEVER)));
        Stored { value, expires_at }
    }

    fn live(&self, key: &Key) -> Option<Bytes> {
        let stored = self.entries.get(key)?;
        let now = self.now();
        if stored.is_live(now) {
            return Some(stored.value);
        }
        // Looks again under the lock, so that a fresh value set in between survives.
        self.entries.remove_if(key, |stored| !stored.is_live(now));
        None
    }

    /// Removes an entry and says whether it was live.
    fn take(&self, key: &Key) -> bool {
        self.entries.remove(key).is_some_and(|(_, stored)| stored.is_live(self.now()))
    }

    fn insert(&self, key: Key, stored: Stored) {
        let expires_at = stored.expires_at;
        self.entries.insert(key, stored);
        self.note_expiry(expires_at);
    }

    /// Stores where there is no live entry, and says whether it did.
    fn insert_if_absent(&self, key: &Key, fresh: Stored) -> bool {
        let expires_at = fresh.expires_at;
        let now = self.now();
        let found = self.entries.entry(key, Some(StdDuration::ZERO), |_, stored| {
            if stored.is_live(now) { EntryAction::Retain(()) } else { EntryAction::ReplaceWithGuard }
        });
        let is_stored = match found {
            // Whoever removes or sets the key before the insertion makes it fail, as it should.
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard.insert(fresh).is_ok(),
            // A value is there, or being put there by another call at this very moment.
            EntryResult::Retained(()) | EntryResult::Removed(..) | EntryResult::Timeout => false,
        };
        if is_stored {
            self.note_expiry(expires_at);
        }
        is_stored
    }

    /// Tells the sweeper of an entry. This comes after the insertion: a sweep that missed the entry has reset the
    /// mark before, one that comes later sees it.
    fn note_expiry(&self, expires_at: u64) {
        self.earliest_expiry.fetch_min(expires_at, Ordering::AcqRel);
    }

    /// Removes what has expired, unless nothing can have.
    fn remove_expired(&self) {
        let now = self.now();
        if now < self.earliest_expiry.load(Ordering::Acquire) {
            return;
        }
        self.earliest_expiry.store(NEVER, Ordering::Release);
        self.entries.retain(|_, stored| {
            let live = stored.is_live(now);
            if live {
                self.note_expiry(stored.expires_at);
            }
            live
        });
    }
}

/// Removes expired entries from time to time, for as long as the cache lives.
async fn sweep(backend: Weak<RamBackend>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match backend.upgrade() {
            Some(backend) => backend.remove_expired(),
            None => return,
        }
    }
}

#[async_trait]
impl CacheBackend for RamBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        Ok(self.live(key))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        Ok(keys.iter().map(|key| self.live(key)).collect())
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.leases.end([&key]);
        self.insert(key, self.stored(value, duration));
        Ok(())
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.leases.end(entries.iter().map(|(key, _)| key));
        for (key, value) in entries {
            self.insert(key, self.stored(value, duration));
        }
        Ok(())
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        self.leases.end([key]);
        Ok(self.take(key))
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.leases.end_selected(selection).await;
        let mut removed = 0_u64;
        // As on a server: every key that stays is seen, no lock is held for long, and others have their turn.
        for (looked_at, (key, _)) in self.entries.iter().enumerate() {
            if looked_at % Selection::MATCHED_AT_ONCE == Selection::MATCHED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            if selection.matches(&key) && self.take(&key) {
                removed = removed.saturating_add(1);
            }
        }
        Ok(removed)
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        Ok(self.leases.claim(key, lease, || self.live(key)))
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
        Ok(self.leases.fill(&key, lease, || self.insert_if_absent(&key, fresh)))
    }

    fn lease_time(&self) -> Option<StdDuration> {
        None
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        Ok(self.leases.has(key, lease))
    }

    fn abandon(&self, key: &Key, lease: &Lease) -> Release {
        self.leases.abandon(key, lease);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn check(&self) -> Result<Health, CacheError> {
        Ok(Health { kind: "RAM", version: String::new(), round_trip: None, supports: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(None, name).unwrap()
    }

    fn secs(seconds: u64) -> Option<StdDuration> {
        Some(StdDuration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_entry_is_a_miss_before_any_sweep() {
        let ram = RamBackend::new(1 << 20, 1024);
        ram.set(key("k"), "v".into(), Some(StdDuration::from_millis(1500))).await.unwrap();
        tokio::time::advance(StdDuration::from_millis(1499)).await;
        assert_eq!(ram.get(&key("k")).await.unwrap(), Some("v".into()));
        tokio::time::advance(StdDuration::from_millis(1)).await;
        assert_eq!(ram.get(&key("k")).await.unwrap(), None);
        assert!(!ram.clear(&key("k")).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn expired_entries_are_swept_without_being_read() {
        let ram = RamBackend::new(1 << 20, 1024);
        for n in 0..100 {
            ram.set(key(&format!("short{n}")), "v".into(), secs(1)).await.unwrap();
        }
        ram.set(key("long"), "v".into(), secs(60)).await.unwrap();
        ram.set(key("unlimited"), "v".into(), None).await.unwrap();
        assert_eq!(ram.entries.len(), 102);
        tokio::time::sleep(SWEEP_INTERVAL * 2).await;
        assert_eq!(ram.entries.len(), 2);
        tokio::time::sleep(StdDuration::from_secs(60)).await;
        assert_eq!(ram.entries.len(), 1);
    }

    #[tokio::test]
    async fn the_sweeper_ends_with_the_cache() {
        let ram = RamBackend::new(1 << 20, 1024);
        let weak = Arc::downgrade(&ram);
        drop(ram);
        assert!(weak.upgrade().is_none());
    }

    /// How often another task had its turn while the keys that end in 9 were cleared, and how many had a value.
    async fn turns_during_a_clear(ram: &RamBackend) -> (u64, u64) {
        let turns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let selection = Selection::matching(None, "key*9").unwrap();
        let removed = ram.clear_matching(&selection).await.unwrap();
        other.abort();
        (turns.load(Ordering::Relaxed), removed)
    }

    #[tokio::test]
    async fn a_clear_gives_way_to_others_while_it_looks() {
        let ram = RamBackend::new(1 << 24, 1024);
        for n in 0..1_000 {
            ram.set(key(&format!("key{n}")), "v".into(), None).await.unwrap();
        }
        let (turns, removed) = turns_during_a_clear(&ram).await;
        assert_eq!(removed, 100);
        assert!(turns >= 30, "{turns} turns");
        assert_eq!(ram.entries.len(), 900);
    }

    #[tokio::test]
    async fn a_clear_gives_way_to_others_while_it_looks_at_leases() {
        let ram = RamBackend::new(1 << 24, 1024);
        let issuer = crate::cache::Issuer::new();
        let leases: Vec<Lease> = (0..1_000).map(|_| issuer.issue()).collect();
        for (n, lease) in leases.iter().enumerate() {
            assert_eq!(ram.claim(&key(&format!("key{n}")), lease).await.unwrap(), Claim::Granted);
        }
        let (turns, removed) = turns_during_a_clear(&ram).await;
        assert_eq!(removed, 0);
        assert!(turns >= 30, "{turns} turns");
        for (n, lease) in leases.iter().enumerate() {
            assert_eq!(ram.renew(&key(&format!("key{n}")), lease).await.unwrap(), n % 10 != 9, "key{n}");
        }
    }

    #[tokio::test]
    async fn weight_stays_within_max_bytes() {
        let ram = RamBackend::new(1 << 20, 1024);
        for n in 0..5_000 {
            ram.set(key(&format!("key{n}")), vec![0; 1024].into(), None).await.unwrap();
        }
        assert!(ram.entries.weight() <= 1 << 20);
        assert!(ram.entries.len() > 500, "{} entries", ram.entries.len());
    }

    #[tokio::test]
    async fn overwriting_one_key_a_thousand_times_keeps_one_entry() {
        let ram = RamBackend::new(1 << 20, 1024);
        for n in 0..1_000 {
            ram.set(key("k"), vec![0; n].into(), secs(60)).await.unwrap();
        }
        assert_eq!(ram.entries.len(), 1);
        assert_eq!(ram.entries.weight(), ENTRY_OVERHEAD + 1 + 999);
    }

    /// Every shard, not just the cache as a whole, must admit it.
    #[tokio::test]
    async fn the_largest_value_is_kept_at_the_least_capacity() {
        for max_value in [1, 1024, 1 << 20] {
            for factor in [1, 2, 3, 7, 64] {
                let ram = RamBackend::new(least_capacity(max_value) * factor, max_value);
                let longest = key(&"k".repeat(Key::MAX_LENGTH));
                ram.set(longest.clone(), vec![0; max_value].into(), None).await.unwrap();
                assert!(ram.get(&longest).await.unwrap().is_some(), "{max_value} bytes at {factor}");
            }
        }
    }
}
