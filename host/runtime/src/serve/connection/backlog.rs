//! The unread small frames of an HTTP/2 connection: the host stops reading from the connection before they
//! are too many for h2, which would close it.

// Decision: docs/decisions/0074-small-frames-wait-in-the-socket.md

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::frames::{Cost, MAX_COST_PER_BYTE, cost};

/// What unread frames may cost, in bytes. h2 closes a connection above half of its window. The rest is for frames whose
/// order is not known.
const MAX_COST: usize = super::CONNECTION_WINDOW as usize / 2 - (32 << 10);

/// The host reads again once unread frames cost no more than this, in bytes.
const RESUME_COST: usize = MAX_COST / 2;

/// The least number of bytes that is worth a read.
const LEAST_READ: usize = 1 << 10;

/// How long the host waits for the next small frame of a body that was given up.
const READ_ON: Duration = Duration::from_secs(3);

/// How much of it is read at most, in bytes.
const READ_ON_BYTES: usize = 1 << 20;

/// The unread small frames of one connection, and the bodies that they belong to.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What they cost, or more: h2 discards frames of streams that are reset, and the padding of a frame is not known.
    cost: usize,
    /// True once there were any.
    has_small: bool,
    /// How often the connection was polled.
    turn: u64,
    /// The turn in which the host stopped reading from the connection.
    held_in: Option<u64>,
    reader: Option<Waker>,
    bodies: BTreeMap<u64, Reader>,
    next_body: u64,
}

/// Who reads a body.
#[derive(Debug, Default)]
struct Reader {
    /// True if the body had nothing to read since the host stopped.
    is_dry: bool,
    waker: Option<Waker>,
}

impl State {
    /// How much may be read from the connection.
    fn room(&self) -> usize {
        MAX_COST.saturating_sub(self.cost).checked_div(MAX_COST_PER_BYTE).unwrap_or(0)
    }

    /// The connection's task, if it may read again.
    fn resumed(&mut self) -> Option<Waker> {
        self.held_in?;
        let may_read = self.cost <= RESUME_COST || self.bodies.values().all(|body| body.is_dry);
        if may_read { self.reader.take() } else { None }
    }
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called before each poll of the connection. The requests of the last poll are registered.
    pub(super) fn begin_turn(&self) {
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
    }

    /// How many bytes may be read from the connection now. Pending while too many small frames are unread.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<usize> {
        let mut state = self.lock();
        let Some(held_in) = state.held_in else {
            let room = state.room();
            if room >= LEAST_READ {
                return Poll::Ready(room);
            }
            state.held_in = Some(state.turn);
            state.reader = Some(context.waker().clone());
            let wake = |body: &mut Reader| {
                body.is_dry = false;
                body.waker.take()
            };
            let readers: Vec<Waker> = state.bodies.values_mut().filter_map(wake).collect();
            drop(state);
            readers.into_iter().for_each(Waker::wake);
            // Looked at again in the next turn, even if there is no body.
            context.waker().wake_by_ref();
            return Poll::Pending;
        };
        let is_empty = state.turn != held_in && state.bodies.values().all(|body| body.is_dry);
        if is_empty {
            state.cost = 0;
        }
        if !is_empty && state.cost > RESUME_COST {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.held_in = None;
        state.reader = None;
        Poll::Ready(state.room())
    }

    /// True while nothing is read from the connection.
    fn is_held(&self) -> bool {
        self.lock().held_in.is_some()
    }

    /// Counts frames that were read from the connection.
    pub(super) fn add(&self, cost: Cost) {
        if cost != Cost::default() {
            let mut state = self.lock();
            state.cost = state.cost.saturating_add(cost.added).saturating_sub(cost.removed);
            state.has_small |= cost.added > 0;
        }
    }

    /// Follows a body whose request has arrived.
    pub(super) fn follow(self: &Arc<Self>, body: Incoming) -> FollowedBody {
        if body.is_end_stream() {
            return FollowedBody::new(body, None);
        }
        let mut state = self.lock();
        let id = state.next_body;
        state.next_body = id.wrapping_add(1);
        state.bodies.insert(id, Reader::default());
        drop(state);
        FollowedBody::new(body, Some(Follower { backlog: Arc::clone(self), id }))
    }

    /// Changes the state, and wakes the connection's task if it may read again. What `change` returns is dropped outside
    /// of the lock, because a waker may drop its task.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) {
        let mut state = self.lock();
        let old = change(&mut state);
        let reader = state.resumed();
        drop(state);
        drop(old);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The body of a request, which tells the connection what is read of it.
///
/// If it is dropped before its end and the client sends small frames, a task reads on: h2 counts frames of a body that is
/// dropped, and never takes them off.
#[derive(Debug)]
pub(in crate::serve) struct FollowedBody {
    body: Option<Incoming>,
    follower: Option<Follower>,
    is_given_up: bool,
}

/// A body in the backlog. Dropping it removes the body.
#[derive(Debug)]
struct Follower {
    backlog: Arc<Backlog>,
    id: u64,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.backlog.update(|state| state.bodies.remove(&self.id));
    }
}

impl FollowedBody {
    fn new(body: Incoming, follower: Option<Follower>) -> Self {
        Self { body: Some(body), follower, is_given_up: false }
    }

    /// A body of HTTP/1, which has no frames.
    pub(super) fn of_http1(body: Incoming) -> Self {
        Self::new(body, None)
    }

    /// Reads small frames on. The client learns at a large one, or at the end of the limits, that the body is not wanted.
    async fn read_on(mut self) {
        let mut left = READ_ON_BYTES;
        loop {
            let frame = match timeout(READ_ON, self.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(_) => return,
                // Nothing arrives meanwhile.
                Err(_) if self.follower.as_ref().is_some_and(|follower| follower.backlog.is_held()) => continue,
                Err(_) => return,
            };
            let len = frame.data_ref().map_or(usize::MAX, Bytes::len);
            left = match left.checked_sub(len) {
                Some(rest) if cost(len) > 0 => rest,
                _ => return,
            };
        }
    }
}

impl Drop for FollowedBody {
    fn drop(&mut self) {
        if self.is_given_up || self.body.as_ref().is_none_or(Body::is_end_stream) {
            return;
        }
        let has_small = self.follower.as_ref().is_some_and(|follower| follower.backlog.lock().has_small);
        if has_small && let Ok(runtime) = Handle::try_current() {
            let rest = Self { body: self.body.take(), follower: self.follower.take(), is_given_up: true };
            runtime.spawn(rest.read_on());
        }
    }
}

impl Body for FollowedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        let Some(follower) = &this.follower else { return polled };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                // The last frame of a stream was not counted.
                let is_last = this.body.as_ref().is_none_or(Body::is_end_stream);
                let cost = if is_last { 0 } else { frame.data_ref().map_or(0, |data| cost(data.len())) };
                follower.backlog.update(|state| {
                    state.cost = state.cost.saturating_sub(cost);
                    // More may have arrived since it was.
                    state.bodies.get_mut(&follower.id).and_then(|body| {
                        body.is_dry = false;
                        body.waker.take()
                    })
                });
            }
            Poll::Ready(None | Some(Err(_))) => this.follower = None,
            Poll::Pending => {
                let dry = Reader { is_dry: true, waker: Some(context.waker().clone()) };
                follower.backlog.update(|state| state.bodies.insert(follower.id, dry));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
