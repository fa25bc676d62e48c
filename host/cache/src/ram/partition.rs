//! A partition of a RAM cache, with a limit of its own: a quick_cache with expiry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use quick_cache::sync::{Cache, EntryAction, EntryResult};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::key::{Key, KeyRef, Selection};
use crate::ram::clock::{Clock, NEVER};
use crate::ram::weight::{least_capacity, weight};

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) entries: Cache<Key, Stored, ByBytes, DefaultHashBuilder, Evictions>,
    pub(super) evictions: Evictions,
    /// No entry expires before this time. The sweeper checks it first.
    earliest_expiry: AtomicU64,
}

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) value: Bytes,
    /// A time of the backend's [`Clock`]; [`NEVER`] without expiry.
    pub(super) expires_at: u64,
}

#[derive(Debug, Clone)]
pub(super) struct ByBytes;

impl Weighter<Key, Stored> for ByBytes {
    fn weight(&self, key: &Key, stored: &Stored) -> u64 {
        weight(key.as_str().len(), stored.value.len())
    }
}

/// Counts evictions.
#[derive(Debug, Clone, Default)]
pub(super) struct Evictions(Arc<AtomicU64>);

impl Evictions {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Lifecycle<Key, Stored> for Evictions {
    /// Evicted entries, dropped after the shard's lock is released. One or two, if entries are of similar size.
    type RequestState = [Option<(Key, Stored)>; 2];

    fn before_evict(&self, _evicted: &mut Self::RequestState, _key: &Key, _stored: &mut Stored) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Also called for a value that is replaced under its own key, which is not an eviction.
    fn on_evict(&self, evicted: &mut Self::RequestState, key: Key, stored: Stored) {
        if let Some(free) = evicted.iter_mut().find(|place| place.is_none()) {
            *free = Some((key, stored));
        }
    }
}

impl Partition {
    /// A partition of `max_bytes`. It has at most four shards per core, and fewer if a shard could not hold the largest
    /// value.
    pub(super) fn new(max_bytes: u64, max_value_bytes: usize) -> Self {
        let fitting = max_bytes.checked_div(least_capacity(max_value_bytes)).unwrap_or(1).max(1);
        let wanted = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_mul(4));
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
            earliest_expiry: AtomicU64::new(NEVER),
        }
    }

    /// The value of a live entry. Removes an expired one.
    pub(super) fn live(&self, key: KeyRef<'_>, clock: &Clock) -> Option<Bytes> {
        let stored = self.entries.get(key.as_str())?;
        if clock.is_before(stored.expires_at) {
            return Some(stored.value);
        }
        // Checks again under the lock, to keep a new value that was set in between.
        self.entries.remove_if(key.as_str(), |stored| !clock.is_before(stored.expires_at));
        None
    }

    /// Removes an entry. Returns true if it had not expired.
    pub(super) fn take(&self, key: &Key, clock: &Clock) -> bool {
        self.entries.remove(key).is_some_and(|(_, stored)| clock.is_before(stored.expires_at))
    }

    pub(super) fn insert(&self, key: Key, stored: Stored) {
        let expires_at = stored.expires_at;
        self.entries.insert(key, stored);
        self.note_expiry(expires_at);
    }

    /// Stores a value if the key has no live entry. Returns true if it was stored.
    pub(super) fn insert_if_absent(&self, key: &Key, fresh: Stored, clock: &Clock) -> bool {
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

    /// Removes the selected keys. Returns how many had not expired.
    pub(super) async fn take_selected(&self, selection: &Selection, clock: &Clock) -> u64 {
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

    /// Removes expired entries. Returns at once if no entry can have expired.
    pub(super) fn remove_expired(&self, now: u64) {
        if now < self.earliest_expiry.load(Ordering::Acquire) {
            return;
        }
        self.earliest_expiry.store(NEVER, Ordering::Release);
        self.entries.retain(|_, stored| {
            let live = now < stored.expires_at;
            if live {
                self.note_expiry(stored.expires_at);
            }
            live
        });
    }
}
