//! A vacancy: the right to compute one missing value.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::cache_metrics::VacancyCount;
use crate::get_or_set::in_flight::{LeaderGuard, Owner, Sequence};
use crate::get_or_set::lease::Lease;
use crate::get_or_set::refresh::{self, Refreshed};
use crate::get_or_set::renewal::{self, Renewals};
use crate::get_or_set::state::CacheState;
use crate::key::Key;

/// The right to compute the value of one key, which has none or a stale one. While it is held, its lease is renewed, for at most
/// [`Policy::max_lease`](crate::Policy::max_lease). [`Cache::fill`](crate::Cache::fill) consumes it. If it is dropped,
/// its lease is released, and exactly one of the waiters claims next.
#[derive(Debug)]
pub struct Vacancy {
    pub(crate) state: Arc<CacheState>,
    pub(crate) key: Key,
    /// What the value is to replace, if it refreshes a stale one. `key` is then that of the lease on the refresh.
    pub(crate) refreshed: Option<Refreshed>,
    /// The sequence number before the claim was sent.
    pub(crate) claimed: Sequence,
    /// The lease that the key must still hold for a fill.
    pub(crate) lease: Lease,
    /// True if this vacancy claimed the lease and may hold it, so that it must release it.
    owns_lease: bool,
    /// `None` while the claim is pending.
    guard: Option<LeaderGuard>,
    /// The holder whose lease is renewed; `None` for an unleased vacancy, and outside a runtime.
    renewal: Option<Sequence>,
    /// `None` while the claim is pending.
    count: Option<VacancyCount>,
}

impl Vacancy {
    /// The vacancy for a claim that is about to be sent. If it is dropped before the reply, it releases the lease that
    /// may still be granted.
    pub(crate) fn new(state: &Arc<CacheState>, key: &Key) -> Self {
        let (claimed, lease) = (state.in_flight.now(), state.issuer.issue());
        let (state, key) = (Arc::clone(state), key.clone());
        Self { state, key, refreshed: None, claimed, lease, owns_lease: true, guard: None, renewal: None, count: None }
    }

    /// Registers the holder as leader and starts the renewal, after a claim was granted, or failed in an outage.
    pub(crate) fn lead(mut self, owner: Owner) -> Self {
        let guard = self.state.in_flight.lead(&self.key, owner, &self.lease);
        let holder = guard.sequence();
        self.renewal = Renewals::begin(&self.state, &self.key, &self.lease, holder).then_some(holder);
        self.count = Some(self.state.metrics.count_vacancy());
        self.guard = Some(guard);
        self
    }

    // Decision: docs/decisions/0002-a-fill-stores-only-under-the-lease-it-was-claimed-with.md
    /// Registers the holder as unleased, after its wait expired. `found` is the lease that another caller holds, or
    /// `None` in an outage. A fill stores only if the key still holds that lease: then the key was not set, cleared or
    /// filled.
    pub(crate) fn unleased(mut self, owner: Owner, found: Option<Lease>) -> Self {
        if let Some(lease) = found {
            self.forget_lease();
            self.lease = lease;
        }
        self.guard = Some(self.state.in_flight.unleased(&self.key, owner, &self.lease));
        self.count = Some(self.state.metrics.count_vacancy());
        self
    }

    /// The key does not hold this vacancy's own lease, so there is nothing to release.
    pub(crate) fn forget_lease(&mut self) {
        self.owns_lease = false;
    }

    /// Takes the guard, after a fill was stored or failed.
    pub(crate) fn take_guard(&mut self) -> Option<LeaderGuard> {
        self.guard.take()
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        if let Some(holder) = self.renewal {
            self.state.renewals.end(holder);
        }
        let guard = self.guard.take();
        if let Some(guard) = &guard {
            guard.end_holding();
            if self.refreshed.is_none() {
                self.state.counters.abandoned.increment();
            }
        }
        if self.refreshed.is_some() {
            let is_filled = guard.is_none();
            if refresh::end(&self.state, &self.key, &self.lease, is_filled).is_break() {
                return;
            }
        }
        if !self.owns_lease {
            return;
        }
        let release = self.state.backend.release(&self.key, &self.lease);
        let Some(lease_time) = self.state.backend.lease_time() else { return };
        // Outside a runtime, for example during its shutdown, nothing can poll the rest of the release.
        if let Ok(runtime) = Handle::try_current() {
            let (state, key, lease) = (Arc::downgrade(&self.state), self.key.clone(), self.lease.clone());
            let was_leader = self.renewal.is_some();
            let release = async move {
                let outcome = release.await;
                // Decision: docs/decisions/0006-a-dropped-vacancy-releases-its-lease-before-the-next-waiter-proceeds.md
                // Dropped after the release, so that the next waiter's claim can be granted.
                drop(guard);
                // Without a leader there is no renewal, so the lease expires soon; in an outage there may be many of them.
                if was_leader && outcome.is_err_and(|error| error.is_outage()) {
                    tokio::spawn(renewal::retry_release(state, key, lease, lease_time));
                }
            };
            self.state.releases.spawn_on(release, &runtime);
        }
    }
}
