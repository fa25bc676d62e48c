//! Bodies on their way: a plugin's, which it may write to the end, and that of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime_wasi_http::{Error, WasiBody};

/// A plugin's body. Where it goes nowhere, or nobody wants the rest of it, that is read away: a plugin that is still
/// writing would see a broken stream, and not the answer or what went wrong.
pub(super) struct Sending(WasiBody);

impl Sending {
    pub(super) fn new(body: WasiBody) -> Self {
        Self(body)
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let body = std::mem::replace(&mut self.0, Empty::new().map_err(|never| match never {}).boxed_unsync());
        read_away(body);
    }
}

/// Takes what is left of a body, until whoever writes it ends or goes.
pub(crate) fn read_away(mut body: WasiBody) {
    // Outside of a runtime nobody writes any longer.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
    }
}

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
