//! The body of a request, limited in size and in the time that the client may take for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, WasiBody};

use super::answer::Answer;
use super::connection::FollowedBody;
use super::error_response::ErrorResponse;
use super::request_state::RequestState;
use super::upload::{self, ReadError, Received, Rule, UploadEnd};

/// The body of a request. Reading more than `max` bytes is an error for the plugin.
pub(super) fn limited(
    body: FollowedBody,
    max: u64,
    rule: Rule,
    answer: &Arc<Answer>,
    request: &Arc<RequestState>,
) -> WasiBody {
    // Dropped here, because the stream of HTTP/2 is kept while its body is.
    if body.is_end_stream() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let max_len = usize::try_from(max).unwrap_or(usize::MAX);
    let (answer, request) = (Arc::clone(answer), Arc::clone(request));
    let is_http2 = answer.is_http2();
    let reading = Reading::NotBegun { body: Limited::new(body, max_len), rule };
    let mut body = ClientBody { reading, max, _answer: answer, request };
    if is_http2 {
        // h2 has a limit on small frames that are not read, and no plugin reads within its first moment.
        body.begin();
    }
    body.boxed_unsync()
}

/// Tells a failure of the client from one of the plugin.
struct ClientBody<B> {
    reading: Reading<B>,
    max: u64,
    /// The connection is in use while a plugin may read from it.
    _answer: Arc<Answer>,
    request: Arc<RequestState>,
}

/// Reading of HTTP/1 begins when the plugin first asks. A client that expects `100 Continue` is then told to send its
/// body.
enum Reading<B> {
    NotBegun { body: B, rule: Rule },
    Begun { _task: AbortOnDropHandle<()> },
    Ended,
}

impl<B> ClientBody<B>
where
    B: Body<Data = Bytes, Error = ReadError> + Send + 'static,
{
    /// Begins to read, if that has not begun.
    fn begin(&mut self) {
        self.reading = match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::NotBegun { body, rule } => {
                let task = tokio::spawn(upload::read(body, Arc::clone(self.request.upload()), rule));
                Reading::Begun { _task: AbortOnDropHandle::new(task) }
            }
            begun => begun,
        };
    }

    /// Notes that the client is the reason for the failure.
    fn failed(&self, response: ErrorResponse) {
        self.request.body_failed(response);
        self.request.client_is_gone();
    }

    fn ended(&mut self, end: UploadEnd) -> Option<Result<Frame<Bytes>, Error>> {
        self.reading = Reading::Ended;
        match end {
            UploadEnd::Complete(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            UploadEnd::TooSlow => {
                self.failed(ErrorResponse::SlowBody);
                Some(Err(Error::ConnectionReadTimeout))
            }
            UploadEnd::Failed(error) if error.is::<LengthLimitError>() => {
                self.failed(ErrorResponse::BodyTooLarge);
                Some(Err(Error::HttpRequestBodySize(Some(self.max))))
            }
            UploadEnd::Failed(error) => {
                self.failed(ErrorResponse::BrokenBody);
                let error = error.downcast::<hyper::Error>();
                Some(Err(error.map_or(Error::HttpProtocolError, |error| Error::from(*error))))
            }
        }
    }
}

impl<B> Body for ClientBody<B>
where
    B: Body<Data = Bytes, Error = ReadError> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        this.begin();
        if matches!(this.reading, Reading::Ended) {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(this.request.upload().poll(context)) {
            Received::Piece(bytes) => Some(Ok(Frame::data(bytes))),
            Received::End(end) => this.ended(end),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.reading, Reading::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reading {
            Reading::NotBegun { body, .. } => body.size_hint(),
            Reading::Begun { .. } => SizeHint::default(),
            Reading::Ended => SizeHint::with_exact(0),
        }
    }
}
