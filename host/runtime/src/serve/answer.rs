//! The answer to a request on its way to the client: how much of it the client has yet to take.

// Decision: docs/decisions/0061-a-request-counts-until-its-answer-is-taken.md

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;

use super::connection::ConnectionState;
use super::request_state::RequestState;
use crate::write_deadline::MIN_PROGRESS;

/// An answer that is not untaken since any time.
const NEVER: u64 = u64::MAX;

/// One answer, from the arrival of its request until the client has taken all of it or it is given up. The request, its
/// body and each part of the answer hold it.
#[derive(Debug)]
pub(super) struct Answer {
    connection: Arc<ConnectionState>,
    is_http2: bool,
    untaken: Mutex<Untaken>,
    held: OnceLock<Held>,
}

/// The parts of an answer that the client has yet to take. A body and its connection change it at the same time.
#[derive(Debug)]
struct Untaken {
    /// Bytes that hyper has and the socket does not have yet.
    bytes: usize,
    /// Since when the client makes no progress, or [`NEVER`].
    since: u64,
    /// Bytes taken since then.
    progress: usize,
    /// Waits until all is taken.
    waker: Option<Waker>,
}

/// What counts until the answer is dropped.
#[derive(Debug)]
pub(super) enum Held {
    /// The request that a plugin answers.
    Request(Arc<RequestState>),
    /// The body of a response of the host itself.
    Refusal { _permit: OwnedSemaphorePermit },
}

impl Answer {
    pub(super) fn new(connection: Arc<ConnectionState>, is_http2: bool) -> Self {
        Self {
            connection,
            is_http2,
            untaken: Mutex::new(Untaken { bytes: 0, since: NEVER, progress: 0, waker: None }),
            held: OnceLock::new(),
        }
    }

    /// Holds this until the answer is dropped. An answer holds one thing.
    pub(super) fn hold(&self, held: Held) {
        let _second = self.held.set(held);
    }

    fn lock_untaken(&self) -> MutexGuard<'_, Untaken> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the client takes nothing of the parts that are ready, in milliseconds from the epoch of the
    /// connections; the maximum if it has taken all. Known for HTTP/2 only: the socket of HTTP/1 tells it.
    pub(super) fn untaken_since(&self) -> u64 {
        self.lock_untaken().since
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Breaks the connection of HTTP/1 such that the client sees it. hyper resets a stream of HTTP/2.
    pub(super) fn break_off(&self) {
        if !self.is_http2 {
            self.connection.break_off();
        }
    }

    /// Notes that the client takes no more of the answer.
    pub(super) fn client_is_gone(&self) {
        if let Some(Held::Request(request)) = self.held.get() {
            request.client_is_gone();
        }
    }

    fn add(&self, len: usize) {
        let mut untaken = self.lock_untaken();
        if untaken.bytes == 0 && len != 0 && self.is_http2 {
            untaken.progress = 0;
            untaken.since = self.connection.now();
        }
        untaken.bytes = untaken.bytes.saturating_add(len);
    }

    /// The client has taken bytes, or they are given up.
    fn take(&self, len: usize) {
        let mut untaken = self.lock_untaken();
        untaken.bytes = untaken.bytes.saturating_sub(len);
        untaken.progress = untaken.progress.saturating_add(len);
        if untaken.bytes == 0 {
            untaken.since = NEVER;
            let waker = untaken.waker.take();
            drop(untaken);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else if untaken.progress >= MIN_PROGRESS && self.is_http2 {
            untaken.progress = 0;
            untaken.since = self.connection.now();
        }
    }

    /// True if parts of the answer wait for the client.
    pub(super) fn is_untaken(&self) -> bool {
        self.lock_untaken().bytes != 0
    }

    /// Ready once all parts are taken.
    pub(super) fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
        let mut untaken = self.lock_untaken();
        if untaken.bytes == 0 {
            return Poll::Ready(());
        }
        let old = untaken.waker.replace(context.waker().clone());
        drop(untaken);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.end_request();
    }
}

/// Bytes of an answer. The client has taken them once they are written to the socket.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    answer: Arc<Answer>,
}

impl Part {
    pub(super) fn new(bytes: Bytes, answer: &Arc<Answer>) -> Self {
        answer.add(bytes.len());
        Self { bytes, answer: Arc::clone(answer) }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.answer.take(count);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.answer.take(self.bytes.len());
    }
}
