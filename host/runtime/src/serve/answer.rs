//! Answers of the host's own, where no plugin gives one: a status and a line of text.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use wasmtime_wasi_http::WasiBody;

/// Why a plugin did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request names no host, or one that is no text.
    InvalidHost,
    /// No plugin has a route that fits the path.
    NoRoute,
    /// The body is longer than `max_request_body`.
    BodyTooLarge,
    /// As many requests as `max_concurrent_requests` run.
    Busy,
    /// The plugin trapped, spent a bound, or gave no answer.
    Failed,
    /// The plugin ran into `timeout`.
    TimedOut,
    /// The host ends, and the plugin ran into `shutdown_timeout`.
    Outcome,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::InvalidHost => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::Outcome => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What the figures call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InvalidHost => "no-host",
            Self::NoRoute => "no-route",
            Self::BodyTooLarge => "body-too-large",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Outcome => "ending",
        }
    }

    /// What the client is told, which is nothing of the plugin's or the operator's.
    fn text(self) -> &'static str {
        match self {
            Self::InvalidHost => "the request names no host\n",
            Self::NoRoute => "nothing is served under this path\n",
            Self::BodyTooLarge => "the body is too large\n",
            Self::Busy => "too many requests are under way\n",
            Self::Failed => "the plugin failed\n",
            Self::TimedOut => "the plugin took too long\n",
            Self::Outcome => "the server is about to end\n",
        }
    }

    pub(super) fn response(self) -> Response<WasiBody> {
        let body = Full::new(Bytes::from_static(self.text().as_bytes())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self == Self::Busy {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
