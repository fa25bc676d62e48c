//! Get-or-refresh: a stale value at once for every caller, and for one of them the right to refresh it.
//!
//! A refresh is stored if the key still has the version that its caller saw; that alone decides. The lease on the refresh,
//! under a key of its own, only keeps others from computing the same.

// Decision: docs/decisions/0089-a-refresh-compares-the-version-that-it-replaces.md

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::answer_limit::AnswerLimit;
use crate::backend::Version;
use crate::cache_metrics::Reply;
use crate::error::CacheError;
use crate::get_or_set::in_flight::Owner;
use crate::get_or_set::lease::{Claim, Lease};
use crate::get_or_set::state::CacheState;
use crate::get_or_set::stats::RefreshCounters;
use crate::get_or_set::vacancy::Vacancy;
use crate::key::Key;

/// The pause after a failed refresh, in which the stale value is served and no other caller tries. Otherwise each request
/// would call a source that is down.
const PAUSE: StdDuration = StdDuration::from_secs(1);

/// For how long this process does not ask again whether another one still refreshes a key.
const ELSEWHERE: StdDuration = StdDuration::from_millis(100);

/// The most keys that are remembered for a time. Further ones are asked for each time.
const MAX_RESTING: usize = 4096;

/// The result of a `get-or-refresh`.
#[derive(Debug)]
pub enum Freshness {
    /// The key's value, which is not stale.
    Fresh(Bytes),
    /// The key's value, which expires soon.
    Stale {
        /// The value.
        value: Bytes,
        /// The right to compute the next value, for exactly one caller at a time.
        refresh: Option<Vacancy>,
    },
    /// The key has no value, and the caller may compute it.
    Vacant(Vacancy),
}

impl Reply for Freshness {
    fn is_positive(&self) -> bool {
        !matches!(self, Self::Vacant(_))
    }
}

/// The version of a key's value that a refresh replaces.
#[derive(Debug)]
pub(crate) struct Refreshed {
    pub(crate) key: Key,
    pub(crate) version: Version,
}

/// The refreshes of one cache that this process knows of.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    /// By the key of the lease. A std mutex: nothing awaits while it is locked.
    table: Mutex<HashMap<Key, Until>>,
    pub(crate) counters: RefreshCounters,
    /// Whether the last refresh could not be begun, which was logged.
    is_hindered: AtomicBool,
}

/// Until when no caller of this process claims a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Until {
    /// A caller of this process gives this lease back, or loses it.
    Held(Lease),
    /// This time.
    Time(Instant),
}

impl Refreshes {
    /// True if a claim would be refused, as far as this process knows.
    fn is_claimed(&self, key: &Key) -> bool {
        match self.lock().get(key) {
            Some(Until::Held(_)) => true,
            Some(Until::Time(time)) => Instant::now() < *time,
            None => false,
        }
    }

    /// A caller of this process refreshes the key under this lease.
    fn begin(&self, key: &Key, lease: &Lease) {
        self.lock().insert(key.clone(), Until::Held(lease.clone()));
    }

    /// This lease is no longer held: callers of this process claim again, unless another one of them holds a later lease.
    pub(crate) fn let_go(&self, key: &Key, lease: &Lease) {
        let mut table = self.lock();
        if matches!(table.get(key), Some(Until::Held(held)) if held == lease) {
            table.remove(key);
        }
    }

    /// No caller of this process claims the refresh for this time, unless one of them holds it.
    fn rest(&self, key: &Key, time: StdDuration) {
        let now = Instant::now();
        let Some(until) = now.checked_add(time) else { return };
        let mut table = self.lock();
        if matches!(table.get(key), Some(Until::Held(_))) {
            return;
        }
        if table.len() >= MAX_RESTING {
            table.retain(|_, until| !matches!(until, Until::Time(time) if *time <= now));
        }
        if table.len() < MAX_RESTING {
            table.insert(key.clone(), Until::Time(until));
        }
    }

    /// A refresh could not be begun, as on a full server. It counts as failed, and is logged as a warning unless the one before
    /// could not be begun either.
    fn hindered(&self, cache: &str, lease_key: &Key, error: &CacheError) {
        self.counters.failed.increment();
        self.rest(lease_key, PAUSE);
        if self.is_hindered.swap(true, Ordering::Relaxed) {
            tracing::debug!(cache, "a stale value is not refreshed: {error}");
        } else {
            tracing::warn!(cache, "stale values are not refreshed: {error}");
        }
    }

    /// A stale value for a caller that does not refresh it.
    fn stale(&self, value: Bytes) -> Freshness {
        self.counters.stale.increment();
        Freshness::Stale { value, refresh: None }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Until>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks the key up once, and claims its refresh if the value is stale. `None` if there is no value, and in an outage.
pub(crate) async fn look_up(
    state: &Arc<CacheState>,
    key: &Key,
    stale: StdDuration,
    owner: Owner,
    answers: Option<&Arc<AnswerLimit>>,
) -> Result<Option<Freshness>, CacheError> {
    // A stale value is held while it is read again. A call that waited for further room would keep what it has from others.
    let reserved = state.reserve(answers, state.policy.max_string().saturating_mul(2)).await;
    Ok(look_up_once(state, key, stale, owner).await?.map(|found| match found {
        Freshness::Fresh(value) => Freshness::Fresh(reserved.hold(value)),
        Freshness::Stale { value, refresh } => Freshness::Stale { value: reserved.hold(value), refresh },
        Freshness::Vacant(vacancy) => Freshness::Vacant(vacancy),
    }))
}

async fn look_up_once(
    state: &Arc<CacheState>,
    key: &Key,
    stale: StdDuration,
    owner: Owner,
) -> Result<Option<Freshness>, CacheError> {
    let found = match state.metrics.get_or_refresh.timed(state.backend.get_with_life(key)).await {
        Ok(found) => found,
        Err(error) if error.is_outage() => {
            // Without a value the claim that follows handles the outage.
            let known = state.backend.near().and_then(|near| near.last_known(key.as_ref()));
            return Ok(known.map(|value| state.refreshes.stale(value)));
        }
        Err(error) => return Err(error),
    };
    let Some(found) = found else { return Ok(None) };
    if !found.is_stale(stale) {
        return Ok(Some(Freshness::Fresh(found.value)));
    }
    Ok(match claim(state, key, stale, owner).await {
        Ok(Some(Freshness::Stale { value, refresh })) => {
            state.refreshes.counters.stale.increment();
            Some(Freshness::Stale { value, refresh })
        }
        Ok(freshness) => freshness,
        Err(()) => Some(state.refreshes.stale(found.value)),
    })
}

/// Claims the refresh of a key and looks the key up again: another caller may have refreshed it since. `Err` if another
/// caller refreshes it, or if the server cannot tell.
async fn claim(state: &Arc<CacheState>, key: &Key, stale: StdDuration, owner: Owner) -> Result<Option<Freshness>, ()> {
    let lease_key = key.of_refresh();
    if state.refreshes.is_claimed(&lease_key) {
        return Err(());
    }
    let mut vacancy = Vacancy::new(state, &lease_key);
    match state.backend.claim(&lease_key, &vacancy.lease).await {
        Ok(Claim::Granted) => {}
        Ok(Claim::Leased(_) | Claim::Value(_)) => {
            vacancy.forget_lease();
            state.refreshes.rest(&lease_key, ELSEWHERE);
            return Err(());
        }
        Err(error) => {
            state.refreshes.hindered(&state.name, &lease_key, &error);
            return Err(());
        }
    }
    match state.backend.get_version(key).await {
        Ok(Some((found, version))) if found.is_stale(stale) => {
            state.refreshes.begin(&lease_key, &vacancy.lease);
            state.refreshes.is_hindered.store(false, Ordering::Relaxed);
            vacancy.refreshed = Some(Refreshed { key: key.clone(), version });
            Ok(Some(Freshness::Stale { value: found.value, refresh: Some(vacancy.lead(owner)) }))
        }
        Ok(Some((found, _))) => Ok(Some(Freshness::Fresh(found.value))),
        Ok(None) => Ok(None),
        Err(error) => {
            state.refreshes.hindered(&state.name, &lease_key, &error);
            Err(())
        }
    }
}

/// Ends a refresh. After one that failed, its lease is given back later: then this breaks.
pub(crate) fn end(state: &Arc<CacheState>, lease_key: &Key, lease: &Lease, is_filled: bool) -> ControlFlow<()> {
    state.refreshes.let_go(lease_key, lease);
    if is_filled {
        return ControlFlow::Continue(());
    }
    state.refreshes.counters.failed.increment();
    state.refreshes.rest(lease_key, PAUSE);
    // Without a runtime the lease is released at once, or lapses.
    let Ok(runtime) = Handle::try_current() else { return ControlFlow::Continue(()) };
    let (state, key, lease) = (Arc::downgrade(state), lease_key.clone(), lease.clone());
    runtime.spawn(async move {
        tokio::time::sleep(PAUSE).await;
        let Some(state) = state.upgrade() else { return };
        if let Err(error) = state.backend.release(&key, &lease).await {
            tracing::debug!(cache = state.name, "cannot release the lease on a refresh, so it must expire: {error}");
        }
    });
    ControlFlow::Break(())
}
