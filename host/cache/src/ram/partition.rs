//! The partitions of a RAM cache, each with a limit of its own: a quick_cache with expiry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use quick_cache::sync::{Cache, EntryAction, EntryResult};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::key::{Key, KeyRef, Namespace, Selection};
use crate::ram::clock::{Clock, NEVER};
use crate::ram::weight::{least_capacity, weight};

/// The number of cores. The system takes long to tell it.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));

/// The partitions of one cache. `S` is what the cache stores beside each value.
#[derive(Debug)]
pub(crate) struct Partitions<S = ()> {
    /// The entries without a namespace, and those of all namespaces without a share.
    common: Partition<S>,
    /// The entries of the namespaces with a share.
    shares: HashMap<Namespace, Partition<S>>,
    max_bytes: u64,
}

/// The size of the partitions of one cache together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The size of all entries, in bytes.
    pub(crate) bytes: u64,
    pub(crate) max_bytes: u64,
    /// The number of entries, including dead ones that are not yet swept.
    pub(crate) entries: u64,
    /// The number of entries evicted so far to make room for others.
    pub(crate) evictions: u64,
}

impl<S: Clone> Partitions<S> {
    /// Partitions of `max_bytes` together for values of up to `max_value_bytes`. Each of the `shares` reserves a number
    /// of bytes for one namespace.
    pub(crate) fn new(max_bytes: u64, max_value_bytes: usize, shares: &[(Namespace, u64)]) -> Self {
        let rest = shares.iter().fold(max_bytes, |rest, (_, share)| rest.saturating_sub(*share));
        let partition =
            |(namespace, share): &(Namespace, u64)| (namespace.clone(), Partition::new(*share, max_value_bytes));
        Self {
            common: Partition::new(rest, max_value_bytes),
            shares: shares.iter().map(partition).collect(),
            max_bytes,
        }
    }

    /// The partition of the keys with this namespace, or without one.
    pub(crate) fn of_namespace(&self, namespace: Option<&str>) -> &Partition<S> {
        namespace.and_then(|namespace| self.shares.get(namespace)).unwrap_or(&self.common)
    }

    #[inline]
    pub(crate) fn of(&self, key: KeyRef<'_>) -> &Partition<S> {
        // Most caches have no shares; they skip the search for the namespace.
        if self.shares.is_empty() { &self.common } else { self.of_namespace(key.namespace()) }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Partition<S>> {
        std::iter::once(&self.common).chain(self.shares.values())
    }

    pub(crate) fn usage(&self) -> Usage {
        let sum = |of: fn(&Partition<S>) -> u64| self.all().map(of).fold(0, u64::saturating_add);
        Usage {
            bytes: sum(|partition| partition.entries.weight()),
            max_bytes: self.max_bytes,
            entries: sum(|partition| partition.entries.len() as u64),
            evictions: sum(|partition| partition.evictions.count()),
        }
    }
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition<S = ()> {
    pub(super) entries: Cache<Key, Stored<S>, ByBytes, DefaultHashBuilder, Evictions>,
    evictions: Evictions,
    max_bytes: u64,
    /// No entry expires before this time. The sweeper checks it first.
    earliest_expiry: AtomicU64,
}

#[derive(Debug, Clone)]
pub(crate) struct Stored<S = ()> {
    pub(crate) value: Bytes,
    /// A time of the cache's [`Clock`]; [`NEVER`] without expiry.
    pub(crate) expires_at: u64,
    /// What the cache stores beside the value.
    pub(crate) beside: S,
}

#[derive(Debug, Clone)]
pub(crate) struct ByBytes;

impl<S> Weighter<Key, Stored<S>> for ByBytes {
    fn weight(&self, key: &Key, stored: &Stored<S>) -> u64 {
        weight(key.as_str().len(), stored.value.len())
    }
}

/// Counts evictions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evictions(Arc<AtomicU64>);

impl Evictions {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> Lifecycle<Key, Stored<S>> for Evictions {
    /// Evicted entries, dropped after the shard's lock is released. One or two, if entries are of similar size.
    type RequestState = [Option<(Key, Stored<S>)>; 2];

    fn before_evict(&self, _evicted: &mut Self::RequestState, _key: &Key, _stored: &mut Stored<S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Also called for a value that is replaced under its own key, which is not an eviction.
    fn on_evict(&self, evicted: &mut Self::RequestState, key: Key, stored: Stored<S>) {
        if let Some(free) = evicted.iter_mut().find(|place| place.is_none()) {
            *free = Some((key, stored));
        }
    }
}

impl<S: Clone> Partition<S> {
    /// A partition of `max_bytes`. It has at most four shards per core, and fewer if a shard could not hold the largest
    /// value.
    fn new(max_bytes: u64, max_value_bytes: usize) -> Self {
        let fitting = max_bytes.checked_div(least_capacity(max_value_bytes)).unwrap_or(1).max(1);
        let wanted = CORES.saturating_mul(4);
        let most = usize::try_from(fitting).unwrap_or(usize::MAX).min(wanted);
        // quick_cache rounds up to a power of two; rounding down here keeps each shard large enough.
        let shards = 1_usize.checked_shl(most.ilog2()).unwrap_or(1);
        // This only sizes the list of recently evicted keys, so an estimate of 1 KiB for each entry suffices.
        let estimated_items = usize::try_from(max_bytes / 1024).unwrap_or(usize::MAX).max(64);
        let mut options = OptionsBuilder::new();
        options.shards(shards).weight_capacity(max_bytes).estimated_items_capacity(estimated_items);
        #[expect(clippy::expect_used, reason = "building fails only if one of the three options is not set")]
        let options = options.build().expect("all options are set");
        let evictions = Evictions::default();
        Self {
            entries: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), evictions.clone()),
            evictions,
            max_bytes,
            earliest_expiry: AtomicU64::new(NEVER),
        }
    }

    /// A live entry. Removes an expired one.
    pub(super) fn live(&self, key: KeyRef<'_>, clock: &Clock) -> Option<Stored<S>> {
        let stored = self.entries.get(key.as_str())?;
        if clock.is_before(stored.expires_at) {
            return Some(stored);
        }
        self.remove_if(key.as_str(), |stored| !clock.is_before(stored.expires_at));
        None
    }

    /// The entry of a key, dead or alive.
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<Stored<S>> {
        self.entries.get(key.as_str())
    }

    /// Removes an entry if it is dead. Checks it under the lock, to keep a new value that was set in between.
    pub(crate) fn remove_if(&self, key: &str, is_dead: impl Fn(&Stored<S>) -> bool) {
        self.entries.remove_if(key, |stored| is_dead(stored));
    }

    /// Removes an entry. Returns true if there was one.
    pub(crate) fn remove(&self, key: &str) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Removes an entry. Returns true if it had not expired.
    pub(super) fn take(&self, key: &Key, clock: &Clock) -> bool {
        self.entries.remove(key).is_some_and(|(_, stored)| clock.is_before(stored.expires_at))
    }

    pub(crate) fn insert(&self, key: Key, stored: Stored<S>) {
        let expires_at = stored.expires_at;
        self.entries.insert(key, stored);
        self.note_expiry(expires_at);
    }

    /// Stores a value if the key has no live entry. Returns true if it was stored.
    pub(super) fn insert_if_absent(&self, key: &Key, fresh: Stored<S>, clock: &Clock) -> bool {
        let expires_at = fresh.expires_at;
        let found = self.entries.entry(key, Some(StdDuration::ZERO), |_, stored| {
            if clock.is_before(stored.expires_at) { EntryAction::Retain(()) } else { EntryAction::ReplaceWithGuard }
        });
        let is_stored = match found {
            // The insertion fails if the key is removed or set in between, as it must.
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard.insert(fresh).is_ok(),
            // The key has a value, or another call is storing one.
            EntryResult::Retained(()) | EntryResult::Removed(..) | EntryResult::Timeout => false,
        };
        if is_stored {
            self.note_expiry(expires_at);
        }
        is_stored
    }

    /// Changes a live entry, under the lock. `None` if the key has none.
    ///
    /// An entry that grows may take the partition over its limit, until the next insertion evicts others.
    pub(super) fn update<R>(&self, key: &Key, clock: &Clock, update: impl FnOnce(&mut Stored<S>) -> R) -> Option<R> {
        let found = self.entries.entry(key, Some(StdDuration::ZERO), |_, stored| {
            EntryAction::Retain(clock.is_before(stored.expires_at).then(|| (update(stored), stored.expires_at)))
        });
        match found {
            EntryResult::Retained(updated) => {
                let (updated, expires_at) = updated?;
                self.note_expiry(expires_at);
                Some(updated)
            }
            // Dropping the guard of a vacant key leaves it vacant.
            EntryResult::Vacant(_) | EntryResult::Replaced(..) | EntryResult::Removed(..) | EntryResult::Timeout => {
                None
            }
        }
    }

    /// Replaces an entry if `is_expected` accepts it, in one step under the lock. Returns true if it was replaced.
    pub(super) fn replace_if(&self, key: &Key, is_expected: impl Fn(&Stored<S>) -> bool, fresh: Stored<S>) -> bool {
        let expires_at = fresh.expires_at;
        let (mut fresh, mut grows) = (Some(fresh), false);
        // Dropped after the lock is released.
        let mut replaced = None;
        let _found = self.entries.entry(key, Some(StdDuration::ZERO), |_, stored| {
            if let Some(fresh) = fresh.take_if(|_| is_expected(stored)) {
                grows = fresh.value.len() > stored.value.len();
                replaced = Some(std::mem::replace(stored, fresh));
            }
            EntryAction::Retain(())
        });
        if grows {
            // An entry that grows evicts no others by itself. Setting the capacity anew does.
            self.entries.set_capacity(self.max_bytes);
        }
        if replaced.is_some() {
            self.note_expiry(expires_at);
        }
        replaced.is_some()
    }

    /// Removes the selected keys. Returns how many had not expired.
    pub(crate) async fn take_selected(&self, selection: &Selection, clock: &Clock) -> u64 {
        let mut removed = 0_u64;
        // Decision: docs/decisions/0020-a-clear-by-pattern-in-ram-yields-between-keys.md
        // As on a server: every key present throughout is visited, no lock is held for long, and other tasks can run.
        for (index, (key, _)) in self.entries.iter().enumerate() {
            if index % Selection::KEYS_PER_TURN == Selection::KEYS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            if selection.matches(&key) && self.take(&key, clock) {
                removed = removed.saturating_add(1);
            }
        }
        removed
    }

    /// Records an entry's expiry for the sweeper. Called after the insertion: a sweep that missed the entry has reset
    /// `earliest_expiry` before this call, and a later sweep sees the entry.
    fn note_expiry(&self, expires_at: u64) {
        self.earliest_expiry.fetch_min(expires_at, Ordering::AcqRel);
    }

    /// Makes the next sweep visit all entries, after some of them died before their expiry.
    pub(crate) fn note_deaths(&self) {
        self.note_expiry(0);
    }

    /// Removes the entries that have expired or that are dead. Returns at once if no entry can have expired.
    pub(crate) fn sweep(&self, now: u64, is_dead: impl Fn(&Stored<S>) -> bool) {
        if now < self.earliest_expiry.load(Ordering::Acquire) {
            return;
        }
        self.earliest_expiry.store(NEVER, Ordering::Release);
        self.entries.retain(|_, stored| {
            let live = now < stored.expires_at && !is_dead(stored);
            if live {
                self.note_expiry(stored.expires_at);
            }
            live
        });
    }
}
