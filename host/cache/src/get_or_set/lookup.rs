//! One get-or-set call: it claims the key, and waits and claims again while another caller computes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::answer_limit::AnswerLimit;
use crate::cache_metrics::Reply;
use crate::error::CacheError;
use crate::get_or_set::in_flight::{Join, LeaderGuard, Owner, Wake};
use crate::get_or_set::lease::{Claim, Lease};
use crate::get_or_set::state::CacheState;
use crate::get_or_set::vacancy::Vacancy;
use crate::key::Key;

/// The result of a `get-or-set`.
#[derive(Debug)]
pub enum Entry {
    /// The key's value.
    Occupied(Bytes),
    /// The key has no value, and the caller may compute it.
    Vacant(Vacancy),
}

impl Reply for Entry {
    fn is_positive(&self) -> bool {
        matches!(self, Self::Occupied(_))
    }
}

/// A get-or-set call.
pub(crate) struct Lookup<'a> {
    state: &'a Arc<CacheState>,
    key: &'a Key,
    owner: Owner,
    answers: Option<&'a Arc<AnswerLimit>>,
    /// When the wait expires; `None` if that is out of the clock's range.
    deadline: Option<Instant>,
    /// Present once this call has become leader; another call may have displaced it since.
    guard: Option<LeaderGuard>,
    has_waited: bool,
    /// The last lease of another process that was counted.
    last_remote: Option<Lease>,
}

/// The result of one claim.
pub(crate) enum Attempt {
    /// The call is complete.
    Done(Entry),
    /// Another caller computes: wait, and then claim again.
    Wait(Wait),
}

/// What a call waits for.
pub(crate) enum Wait {
    /// The leader of this process.
    Leader(oneshot::Receiver<Wake>),
    /// The end of this lease. No caller of this process is known to hold it, so this call watches it as the leader.
    Lease(Lease, LeaderGuard),
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(
        state: &'a Arc<CacheState>,
        key: &'a Key,
        owner: Owner,
        answers: Option<&'a Arc<AnswerLimit>>,
    ) -> Self {
        let deadline = Instant::now().checked_add(state.policy.wait);
        Self { state, key, owner, answers, deadline, guard: None, has_waited: false, last_remote: None }
    }

    /// Claims the key once.
    pub(crate) async fn attempt(&mut self) -> Result<Attempt, CacheError> {
        let (state, owner) = (self.state, self.owner);
        // Given back before this call waits for another one, which may need it.
        let reserved = state.reserve(self.answers, state.policy.max_string()).await;
        let mut vacancy = Vacancy::new(state, self.key);
        let claimed = vacancy.claimed;
        let claim = state.metrics.get_or_set.timed(state.backend.claim(self.key, &vacancy.lease)).await;
        // Then nothing was stored. After any other error the server may have granted the claim: the vacancy releases the
        // lease unless it is handed out.
        if matches!(claim, Err(CacheError::Unavailable(_) | CacheError::Overlap(_))) {
            vacancy.forget_lease();
        }
        // The lease that another caller holds; `None` in an outage.
        let found = match claim {
            Ok(Claim::Granted) => return Ok(Attempt::Done(Entry::Vacant(vacancy.lead(owner)))),
            Ok(Claim::Value(value)) => {
                vacancy.forget_lease();
                self.guard.iter().for_each(|guard| guard.deliver(&value, claimed));
                return Ok(Attempt::Done(Entry::Occupied(reserved.hold(value))));
            }
            Ok(Claim::Leased(lease)) => {
                vacancy.forget_lease();
                Some(lease)
            }
            Err(error) if state.degrades_to_miss(&error) => None,
            Err(error) => {
                // All waiters claim now, instead of one after the other.
                self.guard.iter().for_each(LeaderGuard::invalidate);
                return Err(error);
            }
        };
        let guard = self.guard.take();
        let Some(joined) = state.in_flight.join(self.key, owner, found.as_ref(), claimed, guard, self.answers) else {
            let rule = "key: this plugin instance holds its vacancy already";
            return Err(CacheError::InvalidArgument(rule.to_owned()));
        };
        let has_expired = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        Ok(match (joined, found) {
            (Join::Lead(_), None) => Attempt::Done(Entry::Vacant(vacancy.lead(owner))),
            (_, found) if has_expired => {
                state.counters.expired.increment();
                Attempt::Done(Entry::Vacant(vacancy.unleased(owner, found)))
            }
            (Join::Lead(guard), Some(lease)) => Attempt::Wait(Wait::Lease(lease, guard)),
            (Join::Wait(woken), _) => Attempt::Wait(Wait::Leader(woken)),
        })
    }

    /// Waits and claims in turn until the call is complete.
    pub(crate) async fn wait(mut self, mut wait: Wait) -> Result<Entry, CacheError> {
        loop {
            if let Some(value) = self.wait_once(wait).await? {
                return Ok(Entry::Occupied(value));
            }
            match self.attempt().await? {
                Attempt::Done(entry) => return Ok(entry),
                Attempt::Wait(next) => wait = next,
            }
        }
    }

    /// Returns the value that a wait ends with. After `None`, also if the wait expired, the caller must claim again.
    async fn wait_once(&mut self, wait: Wait) -> Result<Option<Bytes>, CacheError> {
        let counters = &self.state.counters;
        if !self.has_waited {
            self.has_waited = true;
            counters.waited.increment();
        }
        match wait {
            Wait::Leader(woken) => match before(self.deadline, woken).await {
                Some(Ok(Wake::Value(value))) => return Ok(Some(value)),
                Some(Ok(Wake::Lead(guard))) => self.guard = Some(guard),
                Some(Ok(Wake::Retry) | Err(_)) | None => {}
            },
            Wait::Lease(lease, guard) => {
                if self.last_remote.as_ref() != Some(&lease) && !self.state.issuer.has_issued(&lease) {
                    counters.joined_remotely.increment();
                    self.last_remote = Some(lease.clone());
                }
                self.watch(&lease, &guard).await?;
                self.guard = Some(guard);
            }
        }
        Ok(None)
    }

    /// Waits for the end of a lease of another process, on behalf of all waiters of this process.
    async fn watch(&self, lease: &Lease, guard: &LeaderGuard) -> Result<(), CacheError> {
        let change = async {
            tokio::select! {
                outcome = self.state.backend.changed(self.key, lease) => outcome,
                () = guard.displaced() => Ok(()),
            }
        };
        match before(self.deadline, change).await {
            Some(Err(error)) if !error.is_outage() => {
                guard.invalidate();
                Err(error)
            }
            // The claim that follows handles an outage.
            Some(_) | None => Ok(()),
        }
    }
}

/// The future's output, or `None` if the deadline comes first.
async fn before<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
