//! The renewal of held leases, and the release of a lease after an outage.
//!
//! Most vacancies are filled or dropped before their lease is due for its first renewal. Until then a vacancy is an entry
//! in a table; afterwards it has a task. So the memory is in proportion to the vacancies that are held.

// Decision: docs/decisions/0072-a-vacancy-gets-a-task-when-its-first-renewal-is-due.md

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration as StdDuration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::get_or_set::in_flight::Sequence;
use crate::get_or_set::lease::Lease;
use crate::get_or_set::state::CacheState;
use crate::key::Key;

/// Renewals per lease time. With three, two in a row may fail before the lease expires.
const RENEWALS: u32 = 3;

/// Retries between two renewals.
const RETRIES: u32 = 4;

/// The longest pause before a retry. A long lease is then renewed soon after an outage ends.
const MAX_RETRY_PAUSE: StdDuration = StdDuration::from_secs(1);

/// The vacancies of one cache that are held.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    /// A std mutex: nothing awaits while it is locked.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The vacancies that are not yet due, in the order in which they will be: each is due after the same time.
    fresh: BTreeMap<Sequence, Fresh>,
    /// The tasks of the others.
    tasks: HashMap<Sequence, AbortHandle>,
    /// Whether a task waits for the first fresh vacancy to be due.
    is_watched: bool,
}

/// A vacancy that is not yet due.
#[derive(Debug)]
struct Fresh {
    key: Key,
    lease: Lease,
    due: Instant,
}

impl Renewals {
    /// Keeps the lease of a holder alive for at most `max_lease`, until [`Renewals::end`]. Returns false outside a
    /// runtime, where nothing can renew it.
    pub(crate) fn begin(state: &Arc<CacheState>, key: &Key, lease: &Lease, holder: Sequence) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let due_after = due_after(state);
        // Out of the clock's range: it is never due.
        let Some(due) = Instant::now().checked_add(due_after) else { return true };
        let mut table = state.renewals.lock();
        table.fresh.insert(holder, Fresh { key: key.clone(), lease: lease.clone(), due });
        let is_watched = std::mem::replace(&mut table.is_watched, true);
        // A runtime that shuts down drops the task immediately, which locks the table.
        drop(table);
        if !is_watched {
            runtime.spawn(watch(Watcher { state: Arc::downgrade(state), was_idle: false }, due_after));
        }
        true
    }

    /// Ends the renewal of a holder's lease.
    pub(crate) fn end(&self, holder: Sequence) {
        let mut table = self.lock();
        let is_fresh = table.fresh.remove(&holder).is_some();
        let task = if is_fresh { None } else { table.tasks.remove(&holder) };
        drop(table);
        if let Some(task) = task {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time after which a vacancy is due: for the first renewal of its lease, or for its end.
fn due_after(state: &CacheState) -> StdDuration {
    let max_lease = state.policy.max_lease;
    state.backend.lease_time().map_or(max_lease, |lease_time| interval(lease_time).min(max_lease))
}

fn interval(lease_time: StdDuration) -> StdDuration {
    lease_time.checked_div(RENEWALS).unwrap_or(lease_time)
}

/// The state of the task that waits for the first fresh vacancy. When it is dropped, also by a runtime that shuts down,
/// the next vacancy starts another task.
#[derive(Debug)]
struct Watcher {
    state: Weak<CacheState>,
    /// Whether the task has found no vacancy the last time.
    was_idle: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            state.renewals.lock().is_watched = false;
        }
    }
}

impl Watcher {
    /// Gives each vacancy that is due a task. Returns when to look again; `None` after a time in which no vacancy was
    /// held, or when the cache was dropped.
    fn start_due(&mut self, due_after: StdDuration) -> Option<Instant> {
        let state = self.state.upgrade()?;
        let mut table = state.renewals.lock();
        let next = start_due(&state, &mut table, due_after);
        if next.is_none() && self.was_idle {
            // While the table is locked, so that the next vacancy finds it.
            table.is_watched = false;
            self.state = Weak::new();
            return None;
        }
        self.was_idle = next.is_none();
        next.or_else(|| Instant::now().checked_add(due_after))
    }
}

async fn watch(mut watcher: Watcher, due_after: StdDuration) {
    while let Some(next) = watcher.start_due(due_after) {
        tokio::time::sleep_until(next).await;
    }
}

/// Starts the tasks of the vacancies that are due. Returns when the next one is.
fn start_due(state: &Arc<CacheState>, table: &mut Table, due_after: StdDuration) -> Option<Instant> {
    let now = Instant::now();
    while let Some(first) = table.fresh.first_entry() {
        let due = first.get().due;
        if due > now {
            return Some(due);
        }
        let (holder, Fresh { key, lease, .. }) = first.remove_entry();
        let end = due.checked_add(state.policy.max_lease.saturating_sub(due_after));
        let task = tokio::spawn(keep_alive(Arc::clone(state), key, lease, holder, end));
        table.tasks.insert(holder, task.abort_handle());
    }
    None
}

// Decision: docs/decisions/0026-max-lease-ends-a-hold-by-giving-the-lease-back.md
/// Keeps a lease alive that is due for renewal, until `end`. Then releases it and invalidates its holder, so that a
/// waiter claims.
async fn keep_alive(state: Arc<CacheState>, key: Key, lease: Lease, holder: Sequence, end: Option<Instant>) {
    let renewing = async {
        match state.backend.lease_time() {
            Some(lease_time) => renew(&state, &key, &lease, holder, lease_time).await,
            None => std::future::pending().await,
        }
    };
    let Some(end) = end else { return renewing.await };
    // If it is over, no renewal begins.
    if end > Instant::now() && tokio::time::timeout_at(end, renewing).await.is_ok() {
        return;
    }
    tracing::debug!(cache = state.name, "a vacancy was held longer than `max_lease`");
    if let Err(error) = state.backend.release(&key, &lease).await {
        tracing::debug!(cache = state.name, "cannot release a lease, so it must expire: {error}");
    }
    lost(&state, &key, &lease, holder);
}

/// A holder has no lease any more: its waiters claim, and so do callers that ask for a refresh.
fn lost(state: &CacheState, key: &Key, lease: &Lease, holder: Sequence) {
    state.refreshes.let_go(key, lease);
    state.in_flight.invalidate_leader(key, holder);
}

/// Renews a lease until it is lost. Then invalidates its holder, so that its waiters claim.
async fn renew(state: &CacheState, key: &Key, lease: &Lease, holder: Sequence, lease_time: StdDuration) {
    loop {
        let pause = match state.backend.renew(key, lease).await {
            Ok(true) => interval(lease_time),
            Ok(false) => return lost(state, key, lease, holder),
            Err(error) => {
                tracing::debug!("cannot renew a lease: {error}");
                retry_pause(lease_time)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Retries the release of a lease until the server is reachable again or the lease has expired.
pub(crate) async fn retry_release(state: Weak<CacheState>, key: Key, lease: Lease, lease_time: StdDuration) {
    let retries = async {
        loop {
            tokio::time::sleep(retry_pause(lease_time)).await;
            let Some(state) = state.upgrade() else { return };
            if !state.backend.release(&key, &lease).await.is_err_and(|error| error.is_outage()) {
                return;
            }
        }
    };
    let _expired = tokio::time::timeout(lease_time, retries).await;
}

/// The pause before a retry in an outage.
fn retry_pause(lease_time: StdDuration) -> StdDuration {
    let pause = lease_time.checked_div(RENEWALS.saturating_mul(RETRIES));
    pause.map_or(MAX_RETRY_PAUSE, |pause| pause.min(MAX_RETRY_PAUSE))
}
