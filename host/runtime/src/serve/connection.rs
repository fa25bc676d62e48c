//! One accepted connection, with its deadlines.
//!
//! Each connection has one timer, which is checked against the times of the last events. No request and no frame sets
//! a timer.

// Decision: docs/decisions/0060-a-connection-has-deadlines-of-its-own.md

mod backlog;
mod frames;
mod io;
mod open;
mod streams;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::answer::Answer;
use super::answer_body::AnswerBody;
use crate::metrics::{CONNECTIONS_CLOSED, UNTAKEN_ANSWERS};
use crate::sandbox::MAX_HEAD;
use backlog::Backlog;
pub(super) use backlog::FollowedBody;
use io::{Reset, WatchedIo};
pub(super) use open::{OpenConnection, OpenConnections};
use streams::StreamExecutor;

/// The requests that one HTTP/2 connection may have open at a time.
const MAX_STREAMS: u32 = 200;

/// What an HTTP/2 client may send of one request's body before the plugin reads it, in bytes.
const STREAM_WINDOW: u32 = 64 << 10;

/// What an HTTP/2 client may send of all bodies before plugins read them, in bytes.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What the host buffers of one answer for an HTTP/2 client, in bytes.
const SEND_BUFFER: usize = 64 << 10;

/// The time of an event that has not happened, in milliseconds.
const NEVER: u64 = u64::MAX;

/// The deadlines of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// How long a connection may be open without a complete request head, before the first request or between two. Also
    /// how long the answer to a ping of HTTP/2 may take.
    pub(super) head: Duration,
    /// How long a client may take for each 8 KiB of an answer that is ready for it, and of an upload that a plugin waits
    /// for.
    pub(super) write: Duration,
    /// The same as `head` and, for an answer, as `write`, once the connection is to close.
    pub(super) closing: Duration,
    /// The same as `write`, if new requests find no place because of it.
    pub(super) crowded: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let long = Duration::from_secs(30);
        Self { head: long, write: long, closing: Duration::from_secs(3), crowded: Duration::from_secs(5) }
    }
}

/// Why the host closes a connection. The name is the `reason` label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    HeadTimeout,
    Idle,
    WriteTimeout,
    OverLimit,
    NoRoom,
    Malformed,
}

impl CloseReason {
    const ALL: [Self; 6] =
        [Self::HeadTimeout, Self::Idle, Self::WriteTimeout, Self::OverLimit, Self::NoRoom, Self::Malformed];

    fn count(self, connections: u64) {
        let name = match self {
            Self::HeadTimeout => "head-timeout",
            Self::Idle => "idle",
            Self::WriteTimeout => "write-timeout",
            Self::OverLimit => "over-limit",
            Self::NoRoom => "no-room",
            Self::Malformed => "malformed",
        };
        counter!(CONNECTIONS_CLOSED.name, "reason" => name).increment(connections);
    }
}

/// What the owner of all connections wants of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Wish {
    None,
    /// Close, if no request is in flight: another connection needs the room.
    MakeRoom,
    /// Close, because an answer is not taken: new requests need the place of its request.
    GiveUp,
    /// Finish the requests in flight, and close.
    ShutDown,
}

/// The state of a connection that its parts share: the task, the I/O, the requests, and the owner of all connections.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// All times below are in milliseconds from here. The same for all connections.
    epoch: Instant,
    /// Requests whose body or answer is not finished.
    active: AtomicUsize,
    /// Since when there is no request.
    idle_since: AtomicU64,
    /// Since when a write is pending, or [`NEVER`].
    blocked_since: AtomicU64,
    /// True once a request has arrived.
    has_served: AtomicBool,
    /// True if bytes have arrived after the head of the last request.
    has_unread: AtomicBool,
    is_http2: AtomicBool,
    /// True if the client must not take what it has got for a whole answer.
    is_broken: AtomicBool,
    wish: AtomicU8,
    wished: Notify,
    streams: Mutex<Streams>,
    /// The small frames of HTTP/2 that are unread.
    backlog: Arc<Backlog>,
}

/// The streams of HTTP/2.
#[derive(Debug, Default)]
struct Streams {
    /// The answer whose stream hyper is about to spawn.
    next: Option<Arc<Answer>>,
    open: Vec<(std::sync::Weak<Answer>, AbortHandle)>,
}

/// What a look at the times says.
enum Due {
    /// Nothing before this time.
    At(Instant),
    Idle,
    Blocked,
}

impl ConnectionState {
    fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            active: AtomicUsize::new(0),
            idle_since: AtomicU64::new(millis(epoch.elapsed())),
            blocked_since: AtomicU64::new(NEVER),
            has_served: AtomicBool::new(false),
            has_unread: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            wish: AtomicU8::new(Wish::None as u8),
            wished: Notify::new(),
            streams: Mutex::default(),
            backlog: Arc::default(),
        }
    }

    /// Milliseconds since the epoch of the connections.
    pub(super) fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    /// Registers a request. It ends when the last handle of its answer is dropped.
    fn begin_request(self: &Arc<Self>, version: Version) -> Arc<Answer> {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.has_served.store(true, Ordering::Relaxed);
        self.has_unread.store(false, Ordering::Relaxed);
        let is_http2 = version == Version::HTTP_2;
        let answer = Arc::new(Answer::new(Arc::clone(self), is_http2));
        if is_http2 {
            self.lock_streams().next = Some(Arc::clone(&answer));
        }
        answer
    }

    /// Called by the answer when it is dropped.
    pub(super) fn end_request(&self) {
        // In this order: a look at both must not see an idle connection with an old time.
        self.idle_since.store(self.now(), Ordering::Release);
        self.active.fetch_sub(1, Ordering::AcqRel);
    }

    /// Ends the connection with a reset. Without one, an answer of HTTP/1.0, which has no length, looks whole.
    pub(super) fn break_off(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    fn idle_since(&self) -> u64 {
        self.idle_since.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0
    }

    fn lock_streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish) {
        self.wish.store(wish as u8, Ordering::Release);
        self.wished.notify_one();
    }

    /// Forgets a wish, unless another one has replaced it.
    fn withdraw(&self, wish: Wish) {
        let (wish, none) = (wish as u8, Wish::None as u8);
        let _replaced = self.wish.compare_exchange(wish, none, Ordering::AcqRel, Ordering::Acquire);
    }

    fn wishes(&self, wish: Wish) -> bool {
        self.wish.load(Ordering::Acquire) == wish as u8
    }

    /// Resets the streams of HTTP/2 of which the client has taken nothing for this long. Returns when the next one is
    /// due, or `None` if the connection must be closed: a stream that has its end cannot be reset.
    fn reset_untaken(&self, now: u64, limit: u64) -> Option<u64> {
        let (mut next, mut can_reset) = (NEVER, true);
        self.lock_streams().open.retain(|(answer, stream)| {
            let Some(answer) = answer.upgrade() else { return false };
            let due = answer.untaken_since().saturating_add(limit);
            if due <= now {
                counter!(UNTAKEN_ANSWERS.name).increment(1);
                can_reset &= !stream.is_finished();
                // Drops the stream, which resets it.
                stream.abort();
                return false;
            }
            next = next.min(due);
            true
        });
        can_reset.then_some(next)
    }

    /// Gives up the answers of which the client has taken nothing for this long.
    fn give_up_untaken(&self, limit: Duration) {
        let (now, limit) = (self.now(), millis(limit));
        let can_reset = self.reset_untaken(now, limit).is_some();
        if !can_reset || self.blocked_since.load(Ordering::Acquire).saturating_add(limit) <= now {
            self.wish(Wish::GiveUp);
        }
    }

    /// Breaks off the answers of HTTP/2 that the client does not take, and returns what else is due.
    fn due(&self, timeouts: &Timeouts) -> Due {
        let now = self.now();
        let (head, write) = match self.wishes(Wish::ShutDown) {
            true => (millis(timeouts.closing), millis(timeouts.closing)),
            false => (millis(timeouts.head), millis(timeouts.write)),
        };
        let mut next = now.saturating_add(head.min(write));
        let blocked = self.blocked_since.load(Ordering::Acquire).saturating_add(write);
        if blocked <= now {
            return Due::Blocked;
        }
        next = next.min(blocked);
        if self.is_idle() {
            let idle = self.idle_since().saturating_add(head);
            if idle <= now {
                return Due::Idle;
            }
            next = next.min(idle);
        }
        // The socket of HTTP/1 is blocked if an answer is not taken.
        let Some(untaken) = self.reset_untaken(now, write) else { return Due::Blocked };
        next = next.min(untaken);
        // A millisecond later: times are rounded down.
        let wait = Duration::from_millis(next.saturating_sub(now).saturating_add(1));
        Due::At(Instant::now().checked_add(wait).unwrap_or_else(Instant::now))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// Serves the requests of a connection until it is closed by either side, or misses a deadline.
pub(super) async fn serve<I, F, R>(io: I, open: OpenConnection, timeouts: Timeouts, respond: F)
where
    I: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    F: Fn(Request<FollowedBody>, Arc<Answer>) -> R,
    R: Future<Output = Response<AnswerBody>> + Send + 'static,
{
    let state = Arc::clone(open.state());
    let service = service_fn(|request: Request<Incoming>| {
        let answer = state.begin_request(request.version());
        let request = match answer.is_http2() {
            true => request.map(|body| state.backlog.follow(body)),
            false => request.map(FollowedBody::of_http1),
        };
        let response = respond(request, answer);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let builder = builder(&state, timeouts);
    let io = TokioIo::new(WatchedIo::new(io, Arc::clone(&state)));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut timer = pin!(sleep(timeouts.head.min(timeouts.write)));
    // Set once the connection finishes what it has begun.
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|context| {
                state.backlog.begin_turn();
                connection.as_mut().poll(context)
            }) => {
                if let Err(error) = ended {
                    let http = error.downcast_ref::<hyper::Error>();
                    if http.is_some_and(hyper::Error::is_parse) {
                        CloseReason::Malformed.count(1);
                    }
                    tracing::debug!("a connection failed: {error}");
                }
                return;
            }
            () = state.wished.notified() => {
                if state.wishes(Wish::GiveUp) {
                    state.break_off();
                    return CloseReason::WriteTimeout.count(1);
                }
                if state.wishes(Wish::MakeRoom) {
                    if state.is_idle() {
                        return CloseReason::OverLimit.count(1);
                    }
                    state.withdraw(Wish::MakeRoom);
                    open.stays();
                }
                if state.wishes(Wish::ShutDown) {
                    if !is_closing {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    // The deadlines are shorter from now on.
                    timer.as_mut().reset(Instant::now());
                }
            }
            () = timer.as_mut() => match state.due(&timeouts) {
                Due::At(next) => timer.as_mut().reset(next),
                Due::Blocked => {
                    // Without a reset, the system keeps what it has buffered for the client.
                    state.break_off();
                    return CloseReason::WriteTimeout.count(1);
                }
                Due::Idle if is_closing => return,
                Due::Idle => {
                    match state.has_served.load(Ordering::Relaxed) {
                        true => CloseReason::Idle.count(1),
                        false => CloseReason::HeadTimeout.count(1),
                    }
                    if !state.is_http2.load(Ordering::Relaxed) {
                        return;
                    }
                    // The client learns that its next request is not lost but was not taken.
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    timer.as_mut().reset(Instant::now().checked_add(timeouts.closing).unwrap_or_else(Instant::now));
                }
            },
        }
    }
}

fn builder(state: &Arc<ConnectionState>, timeouts: Timeouts) -> auto::Builder<StreamExecutor> {
    let mut builder = auto::Builder::new(StreamExecutor::new(Arc::clone(state)));
    // A client may close its side after its request, and wait for the answer.
    builder.http1().half_close(true).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(timeouts.head)
        .keep_alive_timeout(timeouts.head)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    builder
}
