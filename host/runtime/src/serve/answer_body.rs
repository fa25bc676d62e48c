//! The body of an answer: it is what its head says, or it breaks off.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;
use wasmtime_wasi_http::{Error, WasiBody};

use super::answer::{Answer, Part};
use super::begin::go_last;

/// How long the head of a response waits for its body. Most bodies are complete by then, and are sent with the head.
const HEAD_DELAY: Duration = Duration::from_millis(1);

/// How often the tasks in the queue go first after that: enough for a plugin to send a short body and its end.
const ROUNDS: usize = 8;

/// A body of at most this many bytes is sent with its head.
const SMALL: usize = 16 << 10;

/// The body of an answer. It breaks off if it has more or fewer bytes than its head says, so that a client does not take
/// a false or truncated answer for a complete one.
pub(super) struct AnswerBody {
    body: WasiBody,
    answer: Arc<Answer>,
    /// What `content-length` says is yet to come.
    left: Option<u64>,
    /// Frames that are not sent yet. The one that completes `content-length` waits until the body has ended well.
    ahead: VecDeque<Bytes>,
    /// Bytes read of the body.
    read: usize,
    /// The length of the whole body, if the host made it.
    hint: SizeHint,
    end: End,
}

/// The end of a body.
enum End {
    NotReached,
    Reached(Option<HeaderMap>),
    Failed(Error),
    Sent,
}

impl AnswerBody {
    /// `length` is the `content-length` of a response whose body is sent.
    pub(super) fn new(body: WasiBody, answer: Arc<Answer>, length: Option<u64>) -> Self {
        let end = if body.is_end_stream() { End::Sent } else { End::NotReached };
        let hint = body.size_hint();
        Self { body, answer, left: length, ahead: VecDeque::new(), read: 0, hint, end }
    }

    /// Reads a small body, or the beginning of a larger one, if it is there within a moment. Head and body are then one
    /// write.
    pub(super) async fn read_ahead(&mut self) {
        let read_ahead = std::future::poll_fn(|context| {
            while self.read < SMALL && matches!(self.end, End::NotReached) {
                ready!(self.poll_body(context));
            }
            Poll::Ready(())
        });
        let mut read_ahead = pin!(read_ahead);
        tokio::select! {
            biased;
            () = &mut read_ahead => {}
            // In a block, so that there is no timer if the body is there.
            () = async {
                sleep(HEAD_DELAY).await;
                // On a busy host the plugin may not have been polled in this time.
                for _ in 0..ROUNDS {
                    go_last().await;
                }
            } => {}
        }
    }

    /// Reads one frame of the body.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.end = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            None => self.ended(None),
            Some(Err(error)) => End::Failed(error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => self.took(bytes),
                Err(frame) => self.ended(frame.into_trailers().ok()),
            },
        };
        Poll::Ready(())
    }

    fn took(&mut self, bytes: Bytes) -> End {
        if let Some(left) = &mut self.left {
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            match left.checked_sub(len) {
                Some(rest) => *left = rest,
                None => return End::Failed(Error::HttpResponseBodySize(Some(len))),
            }
        }
        if !bytes.is_empty() {
            self.read = self.read.saturating_add(bytes.len());
            self.ahead.push_back(bytes);
        }
        End::NotReached
    }

    fn ended(&self, trailers: Option<HeaderMap>) -> End {
        match self.left {
            Some(left) if left != 0 => End::Failed(Error::HttpResponseIncomplete),
            _ => End::Reached(trailers),
        }
    }

    /// The next frame that may be sent.
    fn next(&mut self) -> Option<Part> {
        let is_complete = self.left == Some(0) && !matches!(self.end, End::Reached(_));
        if is_complete && self.ahead.len() == 1 {
            return None;
        }
        self.ahead.pop_front().map(|bytes| Part::new(bytes, &self.answer))
    }

    /// True if hyper may have the end of the body only when all of it is taken. A stream of HTTP/2 can be reset only
    /// before; of a small answer the client takes all at once, or its connection is closed.
    fn waits(&self) -> bool {
        self.answer.is_http2() && self.read > SMALL
    }
}

impl Body for AnswerBody {
    type Data = Part;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Part>, Error>>> {
        let this = &mut *self;
        loop {
            if let Some(part) = this.next() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if matches!(this.end, End::NotReached) {
                ready!(this.poll_body(context));
                continue;
            }
            if matches!(this.end, End::Reached(_)) && this.waits() {
                ready!(this.answer.poll_taken(context));
            }
            return Poll::Ready(match std::mem::replace(&mut this.end, End::Sent) {
                End::Failed(error) => {
                    this.ahead.clear();
                    this.answer.break_off();
                    Some(Err(error))
                }
                End::Reached(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
                End::Sent | End::NotReached => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.end {
            End::Reached(None) => self.ahead.is_empty() && !self.waits(),
            End::Sent => true,
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.answer.client_is_gone();
        }
    }
}
