//! Bodies on their way: a plugin's, which it may write to the end, and that of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::body::{Failure, read_away};

/// A plugin's body. Where it goes nowhere, or nobody wants the rest of it, that is read away: a plugin that is still
/// writing would see a broken stream, and not the answer or what went wrong. One that its plugin did not finish before it
/// ended is broken off, so that nobody takes the beginning for the whole.
pub(super) struct Sending {
    body: WasiBody,
    /// The plugin's end.
    ended: Failure,
}

impl Sending {
    pub(super) fn new(body: WasiBody, ended: Failure) -> Self {
        Self { body, ended }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) if self.ended.is_set() => Poll::Ready(Some(Err(Error::HttpProtocolError))),
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

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            let nothing = Empty::new().map_err(|never| match never {}).boxed_unsync();
            read_away(std::mem::replace(&mut self.body, nothing));
        }
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
