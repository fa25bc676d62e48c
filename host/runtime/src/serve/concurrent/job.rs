//! A request on its way to an instance.

use hyper::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

use crate::error::Error;
use crate::plugin_body::AbortFlag;
use crate::serve::error_text::PluginError;

pub(super) type Respond = oneshot::Sender<Result<Response<WasiBody>, PluginError>>;

/// A request, and those who wait for it.
pub(in crate::serve) struct Job {
    pub(in crate::serve) request: Request<WasiBody>,
    pub(in crate::serve) waiting: Waiting,
}

/// Those who wait for a request.
#[derive(Debug)]
pub(in crate::serve) struct Waiting {
    /// When the request is overdue, whichever instance has it.
    pub(in crate::serve) deadline: Instant,
    /// The head of the response, as soon as the plugin returns it.
    pub(in crate::serve) respond: Respond,
    /// How the request ended: after the body of its response.
    pub(in crate::serve) ended: oneshot::Sender<Result<(), Error>>,
    /// Set if the request fails, before its body is dropped.
    pub(in crate::serve) abort: AbortFlag,
}

/// A request that an instance is to answer.
pub(super) struct Task {
    pub(super) id: u64,
    pub(super) request: Request<WasiBody>,
}
