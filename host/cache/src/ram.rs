//! RAM backend: bounded by bytes, with a share of its own for a namespace that has one.
//!
//! Expiry is checked on every read, so the sweeper only gives memory back.

// Decision: docs/decisions/0025-a-share-of-a-ram-cache-is-a-partition-of-its-own.md

mod clock;
mod leases;
mod partition;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ram::clock::{Clock, NEVER};
use crate::ram::leases::Leases;
use crate::ram::partition::{Partition, Stored};
use crate::{
    BackendStatus, CacheBackend, CacheError, Claim, Health, Key, KeyRef, Lease, Namespace, Release, Selection,
    SyncBackend,
};

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
    let key = Key::MAX_LENGTH.saturating_add(crate::Namespace::MAX_LENGTH).saturating_add(1);
    ENTRY_OVERHEAD.saturating_add(key as u64).saturating_add(max_value_bytes as u64)
}

/// A cache in this process's memory.
#[derive(Debug)]
pub struct RamBackend {
    /// The entries of all namespaces without a share, and of none.
    common: Partition,
    /// What namespaces with a share of their own keep there.
    shares: HashMap<Namespace, Partition>,
    clock: Clock,
    leases: Leases,
    max_bytes: u64,
}

impl RamBackend {
    /// A cache of `max_bytes`, counting keys, values and [`ENTRY_OVERHEAD`], for values up to `max_value_bytes`.
    ///
    /// Each of the `shares` is set aside for one namespace: its entries evict only each other, and nobody else evicts
    /// them. What is left is for all others. A part below [`least_capacity`] does not keep the largest values. On a
    /// Tokio runtime a task sweeps expired entries until the cache is dropped; elsewhere they stay until read,
    /// overwritten or evicted.
    pub fn new(max_bytes: u64, max_value_bytes: usize, shares: &[(Namespace, u64)]) -> Arc<Self> {
        let rest = shares.iter().fold(max_bytes, |rest, (_, share)| rest.saturating_sub(*share));
        let partition =
            |(namespace, share): &(Namespace, u64)| (namespace.clone(), Partition::new(*share, max_value_bytes));
        let backend = Arc::new(Self {
            common: Partition::new(rest, max_value_bytes),
            shares: shares.iter().map(partition).collect(),
            clock: Clock::new(),
            leases: Leases::default(),
            max_bytes,
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(sweep(Arc::downgrade(&backend)));
        }
        backend
    }

    /// Where the keys of a namespace, or of none, are kept.
    fn partition(&self, namespace: Option<&str>) -> &Partition {
        namespace.and_then(|namespace| self.shares.get(namespace)).unwrap_or(&self.common)
    }

    fn partition_of(&self, key: KeyRef<'_>) -> &Partition {
        // Most caches have no shares, and need not look at the key.
        if self.shares.is_empty() { &self.common } else { self.partition(key.namespace()) }
    }

    fn stored(&self, value: Bytes, duration: Option<StdDuration>) -> Stored {
        Stored { value, expires_at: duration.map_or(NEVER, |duration| self.clock.after(duration)) }
    }

    fn insert(&self, key: Key, stored: Stored) {
        self.partition_of(key.as_ref()).insert(key, stored);
    }

    fn remove_expired(&self) {
        let now = self.clock.now();
        self.common.remove_expired(now);
        self.shares.values().for_each(|share| share.remove_expired(now));
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

impl SyncBackend for RamBackend {
    fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes> {
        self.partition_of(key).live(key, &self.clock)
    }

    fn store(&self, key: Key, value: Bytes, duration: Option<StdDuration>) {
        self.leases.end([&key]);
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

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.store(key, value, duration);
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
        Ok(self.partition_of(key.as_ref()).take(key, &self.clock))
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.leases.end_selected(selection).await;
        Ok(self.partition(selection.namespace()).take_selected(selection, &self.clock).await)
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
        let store = || self.partition_of(key.as_ref()).insert_if_absent(&key, fresh, &self.clock);
        Ok(self.leases.fill(&key, lease, store))
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

    fn status(&self) -> BackendStatus {
        let of_all = |figure: fn(&Partition) -> u64| {
            self.shares.values().map(figure).fold(figure(&self.common), u64::saturating_add)
        };
        BackendStatus::Ram {
            bytes: of_all(|part| part.entries.weight()),
            max_bytes: self.max_bytes,
            entries: of_all(|part| part.entries.len() as u64),
            evictions: of_all(|part| part.evictions.count()),
        }
    }

    fn as_sync(&self) -> Option<&dyn SyncBackend> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{Access, Cache, Duration, OnOutage, Owner, Policy, ScopedCache};

    fn key(name: &str) -> Key {
        Key::new(None, name).unwrap()
    }

    fn secs(seconds: u64) -> Option<StdDuration> {
        Some(StdDuration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_entry_is_a_miss_before_any_sweep() {
        let ram = RamBackend::new(1 << 20, 1024, &[]);
        ram.set(key("k"), "v".into(), Some(StdDuration::from_millis(1500))).await.unwrap();
        tokio::time::advance(StdDuration::from_millis(1499)).await;
        assert_eq!(ram.get(&key("k")).await.unwrap(), Some("v".into()));
        tokio::time::advance(StdDuration::from_millis(1)).await;
        assert_eq!(ram.get(&key("k")).await.unwrap(), None);
        assert!(!ram.clear(&key("k")).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn expired_entries_are_swept_without_being_read() {
        let ram = RamBackend::new(1 << 20, 1024, &[]);
        for n in 0..100 {
            ram.set(key(&format!("short{n}")), "v".into(), secs(1)).await.unwrap();
        }
        ram.set(key("long"), "v".into(), secs(60)).await.unwrap();
        ram.set(key("unlimited"), "v".into(), None).await.unwrap();
        assert_eq!(ram.common.entries.len(), 102);
        tokio::time::sleep(SWEEP_INTERVAL * 2).await;
        assert_eq!(ram.common.entries.len(), 2);
        tokio::time::sleep(StdDuration::from_secs(60)).await;
        assert_eq!(ram.common.entries.len(), 1);
    }

    #[tokio::test]
    async fn the_sweeper_ends_with_the_cache() {
        let ram = RamBackend::new(1 << 20, 1024, &[]);
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
        let ram = RamBackend::new(1 << 24, 1024, &[]);
        for n in 0..1_000 {
            ram.set(key(&format!("key{n}")), "v".into(), None).await.unwrap();
        }
        let (turns, removed) = turns_during_a_clear(&ram).await;
        assert_eq!(removed, 100);
        assert!(turns >= 30, "{turns} turns");
        assert_eq!(ram.common.entries.len(), 900);
    }

    #[tokio::test]
    async fn a_clear_gives_way_to_others_while_it_looks_at_leases() {
        let ram = RamBackend::new(1 << 24, 1024, &[]);
        let issuer = crate::Issuer::new();
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
        let ram = RamBackend::new(1 << 20, 1024, &[]);
        for n in 0..5_000 {
            ram.set(key(&format!("key{n}")), vec![0; 1024].into(), None).await.unwrap();
        }
        assert!(ram.common.entries.weight() <= 1 << 20);
        assert!(ram.common.entries.len() > 500, "{} entries", ram.common.entries.len());
    }

    #[tokio::test]
    async fn overwriting_one_key_a_thousand_times_keeps_one_entry() {
        let ram = RamBackend::new(1 << 20, 1024, &[]);
        for n in 0..1_000 {
            ram.set(key("k"), vec![0; n].into(), secs(60)).await.unwrap();
        }
        assert_eq!(ram.common.entries.len(), 1);
        assert_eq!(ram.common.entries.weight(), ENTRY_OVERHEAD + 1 + 999);
    }

    /// Every shard, not just the cache as a whole, must admit it.
    #[tokio::test]
    async fn the_largest_value_is_kept_at_the_least_capacity() {
        for max_value in [1, 1024, 1 << 20] {
            for factor in [1, 2, 3, 7, 64] {
                let ram = RamBackend::new(least_capacity(max_value) * factor, max_value, &[]);
                let longest = key(&"k".repeat(Key::MAX_LENGTH));
                ram.set(longest.clone(), vec![0; max_value].into(), None).await.unwrap();
                assert!(ram.get(&longest).await.unwrap().is_some(), "{max_value} bytes at {factor}");
            }
        }
    }

    /// A cache of 1 MiB in which the namespaces `a` and `b` have 256 KiB each.
    fn shared_out() -> (Arc<RamBackend>, [Namespace; 2]) {
        let namespaces = ["a", "b"].map(|name| Namespace::new(name).unwrap());
        let shares = namespaces.clone().map(|namespace| (namespace, 256 << 10));
        (RamBackend::new(1 << 20, 1024, &shares), namespaces)
    }

    #[tokio::test]
    async fn shares_and_the_rest_stay_within_max_bytes_together() {
        let (ram, [a, b]) = shared_out();
        let other = Namespace::new("other").unwrap();
        for n in 0..5_000 {
            for namespace in [None, Some(&a), Some(&b), Some(&other)] {
                let key = Key::new(namespace, &format!("key{n}")).unwrap();
                ram.set(key, vec![0; 1024].into(), None).await.unwrap();
            }
        }
        for namespace in ["a", "b"] {
            let weight = ram.partition(Some(namespace)).entries.weight();
            assert!((128 << 10..=256 << 10).contains(&weight), "{weight}");
        }
        let weight = ram.common.entries.weight();
        assert!((256 << 10..=512 << 10).contains(&weight), "{weight}");
    }

    #[tokio::test(start_paused = true)]
    async fn clears_fills_and_sweeps_reach_into_the_shares() {
        let (ram, [a, b]) = shared_out();
        let key = |namespace: &Namespace, name: &str| Key::new(Some(namespace), name).unwrap();
        for namespace in [&a, &b] {
            ram.set(key(namespace, "k1"), "v".into(), secs(1)).await.unwrap();
            ram.set(key(namespace, "k2"), "v".into(), None).await.unwrap();
        }
        assert_eq!(ram.clear_matching(&Selection::all(None)).await.unwrap(), 0);
        assert!(ram.clear(&key(&a, "k2")).await.unwrap());
        assert_eq!(ram.get(&key(&b, "k2")).await.unwrap(), Some("v".into()));
        let lease = crate::Issuer::new().issue();
        assert_eq!(ram.claim(&key(&a, "k2"), &lease).await.unwrap(), Claim::Granted);
        assert!(ram.fill(key(&a, "k2"), &lease, "w".into(), None).await.unwrap());
        assert_eq!(ram.get(&key(&a, "k2")).await.unwrap(), Some("w".into()));
        tokio::time::sleep(SWEEP_INTERVAL * 2).await;
        assert_eq!(["a", "b"].map(|name| ram.partition(Some(name)).entries.len()), [1, 1]);
        assert_eq!(ram.clear_matching(&Selection::all(Some(a.clone()))).await.unwrap(), 1);
        assert_eq!(ram.get(&key(&b, "k2")).await.unwrap(), Some("v".into()));
    }

    #[test]
    fn a_look_up_allocates_nothing() {
        let policy = Policy {
            default_expire: Some(StdDuration::from_secs(300)),
            max_expire: None,
            max_value_bytes: 1 << 20,
            max_batch_bytes: 64 << 20,
            wait: StdDuration::from_secs(5),
            max_lease: StdDuration::from_secs(300),
            on_outage: OnOutage::Miss,
        };
        let cache = Arc::new(Cache::new("cache", RamBackend::new(16 << 20, policy.max_value_bytes, &[]), policy));
        for namespace in [None, Some(Namespace::new("shop").unwrap())] {
            let view = ScopedCache::new(Arc::clone(&cache), namespace, Access::ReadWrite, Owner::new());
            let view = view.fast_path().unwrap();
            view.set("k", vec![b'v'; 10_000].into(), Duration::Default).unwrap();
            // The first one makes the value one that is shared.
            assert!(view.get("k").unwrap().is_some());
            let counted = allocation_counter::measure(|| {
                assert_eq!(view.get("k").unwrap().map(|value| value.len()), Some(10_000));
                assert_eq!(view.occupied("k").map(|value| value.len()), Some(10_000));
                assert!(view.get("other").unwrap().is_none());
            });
            assert_eq!(counted.count_total, 0);
        }
    }
}
