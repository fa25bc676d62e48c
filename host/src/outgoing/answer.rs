//! The body of an answer to a plugin's request, on its way.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime_wasi_http::Error;

/// A body whose pieces come soon after one another. The request is under way until it is gone.
pub(super) struct Answer {
    body: Incoming,
    between_bytes: Duration,
    /// Runs while somebody waits for a piece, and not while he is busy with the last one.
    patience: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Answer {
    pub(super) fn new(body: Incoming, between_bytes: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self { body, between_bytes, patience: None, _permit: permit }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { body, between_bytes, patience, .. } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            *patience = None;
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|error| {
                    tracing::debug!("an answer to a plugin broke off: {error}");
                    Error::HttpResponseIncomplete
                })
            }));
        }
        let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(*between_bytes)));
        patience.as_mut().poll(context).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
