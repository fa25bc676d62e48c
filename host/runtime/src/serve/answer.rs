//! The answer to a request on its way to the client: how much of it the client has yet to take, and whether it is what
//! its head says.

// Decision: docs/decisions/0061-a-request-counts-until-its-answer-is-taken.md

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error, WasiBody};

use super::connection::{ConnectionState, MIN_PROGRESS};
use super::request_state::RequestState;

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
    fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
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

/// The body of an answer. It breaks off if it has more or fewer bytes than its head says, so that a client does not take
/// a false or truncated answer for a complete one.
pub(super) struct AnswerBody {
    body: WasiBody,
    answer: Arc<Answer>,
    /// What `content-length` says is yet to come.
    left: Option<u64>,
    /// The part that completes `content-length`. It is sent once the body has ended well.
    last: Option<Bytes>,
    end: End,
}

/// The end of a body.
enum End {
    NotReached,
    Reached(Option<HeaderMap>),
    Sent,
    Broken,
}

impl AnswerBody {
    /// `length` is the `content-length` of a response whose body is sent.
    pub(super) fn new(body: WasiBody, answer: Arc<Answer>, length: Option<u64>) -> Self {
        Self { body, answer, left: length, last: None, end: End::NotReached }
    }

    fn part(&self, bytes: Bytes) -> Frame<Part> {
        self.answer.add(bytes.len());
        Frame::data(Part { bytes, answer: Arc::clone(&self.answer) })
    }

    fn break_off(&mut self, error: Error) -> Poll<Option<Result<Frame<Part>, Error>>> {
        self.end = End::Broken;
        if !self.answer.is_http2 {
            self.answer.connection.break_off();
        }
        self.last = None;
        Poll::Ready(Some(Err(error)))
    }

    /// True if hyper has all of the body, or the body has failed by itself.
    fn is_handed_over(&self) -> bool {
        match self.end {
            End::NotReached => self.is_end_stream(),
            // hyper does not ask for the end of an HTTP/1 body after all bytes of its length.
            End::Reached(_) => self.last.is_none() && !(self.answer.is_http2 && self.answer.is_untaken()),
            End::Sent | End::Broken => true,
        }
    }

    /// True if the body has ended with fewer bytes than it has said.
    fn is_short(&self) -> bool {
        self.left.is_some_and(|left| left != 0)
    }
}

impl Body for AnswerBody {
    type Data = Part;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Part>, Error>>> {
        let this = &mut *self;
        loop {
            match &mut this.end {
                End::NotReached => {}
                End::Reached(trailers) => {
                    if let Some(last) = this.last.take() {
                        return Poll::Ready(Some(Ok(this.part(last))));
                    }
                    // A stream of HTTP/2 can be broken off only before hyper has its end.
                    if this.answer.is_http2 && this.answer.poll_taken(context).is_pending() {
                        return Poll::Pending;
                    }
                    let trailers = trailers.take();
                    this.end = End::Sent;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                End::Sent | End::Broken => return Poll::Ready(None),
            }
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) if this.is_short() => return this.break_off(Error::HttpResponseIncomplete),
                Poll::Ready(None) => {
                    this.end = End::Reached(None);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return this.break_off(error),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            let bytes = match frame.into_data() {
                Ok(bytes) => bytes,
                Err(_) if this.is_short() => return this.break_off(Error::HttpResponseIncomplete),
                Err(frame) => {
                    this.end = End::Reached(frame.into_trailers().ok());
                    continue;
                }
            };
            if bytes.is_empty() {
                continue;
            }
            let Some(left) = this.left else { return Poll::Ready(Some(Ok(this.part(bytes)))) };
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            match left.checked_sub(len) {
                None => return this.break_off(Error::HttpResponseBodySize(Some(len))),
                Some(0) => {
                    this.left = Some(0);
                    this.last = Some(bytes);
                }
                Some(left) => {
                    this.left = Some(left);
                    return Poll::Ready(Some(Ok(this.part(bytes))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.end {
            End::NotReached => {
                self.last.is_none() && self.body.is_end_stream() && !(self.answer.is_http2 && self.answer.is_untaken())
            }
            End::Reached(_) => false,
            End::Sent | End::Broken => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.end, &self.last) {
            (End::NotReached, None) => self.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if !self.is_handed_over()
            && let Some(Held::Request(request)) = self.answer.held.get()
        {
            request.client_is_gone();
        }
    }
}
