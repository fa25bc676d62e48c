//! The body of a request, limited in size.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::answer::Answer;
use super::request_state::RequestState;

/// The body of a request. Reading more than `max` bytes is an error for the plugin.
pub(super) fn limited(body: Incoming, max: u64, answer: &Arc<Answer>, request: &Arc<RequestState>) -> WasiBody {
    // Dropped here, because the stream of HTTP/2 is kept while its body is.
    if body.is_end_stream() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let max_len = usize::try_from(max).unwrap_or(usize::MAX);
    let (answer, request) = (Arc::clone(answer), Arc::clone(request));
    let body = Limited::new(body, max_len);
    ClientBody { body: Some(body), max, _answer: answer, request }.boxed_unsync()
}

/// Tells a failure of the client from one of the plugin.
struct ClientBody {
    /// `None` after an error.
    body: Option<Limited<Incoming>>,
    max: u64,
    /// The connection is in use while a plugin may read from it.
    _answer: Arc<Answer>,
    request: Arc<RequestState>,
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        this.request.set_upload_awaited(polled.is_pending());
        Poll::Ready(match ready!(polled) {
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
            Some(Err(error)) => {
                this.body = None;
                this.request.client_is_gone();
                Some(Err(if error.is::<LengthLimitError>() {
                    Error::HttpRequestBodySize(Some(this.max))
                } else {
                    error.downcast::<hyper::Error>().map_or(Error::HttpProtocolError, |error| Error::from(*error))
                }))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Limited::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Limited::size_hint).unwrap_or_default()
    }
}
