//! The right to compute one value: a lease that is renewed while it is held, and given back when it is dropped.

use std::sync::{Arc, Weak};
use std::time::Duration as StdDuration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::cache_metrics::{CacheMetrics, Held};
use crate::get_or_set::in_flight::{Flights, Moment, Owner, Seat};
use crate::get_or_set::stats::Counters;
use crate::{CacheBackend, CacheError, Issuer, Key, Lease, OnOutage, Policy};

/// A lease is renewed so many times within its time, so that a renewal or two may fail.
const RENEWALS: u32 = 3;

/// What failed is tried again so many times between two renewals.
const RETRIES: u32 = 4;

/// But at least so often.
const LONGEST_PAUSE: StdDuration = StdDuration::from_secs(1);

/// What one cache and its vacancies share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) backend: Arc<dyn CacheBackend>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) counters: Counters,
    pub(crate) metrics: CacheMetrics,
    pub(crate) issuer: Issuer,
    /// Leases on their way back.
    pub(crate) releases: TaskTracker,
}

impl Shared {
    pub(crate) fn new(name: String, backend: Arc<dyn CacheBackend>, policy: Policy) -> Self {
        let releases = TaskTracker::new();
        // Waiting ends only on a closed one; it takes tasks as before.
        releases.close();
        let (flights, counters, issuer) = (Arc::default(), Counters::default(), Issuer::new());
        let metrics = CacheMetrics::new(&name, backend.status().backend());
        Self { name, policy, backend, flights, counters, metrics, issuer, releases }
    }

    /// Whether a read answers a miss instead of this error.
    pub(crate) fn is_miss(&self, error: &CacheError) -> bool {
        let is_miss = error.is_outage() && self.policy.on_outage == OnOutage::Miss;
        if is_miss {
            self.metrics.degraded.increment(1);
            tracing::debug!(cache = self.name, "a miss instead of an error: {error}");
        }
        is_miss
    }
}

/// The right to compute the value of one key. Dropping it passes it to exactly one of those who wait.
#[derive(Debug)]
pub struct Vacancy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    /// The moment before it was claimed.
    pub(crate) asked: Moment,
    /// What the key must still hold for a fill to store.
    pub(crate) lease: Lease,
    /// Whether the lease was asked for by this vacancy and may be there, and so is to be given back.
    is_ours: bool,
    /// None while the claim is under way.
    seat: Option<Seat>,
    /// The task that keeps the lease up; none where there is no runtime for it.
    renewal: Option<AbortHandle>,
    /// None while the claim is under way.
    held: Option<Held>,
}

impl Vacancy {
    /// The vacancy that a claim asks for. Dropped before the claim is answered, it gives back what may be granted yet.
    pub(crate) fn claimed(shared: &Arc<Shared>, key: &Key) -> Self {
        let (asked, lease) = (shared.flights.now(), shared.issuer.issue());
        let (shared, key) = (Arc::clone(shared), key.clone());
        Self { shared, key, asked, lease, is_ours: true, seat: None, renewal: None, held: None }
    }

    /// The claim was granted, or nobody answered it: from now on others wait for this vacancy.
    pub(crate) fn take_the_lead(mut self, owner: Owner) -> Self {
        let seat = self.shared.flights.lead(&self.key, owner, &self.lease);
        let (shared, key, lease) = (Arc::clone(&self.shared), self.key.clone(), self.lease.clone());
        let holding = hold(shared, key, lease, seat.place());
        self.renewal = Handle::try_current().ok().map(|runtime| runtime.spawn(holding).abort_handle());
        self.held = Some(self.shared.metrics.hold());
        self.seat = Some(seat);
        self
    }

    // Decision: docs/decisions/0002-a-fill-stores-only-under-the-lease-it-was-claimed-with.md
    /// The wait for another's `lease` ran out. A fill stores only while the key has that lease still: then nobody has
    /// set, cleared or filled the key since. None during an outage.
    pub(crate) fn loose(mut self, owner: Owner, lease: Option<Lease>) -> Self {
        if let Some(lease) = lease {
            self.disown();
            self.lease = lease;
        }
        self.seat = Some(self.shared.flights.loose(&self.key, owner, &self.lease));
        self.held = Some(self.shared.metrics.hold());
        self
    }

    /// Its lease is not there, or no longer: nothing is to be given back.
    pub(crate) fn disown(&mut self) {
        self.is_ours = false;
    }

    /// Takes its seat, when the vacancy has been filled or a fill has failed.
    pub(crate) fn take_seat(&mut self) -> Option<Seat> {
        self.seat.take()
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
        let seat = self.seat.take();
        if let Some(seat) = &seat {
            self.shared.counters.abandoned.add();
            seat.resign();
        }
        if !self.is_ours {
            return;
        }
        let released = self.shared.backend.abandon(&self.key, &self.lease);
        let Some(lease_time) = self.shared.backend.lease_time() else { return };
        // Without a runtime, as when it is shutting down, nobody can wait for the answer.
        if let Ok(runtime) = Handle::try_current() {
            let (shared, key, lease) = (Arc::downgrade(&self.shared), self.key.clone(), self.lease.clone());
            let had_the_lead = self.renewal.is_some();
            let release = async move {
                let outcome = released.await;
                // Decision: docs/decisions/0006-a-dropped-vacancy-releases-its-lease-before-the-next-waiter-proceeds.md
                // Only now, when the next caller can be granted the lease.
                drop(seat);
                // A mere claim lapses by itself; there may be many of them, on a server that is slow already.
                if had_the_lead && outcome.is_err_and(|error| error.is_outage()) {
                    tokio::spawn(give_back_later(shared, key, lease, lease_time));
                }
            };
            self.shared.releases.spawn_on(release, &runtime);
        }
    }
}

/// Gives a lease back as soon as the server can be reached again, or lets it lapse.
async fn give_back_later(shared: Weak<Shared>, key: Key, lease: Lease, lease_time: StdDuration) {
    let again = async {
        loop {
            tokio::time::sleep(retry_pause(lease_time)).await;
            let Some(shared) = shared.upgrade() else { return };
            if !shared.backend.abandon(&key, &lease).await.is_err_and(|error| error.is_outage()) {
                return;
            }
        }
    };
    let _lapsed = tokio::time::timeout(lease_time, again).await;
}

/// The pause before what failed in an outage is tried again.
fn retry_pause(lease_time: StdDuration) -> StdDuration {
    lease_time.checked_div(RENEWALS.saturating_mul(RETRIES)).map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
}

// Decision: docs/decisions/0026-max-lease-ends-a-hold-by-giving-the-lease-back.md
/// Keeps a lease up for as long as its holder may have it, and then gives it back, so that a waiter follows.
async fn hold(shared: Arc<Shared>, key: Key, lease: Lease, place: Moment) {
    let renewing = async {
        match shared.backend.lease_time() {
            Some(lease_time) => renew(&shared, &key, &lease, place, lease_time).await,
            None => std::future::pending().await,
        }
    };
    if tokio::time::timeout(shared.policy.max_lease, renewing).await.is_err() {
        tracing::debug!(cache = shared.name, "a vacancy was held longer than `max_lease`");
        if let Err(error) = shared.backend.abandon(&key, &lease).await {
            tracing::debug!(cache = shared.name, "a lease lapses that cannot be given back: {error}");
        }
        shared.flights.give_up_on(&key, place);
    }
}

/// Renews a lease until it is lost: then those who wait for its holder ask again.
async fn renew(shared: &Shared, key: &Key, lease: &Lease, place: Moment, lease_time: StdDuration) {
    let every = lease_time.checked_div(RENEWALS).unwrap_or(lease_time);
    let mut pause = every;
    loop {
        tokio::time::sleep(pause).await;
        pause = match shared.backend.renew(key, lease).await {
            Ok(true) => every,
            Ok(false) => return shared.flights.give_up_on(key, place),
            Err(error) => {
                tracing::debug!("cannot renew a lease: {error}");
                retry_pause(lease_time)
            }
        };
    }
}
