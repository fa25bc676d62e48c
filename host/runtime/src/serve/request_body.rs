//! The body of a request, limited in size.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use wasmtime_wasi_http::{Error, WasiBody};

/// The body of a request. Reading more than `max` bytes is an error for the plugin.
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
