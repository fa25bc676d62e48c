//! One get-or-set call: it asks the backend, and waits and asks again while another caller computes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::get_or_set::in_flight::{Join, Owner, Seat, Wake};
use crate::get_or_set::vacancy::{Shared, Vacancy};
use crate::{CacheError, Claim, Key, Lease};

/// What a `get-or-set` found.
#[derive(Debug)]
pub enum Entry {
    /// The key's value.
    Occupied(Bytes),
    /// There is none, and the caller is the one to compute it.
    Vacant(Vacancy),
}

/// A call under way.
pub(crate) struct Asking<'a> {
    shared: &'a Arc<Shared>,
    key: &'a Key,
    owner: Owner,
    /// When the wait is over; none where that is too far off for the clock.
    deadline: Option<Instant>,
    /// Where this call is the one whom others of this process wait for.
    seat: Option<Seat>,
    has_waited: bool,
    /// The lease of another process that was counted last.
    joined: Option<Lease>,
}

/// What one question led to.
pub(crate) enum Step {
    /// The answer.
    Done(Entry),
    /// Another caller computes: wait for it, and ask again.
    Wait(Wait),
}

/// What a call waits for.
pub(crate) enum Wait {
    /// Another caller of this process.
    Here(oneshot::Receiver<Wake>),
    /// The end of this lease, which no caller of this process is known to have.
    Elsewhere(Lease, Seat),
}

impl<'a> Asking<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, key: &'a Key, owner: Owner) -> Self {
        let deadline = Instant::now().checked_add(shared.policy.wait);
        Self { shared, key, owner, deadline, seat: None, has_waited: false, joined: None }
    }

    /// Asks the backend once.
    pub(crate) async fn ask(&mut self) -> Result<Step, CacheError> {
        let (shared, owner) = (self.shared, self.owner);
        let mut vacancy = Vacancy::claimed(shared, self.key);
        let asked = vacancy.asked;
        // The lease that another one has; none during an outage.
        let found = match shared.metrics.get_or_set.timed(shared.backend.claim(self.key, &vacancy.lease)).await {
            Ok(Claim::Granted) => return Ok(Step::Done(Entry::Vacant(vacancy.take_the_lead(owner)))),
            Ok(Claim::Value(value)) => {
                vacancy.disown();
                self.seat.iter().for_each(|seat| seat.serve(&value, asked));
                return Ok(Step::Done(Entry::Occupied(value)));
            }
            Ok(Claim::Leased(lease)) => {
                vacancy.disown();
                Some(lease)
            }
            // The claim may have arrived all the same, so the vacancy gives its lease back unless it is handed out.
            Err(error) if shared.is_miss(&error) => None,
            Err(error) => {
                // Those who wait for this call are not to try one after the other.
                self.seat.iter().for_each(Seat::give_up);
                return Err(error);
            }
        };
        let Some(joined) = shared.flights.join(self.key, owner, found.as_ref(), asked, self.seat.take()) else {
            let rule = "key: this plugin instance holds its vacancy already";
            return Err(CacheError::InvalidArgument(rule.to_owned()));
        };
        let is_over = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        Ok(match (joined, found) {
            (Join::Seat(_), None) => Step::Done(Entry::Vacant(vacancy.take_the_lead(owner))),
            (_, found) if is_over => {
                shared.counters.expired.add();
                Step::Done(Entry::Vacant(vacancy.loose(owner, found)))
            }
            (Join::Seat(seat), Some(lease)) => Step::Wait(Wait::Elsewhere(lease, seat)),
            (Join::Wait(woken), _) => Step::Wait(Wait::Here(woken)),
        })
    }

    /// Waits and asks again until there is an answer.
    pub(crate) async fn wait(mut self, mut wait: Wait) -> Result<Entry, CacheError> {
        loop {
            if let Some(value) = self.wait_once(wait).await? {
                return Ok(Entry::Occupied(value));
            }
            match self.ask().await? {
                Step::Done(entry) => return Ok(entry),
                Step::Wait(next) => wait = next,
            }
        }
    }

    /// The value, where the wait ends with one. However else it ends, also when it runs out, the next step is to ask
    /// again.
    async fn wait_once(&mut self, wait: Wait) -> Result<Option<Bytes>, CacheError> {
        let counters = &self.shared.counters;
        if !self.has_waited {
            self.has_waited = true;
            counters.waited.add();
        }
        match wait {
            Wait::Here(woken) => match until(self.deadline, woken).await {
                Some(Ok(Wake::Value(value))) => return Ok(Some(value)),
                Some(Ok(Wake::Seat(passed_on))) => self.seat = Some(passed_on),
                Some(Ok(Wake::AskAgain) | Err(_)) | None => {}
            },
            Wait::Elsewhere(lease, seat) => {
                if self.joined.as_ref() != Some(&lease) && !self.shared.issuer.has_issued(&lease) {
                    counters.joined_remotely.add();
                    self.joined = Some(lease.clone());
                }
                self.watch(&lease, &seat).await?;
                self.seat = Some(seat);
            }
        }
        Ok(None)
    }

    /// Waits for the end of a lease that no caller of this process is known to have, on behalf of all who wait here.
    async fn watch(&self, lease: &Lease, seat: &Seat) -> Result<(), CacheError> {
        let change = async {
            tokio::select! {
                outcome = self.shared.backend.changed(self.key, lease) => outcome,
                () = seat.displaced() => Ok(()),
            }
        };
        match until(self.deadline, change).await {
            Some(Err(error)) if !error.is_outage() => {
                seat.give_up();
                Err(error)
            }
            // What an outage means here is settled by the question that follows.
            Some(_) | None => Ok(()),
        }
    }
}

/// The future's outcome, or `None` when the deadline comes first.
async fn until<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
