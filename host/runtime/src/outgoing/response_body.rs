//! The body of a response to a plugin's request, with a timeout between its frames.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime_wasi_http::Error;

/// The body of a response. The request counts as running until the body is dropped.
pub(super) struct ResponseBody {
    body: Incoming,
    between_bytes: Duration,
    /// Runs while the plugin waits for a frame, not while it processes one.
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl ResponseBody {
    pub(super) fn new(body: Incoming, between_bytes: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self { body, between_bytes, deadline: None, _permit: permit }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { body, between_bytes, deadline, .. } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            *deadline = None;
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|error| {
                    tracing::debug!("a response to a plugin was interrupted: {error}");
                    Error::HttpResponseIncomplete
                })
            }));
        }
        let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(*between_bytes)));
        deadline.as_mut().poll(context).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
