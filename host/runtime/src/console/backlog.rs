//! The output of one run that is queued and not yet written. A run waits for room instead of losing output.

use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The queued output of one run on one stream.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in the queue and in the writer's hands.
    queued: usize,
    /// The reader has closed the pipe. Stays set, as for any program that writes there.
    is_closed: bool,
    /// Any other error of a write that is not yet reported.
    error: Option<io::Error>,
    wakers: Vec<Waker>,
}

/// More tasks than this do not wait for one run: older wakers are woken early, so that the list stays short.
const MAX_WAKERS: usize = 16;

impl Backlog {
    /// The maximum of queued bytes. Enough to keep the writer busy while the plugin prints.
    pub(crate) const MAX: usize = 64 * 1024;

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room for further bytes. If `is_flushing`, there is none before everything is written.
    ///
    /// # Errors
    ///
    /// That of an earlier write.
    pub(crate) fn room(&self, is_flushing: bool) -> io::Result<usize> {
        self.state().room(is_flushing)
    }

    /// Reports an error of an earlier write.
    ///
    /// # Errors
    ///
    /// That error.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.room(false).map(drop)
    }

    /// True if streams of the run have used the same room at the same time, again and again.
    pub(crate) fn is_overfull(&self) -> bool {
        self.state().queued >= Self::MAX.saturating_mul(4)
    }

    /// Waits until [`Backlog::room`] is not 0 or fails.
    pub(crate) async fn ready(&self, is_flushing: bool) {
        poll_fn(|context| self.poll_ready(context, is_flushing)).await;
    }

    pub(crate) fn poll_ready(&self, context: &mut Context<'_>, is_flushing: bool) -> Poll<()> {
        let mut state = self.state();
        if state.is_closed || state.error.is_some() || state.has_room(is_flushing) {
            return Poll::Ready(());
        }
        let mut early = Vec::new();
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            if state.wakers.len() >= MAX_WAKERS {
                early = std::mem::take(&mut state.wakers);
            }
            state.wakers.push(context.waker().clone());
        }
        drop(state);
        early.into_iter().for_each(Waker::wake);
        Poll::Pending
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    ///
    /// That of the write.
    pub(crate) async fn written(&self) -> io::Result<()> {
        self.ready(true).await;
        self.check()
    }

    /// Counts queued bytes.
    pub(super) fn add(&self, bytes: usize) {
        let mut state = self.state();
        state.queued = state.queued.saturating_add(bytes);
    }

    /// Takes note that queued bytes were written, or could not be written.
    pub(super) fn complete(&self, bytes: usize, error: Option<&io::Error>) {
        let mut state = self.state();
        state.queued = state.queued.saturating_sub(bytes);
        match error {
            None => {}
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => state.is_closed = true,
            Some(error) => state.error = Some(copy(error)),
        }
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn has_room(&self, is_flushing: bool) -> bool {
        if is_flushing { self.queued == 0 } else { self.queued < Backlog::MAX }
    }

    fn room(&mut self, is_flushing: bool) -> io::Result<usize> {
        if self.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        Ok(if self.has_room(is_flushing) { Backlog::MAX.saturating_sub(self.queued) } else { 0 })
    }
}

/// An error with the same code of the operating system. The original is for the other runs of the same write.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
