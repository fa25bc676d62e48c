//! The renewal of a held lease, and its release after an outage.

use std::sync::{Arc, Weak};
use std::time::Duration as StdDuration;

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

// Decision: docs/decisions/0026-max-lease-ends-a-hold-by-giving-the-lease-back.md
/// Keeps a lease alive for at most `max_lease`. Then releases it and invalidates its holder, so that a waiter claims.
pub(crate) async fn keep_alive(state: Arc<CacheState>, key: Key, lease: Lease, holder: Sequence) {
    let renewing = async {
        match state.backend.lease_time() {
            Some(lease_time) => renew(&state, &key, &lease, holder, lease_time).await,
            None => std::future::pending().await,
        }
    };
    if tokio::time::timeout(state.policy.max_lease, renewing).await.is_err() {
        tracing::debug!(cache = state.name, "a vacancy was held longer than `max_lease`");
        if let Err(error) = state.backend.release(&key, &lease).await {
            tracing::debug!(cache = state.name, "cannot release a lease, so it must expire: {error}");
        }
        state.in_flight.invalidate_leader(&key, holder);
    }
}

/// Renews a lease until it is lost. Then invalidates its holder, so that its waiters claim.
async fn renew(state: &CacheState, key: &Key, lease: &Lease, holder: Sequence, lease_time: StdDuration) {
    let interval = lease_time.checked_div(RENEWALS).unwrap_or(lease_time);
    let mut pause = interval;
    loop {
        tokio::time::sleep(pause).await;
        pause = match state.backend.renew(key, lease).await {
            Ok(true) => interval,
            Ok(false) => return state.in_flight.invalidate_leader(key, holder),
            Err(error) => {
                tracing::debug!("cannot renew a lease: {error}");
                retry_pause(lease_time)
            }
        };
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
