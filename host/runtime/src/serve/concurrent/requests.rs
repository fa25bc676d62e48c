//! The requests that run in one instance: their deadlines and their shares of its processor time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::job::{Respond, Waiting};
use crate::error::Error;
use crate::plugin_body::AbortFlag;

/// The requests that run in one instance, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<u64, Running>,
    last_id: u64,
    /// The processor time of a request that would have run from the beginning of the instance: each moment of it is divided
    /// among the requests that run.
    share: Duration,
}

#[derive(Debug)]
struct Running {
    deadline: Instant,
    /// The share when the request began.
    began_at: Duration,
    /// `None` once the response is sent.
    respond: Option<Respond>,
    ended: oneshot::Sender<Result<(), Error>>,
    abort: AbortFlag,
    /// True once the plugin has it.
    has_begun: bool,
}

impl Requests {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that the instance is to answer, and returns its number.
    pub(super) fn add(&self, timeout: Duration, waiting: Waiting) -> u64 {
        let Waiting { respond, ended, abort } = waiting;
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now);
        let mut state = self.state();
        state.last_id = state.last_id.wrapping_add(1);
        let (id, began_at) = (state.last_id, state.share);
        state
            .running
            .insert(id, Running { deadline, began_at, respond: Some(respond), ended, abort, has_begun: false });
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
        let Running { respond, ended, abort, .. } = self.state().running.remove(&id)?;
        Some(Waiting { respond: respond?, ended, abort })
    }

    /// Ends a request that has been answered.
    pub(super) fn complete(&self, id: u64) {
        let request = self.state().running.remove(&id);
        if let Some(request) = request {
            // The receiver is gone if the request was cut off.
            let _received = request.ended.send(Ok(()));
        }
    }

    /// When the first request is overdue.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        // The timeout is the same for all, so the first one to begin is the first one to be overdue.
        self.state().running.first_key_value().map(|(_, request)| request.deadline)
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

    fn take_overdue(&self, now: Instant) -> Option<Running> {
        let mut state = self.state();
        let first = state.running.first_entry()?;
        (first.get().deadline <= now).then(|| first.remove())
    }

    /// Divides processor time of the instance among the requests that run. Returns the largest share of one.
    pub(super) fn charge(&self, time: Duration) -> Duration {
        let mut state = self.state();
        let count = u32::try_from(state.running.len()).unwrap_or(u32::MAX).max(1);
        state.share = state.share.saturating_add(time.checked_div(count).unwrap_or(time));
        // The first one has been charged for longest.
        let first = state.running.first_key_value().map(|(_, request)| request.began_at);
        first.map_or(Duration::ZERO, |began_at| state.share.saturating_sub(began_at))
    }

    /// True if no request runs.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.state().running.is_empty()
    }

    /// Ends the requests that the plugin has, because its instance ends.
    pub(super) fn fail_begun(&self, error: impl Fn() -> Error) {
        let begun: Vec<_> = self.state().running.extract_if(.., |_, request| request.has_begun).collect();
        begun.into_iter().for_each(|(_, request)| request.fail(error()));
    }

    /// Ends all requests, because the instance does.
    pub(super) fn fail_all(&self, error: impl Fn() -> Error) {
        let all = std::mem::take(&mut self.state().running);
        all.into_values().for_each(|request| request.fail(error()));
    }
}

impl Running {
    fn fail(self, error: Error) {
        self.abort.set();
        let _received = self.ended.send(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begin(requests: &Requests) -> (u64, oneshot::Receiver<Result<(), Error>>) {
        let ((respond, _), (ended, receiver)) = (oneshot::channel(), oneshot::channel());
        (requests.add(SECOND, Waiting { respond, ended, abort: AbortFlag::default() }), receiver)
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
        assert_eq!(requests.charge(SECOND), SECOND);
        let (_, _second) = begin(&requests);
        assert_eq!(requests.charge(SECOND), SECOND * 3 / 2);
        requests.complete(first);
        assert_eq!(requests.charge(SECOND), SECOND * 3 / 2);
        assert_eq!(Requests::default().charge(SECOND), Duration::ZERO);
    }
}
