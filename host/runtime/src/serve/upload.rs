//! The upload of a request: a task reads it in pieces that are worth a call of the plugin, and gives it up if the client
//! sends too little of it.

// Decision: docs/decisions/0066-an-upload-is-read-in-a-task-of-its-own.md

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use metrics::counter;
use tokio::time::{Instant, Sleep, sleep};

use super::connection::Timeouts;
use super::crowd::Crowd;
use crate::metrics::SLOW_UPLOADS;
use crate::write_deadline::MIN_PROGRESS;

/// The plugin gets a piece of this length at once, in bytes. A smaller one may wait for more.
const PIECE: usize = 4 << 10;

/// The shortest time between two small pieces. A client chooses how small its frames are, and each piece is a call of the
/// plugin.
const PIECE_INTERVAL: Duration = Duration::from_millis(1);

/// What is read before the plugin asks for it, in bytes. One frame more may be.
const MAX_AHEAD: usize = 16 << 10;

/// The same while frames are smaller than [`TINY`]. All else that arrives on the connection waits while about 1,900 of
/// them are unread, so more are read: as many as the first window of a stream has room for.
const MAX_AHEAD_TINY: usize = 64 << 10;

/// A frame below this costs h2 more than its bytes, in bytes.
const TINY: usize = 256;

/// The frames that are read before other tasks run.
const MAX_FRAMES: usize = 1024;

/// How often the time of an awaited upload is looked at. A look counts no more than this, so that a host that does not
/// get to its work does not blame the client.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What hyper says if reading fails.
pub(super) type ReadError = Box<dyn Error + Send + Sync>;

/// The bytes between the task that reads an upload and the plugin.
#[derive(Debug)]
pub(super) struct Upload(Mutex<State>);

#[derive(Debug)]
struct State {
    /// A large frame, which is not copied.
    first: Bytes,
    /// Small frames, which follow it.
    rest: BytesMut,
    is_tiny: bool,
    end: Option<UploadEnd>,
    /// When the plugin may get a small piece.
    next_piece: Instant,
    plugin: Option<Waker>,
    task: Option<Waker>,
    /// Since when the plugin waits for the client, or since the last look.
    awaited_since: Option<Instant>,
    /// How long the plugin has waited since the client last made progress.
    waited: Duration,
    /// The plugin has waited since the last look.
    has_waited: bool,
    /// Bytes received since the client last made progress.
    progress: usize,
}

/// The end of an upload.
#[derive(Debug)]
pub(super) enum UploadEnd {
    Complete(Option<HeaderMap>),
    /// The client sent too little while the plugin waited.
    TooSlow,
    Failed(ReadError),
}

/// What the plugin gets.
#[derive(Debug)]
pub(super) enum Received {
    Piece(Bytes),
    End(UploadEnd),
}

impl State {
    fn len(&self) -> usize {
        self.first.len().saturating_add(self.rest.len())
    }

    /// True if the plugin may have what is there.
    fn is_due(&self, now: Instant) -> bool {
        let len = self.len();
        len >= PIECE || self.end.is_some() || len > 0 && now >= self.next_piece
    }

    /// True if no more may be read.
    fn is_full(&self) -> bool {
        self.len() >= if self.is_tiny { MAX_AHEAD_TINY } else { MAX_AHEAD }
    }

    fn take(&mut self) -> Bytes {
        match self.first.is_empty() {
            true => self.rest.split().freeze(),
            false => std::mem::take(&mut self.first),
        }
    }

    fn add(&mut self, bytes: Bytes) {
        self.progress = self.progress.saturating_add(bytes.len());
        if self.progress >= MIN_PROGRESS {
            self.progress = 0;
            self.waited = Duration::ZERO;
            // The current wait begins again.
            self.awaited_since = self.awaited_since.map(|_| Instant::now());
        }
        self.is_tiny = bytes.len() < TINY;
        match self.len() == 0 && bytes.len() >= PIECE {
            true => self.first = bytes,
            false => self.rest.extend_from_slice(&bytes),
        }
    }

    /// Counts the time since the plugin began to wait, or since the last look.
    fn count_wait(&mut self, now: Instant) {
        if let Some(since) = self.awaited_since.take() {
            let waited = now.saturating_duration_since(since).min(LOOK_INTERVAL);
            self.waited = self.waited.saturating_add(waited);
            self.has_waited = true;
        }
    }
}

impl Upload {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            first: Bytes::new(),
            rest: BytesMut::new(),
            is_tiny: false,
            end: None,
            next_piece: Instant::now(),
            plugin: None,
            task: None,
            awaited_since: None,
            waited: Duration::ZERO,
            has_waited: false,
            progress: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the plugin waits for bytes of the client.
    pub(super) fn is_awaited(&self) -> bool {
        self.lock().awaited_since.is_some()
    }

    /// The next piece for the plugin, or the end, which is returned once.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Received> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.len() == 0
            && let Some(end) = state.end.take()
        {
            return Poll::Ready(Received::End(end));
        }
        let was_full = state.is_full();
        let part = if state.is_due(now) {
            state.count_wait(now);
            state.next_piece = now.checked_add(PIECE_INTERVAL).unwrap_or(now);
            Poll::Ready(Received::Piece(state.take()))
        } else {
            state.awaited_since.get_or_insert(now);
            Poll::Pending
        };
        let waker = part.is_pending().then(|| context.waker().clone());
        let old = std::mem::replace(&mut state.plugin, waker);
        // The task pauses while much is there, and sets a timer for a small piece that is waited for.
        let is_wanted = was_full || part.is_pending() && state.len() > 0;
        let task = if is_wanted { state.task.take() } else { None };
        drop(state);
        drop(old);
        if let Some(task) = task {
            task.wake();
        }
        part
    }

    /// True if more may be read. Else the task is woken once the plugin takes a piece.
    fn has_room(&self, context: &Context<'_>) -> bool {
        let mut state = self.lock();
        let is_full = state.is_full();
        if is_full {
            state.task = Some(context.waker().clone());
        }
        !is_full
    }

    /// Adds what hyper returned. True if it was the end.
    fn add(&self, frame: Option<Result<Frame<Bytes>, ReadError>>) -> bool {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(bytes))) => {
                self.lock().add(bytes);
                return false;
            }
            Some(Ok(Err(frame))) => self.end(UploadEnd::Complete(frame.into_trailers().ok())),
            Some(Err(error)) => self.end(UploadEnd::Failed(error)),
            None => self.end(UploadEnd::Complete(None)),
        }
        true
    }

    fn end(&self, end: UploadEnd) {
        let mut state = self.lock();
        state.end = Some(end);
        state.awaited_since = None;
        let plugin = state.plugin.take();
        drop(state);
        if let Some(plugin) = plugin {
            plugin.wake();
        }
    }

    /// Wakes the plugin if it may have what is there. Returns when it may, if it waits for that.
    fn hand_over(&self, context: &Context<'_>) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        let (plugin, due) = match state.is_due(now) {
            true => {
                state.count_wait(now);
                (state.plugin.take(), None)
            }
            false => (None, (state.len() > 0 && state.plugin.is_some()).then_some(state.next_piece)),
        };
        let old = state.task.replace(context.waker().clone());
        drop(state);
        drop(old);
        if let Some(plugin) = plugin {
            plugin.wake();
        }
        due
    }

    /// Counts the time that the plugin has waited. True if it is too long.
    fn is_too_slow(&self, rule: &Rule) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if state.awaited_since.is_some() {
            state.count_wait(now);
            state.awaited_since = Some(now);
        }
        let has_waited = std::mem::take(&mut state.has_waited);
        let is_crowded = || state.waited >= rule.timeouts.crowded && rule.crowd.is_crowded();
        has_waited && (state.waited >= rule.timeouts.write || is_crowded())
    }
}

/// When an upload is too slow.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) timeouts: Timeouts,
    pub(super) crowd: Arc<Crowd>,
}

/// Reads a body until its end, or until it is too slow.
pub(super) async fn read<B>(body: B, upload: Arc<Upload>, rule: Rule)
where
    B: Body<Data = Bytes, Error = ReadError>,
{
    let (mut body, mut look) = (pin!(body), pin!(sleep(LOOK_INTERVAL)));
    let mut piece = pin!(sleep(PIECE_INTERVAL));
    poll_fn(|context| {
        let mut frames = 0_usize;
        while upload.has_room(context) {
            if frames == MAX_FRAMES {
                context.waker().wake_by_ref();
                break;
            }
            frames = frames.saturating_add(1);
            let Poll::Ready(frame) = body.as_mut().poll_frame(context) else { break };
            if upload.add(frame) {
                return Poll::Ready(());
            }
            if body.is_end_stream() {
                upload.end(UploadEnd::Complete(None));
                return Poll::Ready(());
            }
        }
        while let Some(due) = upload.hand_over(context) {
            if due != piece.deadline() {
                piece.as_mut().reset(due);
            }
            if piece.as_mut().poll(context).is_pending() {
                break;
            }
        }
        while look.as_mut().poll(context).is_ready() {
            if upload.is_too_slow(&rule) {
                counter!(SLOW_UPLOADS.name).increment(1);
                upload.end(UploadEnd::TooSlow);
                return Poll::Ready(());
            }
            set(look.as_mut(), LOOK_INTERVAL);
        }
        Poll::Pending
    })
    .await;
}

fn set(timer: Pin<&mut Sleep>, delay: Duration) {
    let now = Instant::now();
    timer.reset(now.checked_add(delay).unwrap_or(now));
}

#[cfg(test)]
mod tests;
