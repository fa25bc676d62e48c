//! Bodies that a plugin writes: of its responses and of its own requests.

// Decision: docs/decisions/0031-a-response-body-is-complete-only-if-the-plugin-is.md

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use wasmtime_wasi_http::{Error, WasiBody};

/// Set when a plugin ends before it has finished its bodies. Without the flag, a truncated body would look complete.
#[derive(Debug, Clone, Default)]
pub(crate) struct AbortFlag(Arc<AtomicBool>);

impl AbortFlag {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A body that a plugin writes. If it ends after the abort flag is set, it ends with an error, which breaks the
/// connection.
pub(crate) struct PluginBody {
    body: WasiBody,
    abort: AbortFlag,
    kind: BodyKind,
}

#[derive(Clone, Copy)]
enum BodyKind {
    Response,
    Request,
}

impl PluginBody {
    /// The body of a plugin's response. If the client disconnects, the plugin's writes fail.
    pub(crate) fn of_response(body: WasiBody, abort: AbortFlag) -> Self {
        Self { body, abort, kind: BodyKind::Response }
    }

    /// The body of a plugin's own request. The rest of a body that is not sent is drained: if its stream were closed,
    /// the plugin would get a write error instead of the response or the error of the request.
    pub(crate) fn of_request(body: WasiBody, abort: AbortFlag) -> Self {
        Self { body, abort, kind: BodyKind::Request }
    }
}

impl Body for PluginBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) if self.abort.is_set() => Poll::Ready(Some(Err(match self.kind {
                BodyKind::Response => Error::HttpResponseIncomplete,
                BodyKind::Request => Error::HttpProtocolError,
            }))),
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

impl Drop for PluginBody {
    fn drop(&mut self) {
        if matches!(self.kind, BodyKind::Request) && !self.body.is_end_stream() {
            drain(std::mem::replace(&mut self.body, empty()));
        }
    }
}

/// Replaces the body of a response to `HEAD` by an empty one. The body is drained, because the plugin's writes would
/// fail if its stream were closed.
pub(crate) fn drained(body: WasiBody) -> WasiBody {
    drain(body);
    empty()
}

fn empty() -> WasiBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Reads and discards the rest of a body, until the plugin finishes it or ends.
fn drain(mut body: WasiBody) {
    // Without a Tokio runtime no plugin is running.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
    }
}
