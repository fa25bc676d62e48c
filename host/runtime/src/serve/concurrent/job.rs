//! A request on its way to an instance.

use hyper::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

use crate::error::Error;
use crate::plugin_body::AbortFlag;
use crate::serve::error_response::ErrorResponse;
use crate::serve::error_text::PluginError;

/// Takes the head of the response, as soon as the plugin returns it.
pub(in crate::serve) type Respond = oneshot::Sender<Result<Response<WasiBody>, NoResponse>>;

/// Why there is no response.
#[derive(Debug)]
pub(in crate::serve) enum NoResponse {
    /// The plugin returned this instead.
    Returned(PluginError),
    /// The request ended before.
    Ended(ErrorResponse),
}

/// Is told how a request ended: after the body of its response. Returns the host's response, if it failed.
pub(in crate::serve) type Ending = Box<dyn FnOnce(Result<(), Error>) -> Option<ErrorResponse> + Send>;

/// A request, and those who wait for it.
pub(in crate::serve) struct Job {
    pub(in crate::serve) request: Request<WasiBody>,
    pub(in crate::serve) waiting: Waiting,
}

/// Those who wait for a request.
pub(in crate::serve) struct Waiting {
    /// When the request is overdue, whichever instance has it.
    pub(in crate::serve) deadline: Instant,
    pub(in crate::serve) respond: Respond,
    pub(in crate::serve) ending: Ending,
    /// Set if the request fails, before its body is dropped.
    pub(in crate::serve) abort: AbortFlag,
}
