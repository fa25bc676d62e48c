//! The requests that run in one instance: their deadlines and their shares of its processor time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::job::{Ending, NoResponse, Respond, Waiting};
use crate::error::Error;
use crate::plugin_body::AbortFlag;

/// The requests that run in one instance, in the order in which they began.
#[derive(Default)]
pub(super) struct Requests(Mutex<State>);

#[derive(Default)]
struct State {
    /// Boxed: a node of the map stays small, and is not taken from the allocator's large blocks.
    running: BTreeMap<u64, Box<Running>>,
    /// The deadline of each. Not in the order in which they began: a request may come from an instance that has ended.
    deadlines: BTreeSet<(Instant, u64)>,
    last_id: u64,
    /// The processor time of a request that would have run from the beginning of the instance: each moment of it is divided
    /// among the requests that run.
    share: Duration,
    /// The processor time in which no request was being answered, since the plugin last had no task.
    unattended: Duration,
}

struct Running {
    deadline: Instant,
    /// The share when the request began.
    began_at: Duration,
    /// `None` once the response is sent.
    respond: Option<Respond>,
    ending: Ending,
    abort: AbortFlag,
    /// True once the plugin has it.
    has_begun: bool,
    /// True once the body of its response is taken: it lasts only because tasks of the plugin do.
    is_answered: bool,
}

impl State {
    fn remove(&mut self, id: u64) -> Option<Box<Running>> {
        let request = self.running.remove(&id)?;
        self.deadlines.remove(&(request.deadline, id));
        Some(request)
    }
}

impl Requests {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that the instance is to answer, and returns its number.
    pub(super) fn add(&self, waiting: Waiting) -> u64 {
        let Waiting { deadline, respond, ending, abort } = waiting;
        let mut state = self.state();
        state.last_id = state.last_id.wrapping_add(1);
        let (id, began_at) = (state.last_id, state.share);
        let (respond, has_begun, is_answered) = (Some(respond), false, false);
        let running = Running { deadline, began_at, respond, ending, abort, has_begun, is_answered };
        state.running.insert(id, Box::new(running));
        state.deadlines.insert((deadline, id));
        id
    }

    /// Begins a request. Returns false if it is overdue, or its client has gone.
    pub(super) fn begin(&self, id: u64) -> bool {
        let mut state = self.state();
        let Some(request) = state.running.get_mut(&id) else { return false };
        request.has_begun = true;
        request.respond.as_ref().is_some_and(|respond| !respond.is_closed())
    }

    /// Takes out what waits for the response. `None` if the request is overdue.
    pub(super) fn respond(&self, id: u64) -> Option<Respond> {
        self.state().running.get_mut(&id)?.respond.take()
    }

    /// Takes a request back that the plugin has not got. `None` if it is overdue.
    pub(super) fn take_back(&self, id: u64) -> Option<Waiting> {
        let Running { deadline, respond, ending, abort, .. } = *self.state().remove(id)?;
        Some(Waiting { deadline, respond: respond?, ending, abort })
    }

    /// Notes that the body of the response is taken. The request lasts until it is [completed](Self::complete), because
    /// of the tasks that the plugin still has.
    pub(super) fn answered(&self, id: u64) {
        if let Some(request) = self.state().running.get_mut(&id) {
            request.is_answered = true;
        }
    }

    /// Notes that the plugin has no task.
    pub(super) fn rest(&self) {
        self.state().unattended = Duration::ZERO;
    }

    /// Ends a request that has been answered.
    pub(super) fn complete(&self, id: u64) {
        let request = self.state().remove(id);
        if let Some(request) = request {
            (request.ending)(Ok(()));
        }
    }

    /// When the first request is overdue.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.state().deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Ends the requests that are overdue. Returns how many.
    pub(super) fn expire(&self, now: Instant, error: impl Fn() -> Error) -> usize {
        let mut expired = 0_usize;
        while let Some(request) = self.take_overdue(now) {
            request.fail(error());
            expired = expired.saturating_add(1);
        }
        expired
    }

    fn take_overdue(&self, now: Instant) -> Option<Box<Running>> {
        let mut state = self.state();
        let (deadline, id) = *state.deadlines.first()?;
        if deadline > now { None } else { state.remove(id) }
    }

    /// True if no request is being answered: what computes is a task that goes on after the response.
    pub(super) fn are_answered(&self) -> bool {
        self.state().running.values().all(|request| request.is_answered)
    }

    /// Divides processor time of the instance among the requests that run. Returns the largest share of one, or the
    /// time that tasks have taken while no request was being answered, which `is_unattended` says of this time.
    pub(super) fn charge(&self, time: Duration, is_unattended: bool) -> Duration {
        let mut state = self.state();
        if is_unattended {
            state.unattended = state.unattended.saturating_add(time);
        }
        let count = u32::try_from(state.running.len()).unwrap_or(u32::MAX).max(1);
        state.share = state.share.saturating_add(time.checked_div(count).unwrap_or(time));
        // The first one has been charged for longest.
        let first = state.running.first_key_value().map(|(_, request)| request.began_at);
        let most = first.map_or(Duration::ZERO, |began_at| state.share.saturating_sub(began_at));
        most.max(state.unattended)
    }

    /// True if no request runs.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.state().running.is_empty()
    }

    /// Ends the requests that the plugin has, because its instance ends.
    pub(super) fn fail_begun(&self, error: impl Fn() -> Error) {
        self.fail_those(|request| request.has_begun, error);
    }

    /// Ends all requests, because the instance does.
    pub(super) fn fail_all(&self, error: impl Fn() -> Error) {
        self.fail_those(|_| true, error);
    }

    fn fail_those(&self, is_one: impl Fn(&Running) -> bool, error: impl Fn() -> Error) {
        let mut state = self.state();
        let failed: Vec<_> = state.running.extract_if(.., |_, request| is_one(request)).collect();
        for (id, request) in &failed {
            state.deadlines.remove(&(request.deadline, *id));
        }
        drop(state);
        failed.into_iter().for_each(|(_, request)| request.fail(error()));
    }
}

impl Running {
    fn fail(self, error: Error) {
        self.abort.set();
        let response = (self.ending)(Err(error));
        if let Some((respond, response)) = self.respond.zip(response) {
            // The receiver is gone if the client is.
            let _received = respond.send(Err(NoResponse::Ended(response)));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::sync::oneshot;

    use super::*;

    pub(in crate::serve::concurrent) type Ended = oneshot::Receiver<Result<(), Error>>;

    /// A request whose client has gone, with this long to its deadline.
    pub(in crate::serve::concurrent) fn waiting(left: Duration) -> (Waiting, Ended) {
        let ((respond, _), (sender, ended)) = (oneshot::channel(), oneshot::channel());
        let ending: Ending = Box::new(|outcome| {
            sender.send(outcome).unwrap();
            None
        });
        let deadline = Instant::now().checked_add(left).unwrap();
        (Waiting { deadline, respond, ending, abort: AbortFlag::default() }, ended)
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn begin(requests: &Requests) -> (u64, Ended) {
        let (waiting, ended) = waiting(SECOND);
        (requests.add(waiting), ended)
    }

    fn error() -> Error {
        Error::Engine("a test".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn only_requests_that_are_overdue_expire() {
        let requests = Requests::default();
        let (_, mut early) = begin(&requests);
        tokio::time::advance(SECOND / 2).await;
        let (id, mut late) = begin(&requests);
        assert_eq!(requests.expire(Instant::now(), error), 0);
        tokio::time::advance(SECOND / 2).await;
        assert_eq!(requests.expire(Instant::now(), error), 1);
        assert!(early.try_recv().unwrap().is_err());
        assert!(late.try_recv().is_err() && !requests.is_empty());
        requests.complete(id);
        assert!(late.try_recv().unwrap().is_ok() && requests.is_empty());
        assert_eq!(requests.first_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_another_instance_gets_keeps_its_deadline() {
        let (ended_instance, requests) = (Requests::default(), Requests::default());
        let (id, mut early) = begin(&ended_instance);
        tokio::time::advance(SECOND / 2).await;
        let (_, mut late) = begin(&requests);
        requests.add(ended_instance.take_back(id).unwrap());
        tokio::time::advance(SECOND / 2).await;
        assert_eq!(requests.first_deadline(), Some(Instant::now()));
        assert_eq!(requests.expire(Instant::now(), error), 1);
        assert!(early.try_recv().unwrap().is_err() && late.try_recv().is_err());
    }

    #[test]
    fn a_request_that_the_plugin_has_not_got_is_taken_back() {
        let requests = Requests::default();
        let [(first, mut begun), (second, mut queued)] = [begin(&requests), begin(&requests)];
        assert!(!requests.begin(first), "its client has gone");
        requests.fail_begun(error);
        assert!(begun.try_recv().unwrap().is_err() && queued.try_recv().is_err());
        assert!(requests.take_back(first).is_none());
        assert!(requests.take_back(second).is_some() && requests.is_empty());
    }

    #[test]
    fn processor_time_is_divided_among_the_requests_that_run() {
        let requests = Requests::default();
        let (first, _receiver) = begin(&requests);
        assert_eq!(requests.charge(SECOND, false), SECOND);
        let (_, _second) = begin(&requests);
        assert_eq!(requests.charge(SECOND, false), SECOND * 3 / 2);
        requests.complete(first);
        assert_eq!(requests.charge(SECOND, false), SECOND * 3 / 2);
        assert_eq!(Requests::default().charge(SECOND, false), Duration::ZERO);
    }

    #[test]
    fn tasks_after_the_responses_of_many_requests_have_the_processor_time_of_one() {
        let requests = Requests::default();
        for count in 1..=5 {
            let (id, mut ended) = begin(&requests);
            assert!(!requests.are_answered());
            requests.answered(id);
            assert!(requests.are_answered() && ended.try_recv().is_err());
            assert_eq!(requests.charge(SECOND, true), SECOND * count);
            requests.complete(id);
            assert!(ended.try_recv().unwrap().is_ok());
        }
        requests.rest();
        assert_eq!(requests.charge(Duration::ZERO, true), Duration::ZERO);
    }
}
