//! Bodies on their way: a request's, up to its limit, and a plugin's answer, whole or broken off.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::body::{Failure, read_away};

/// A request's body, which is an error to the plugin beyond `max` bytes.
pub(super) fn limited(body: Incoming, max: u64) -> WasiBody {
    let max_len = usize::try_from(max).unwrap_or(usize::MAX);
    Limited::new(body, max_len)
        .map_err(move |error| {
            if error.is::<LengthLimitError>() {
                return Error::HttpRequestBodySize(Some(max));
            }
            error.downcast::<hyper::Error>().map_or(Error::HttpProtocolError, |error| Error::from(*error))
        })
        .boxed_unsync()
}

/// No body in place of one that the client did not ask for. The plugin still writes its own to the end, as one whose
/// stream is closed under it would fail.
pub(super) fn left_unsent(body: WasiBody) -> WasiBody {
    read_away(body);
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A plugin's answer. Where the plugin fails before the end, the connection breaks: the body alone would end there as if
/// it were whole.
pub(super) struct Answer {
    body: WasiBody,
    failure: Failure,
}

impl Answer {
    pub(super) fn new(body: WasiBody, failure: Failure) -> Self {
        Self { body, failure }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) if self.failure.is_set() => Poll::Ready(Some(Err(Error::HttpResponseIncomplete))),
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
