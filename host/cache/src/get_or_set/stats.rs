//! What get-or-set has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the get-or-set calls of one cache have come to, in this process, since it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetOrSetStats {
    /// Values computed by the holders of vacancies, stored or not.
    pub computed: u64,
    /// Calls that waited for another caller's computation, of whatever process.
    pub waited: u64,
    /// Waits for a lease of another process, by one caller on behalf of all of this process. Who takes its place, as
    /// its wait has run out, counts again.
    pub joined_remotely: u64,
    /// Waits that ran out, so that the caller computed without a lease.
    pub expired: u64,
    /// Values computed and not stored, as the key was set, filled or cleared meanwhile, or the lease had lapsed.
    pub superseded: u64,
    /// Vacancies given up unfilled: dropped, cut off by a trap or a time limit, or filled with what was refused.
    pub abandoned: u64,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// [`GetOrSetStats`] as they are counted.
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
        let of = |counter: &Counter| counter.0.load(Ordering::Relaxed);
        GetOrSetStats {
            computed: of(&self.computed),
            waited: of(&self.waited),
            joined_remotely: of(&self.joined_remotely),
            expired: of(&self.expired),
            superseded: of(&self.superseded),
            abandoned: of(&self.abandoned),
        }
    }
}
