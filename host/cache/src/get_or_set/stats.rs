//! Counters of get-or-set and of refreshes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals of the get-or-set calls on one cache in this process, since it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetOrSetStats {
    /// Values computed by the holders of vacancies, stored or not.
    pub computed: u64,
    /// Calls that waited for another caller's computation, in any process.
    pub waited: u64,
    /// Waits for a lease of another process, each by one caller on behalf of all callers of this process. If its wait
    /// expires, the caller that replaces it counts again.
    pub joined_remotely: u64,
    /// Waits that expired, after which the caller computed without a lease.
    pub expired: u64,
    /// Values computed but not stored, because the key was set, filled or cleared in between, or the lease had expired.
    pub superseded: u64,
    /// Vacancies released unfilled: dropped, ended by a trap or a time limit, or filled with a value that was refused.
    pub abandoned: u64,
}

/// Totals of the get-or-refresh calls on one cache in this process, since it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefreshStats {
    /// Stale values that were returned.
    pub stale: u64,
    /// Refreshes that were stored.
    pub stored: u64,
    /// Refreshes that were computed but not stored, because the key was set, filled, cleared or evicted, or expired, in
    /// between.
    pub superseded: u64,
    /// Refreshes that failed: dropped unfilled, ended by a trap or a time limit, or filled with a value that was refused or
    /// in an outage; and those that could not be begun, as on a full server.
    pub failed: u64,
}

/// A total that only increases.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`RefreshStats`].
#[derive(Debug, Default)]
pub(crate) struct RefreshCounters {
    pub(crate) stale: Counter,
    pub(crate) stored: Counter,
    pub(crate) superseded: Counter,
    pub(crate) failed: Counter,
}

impl RefreshCounters {
    pub(crate) fn read(&self) -> RefreshStats {
        let Self { stale, stored, superseded, failed } = self;
        RefreshStats {
            stale: stale.total(),
            stored: stored.total(),
            superseded: superseded.total(),
            failed: failed.total(),
        }
    }
}

/// The counters behind [`GetOrSetStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) computed: Counter,
    pub(crate) waited: Counter,
    pub(crate) joined_remotely: Counter,
    pub(crate) expired: Counter,
    pub(crate) superseded: Counter,
    pub(crate) abandoned: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> GetOrSetStats {
        let Self { computed, waited, joined_remotely, expired, superseded, abandoned } = self;
        GetOrSetStats {
            computed: computed.total(),
            waited: waited.total(),
            joined_remotely: joined_remotely.total(),
            expired: expired.total(),
            superseded: superseded.total(),
            abandoned: abandoned.total(),
        }
    }
}
