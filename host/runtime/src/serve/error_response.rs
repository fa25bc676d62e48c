//! Responses of the host itself, for requests to which no plugin responds: a status and a line of text.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use wasmtime_wasi_http::WasiBody;

/// Why no plugin responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorResponse {
    /// The request has no host, or one that is not text.
    InvalidHost,
    /// No route matches the path.
    NoRoute,
    /// The body is longer than `max_request_body`.
    BodyTooLarge,
    /// `max_concurrent_requests` requests are running.
    Busy,
    /// The plugin runs as many requests as its own `max_concurrent_requests` allows.
    PluginBusy,
    /// The plugin trapped, exceeded a limit, or sent no response.
    Failed,
    /// The plugin exceeded `timeout`.
    TimedOut,
    /// The host is shutting down, and the plugin was still running after `shutdown_timeout`.
    ShuttingDown,
}

impl ErrorResponse {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidHost => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::PluginBusy | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The `reason` label of the metric.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InvalidHost => "no-host",
            Self::NoRoute => "no-route",
            Self::BodyTooLarge => "body-too-large",
            Self::Busy => "busy",
            Self::PluginBusy => "plugin-busy",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::ShuttingDown => "ending",
        }
    }

    /// The text for the client. It reveals nothing about the plugin or the host.
    fn text(self) -> &'static str {
        match self {
            Self::InvalidHost => "the request has no valid host\n",
            Self::NoRoute => "no plugin serves this path\n",
            Self::BodyTooLarge => "the request body is too large\n",
            Self::Busy | Self::PluginBusy => "too many concurrent requests\n",
            Self::Failed => "the plugin failed\n",
            Self::TimedOut => "the plugin timed out\n",
            Self::ShuttingDown => "the server is shutting down\n",
        }
    }

    pub(super) fn response(self) -> Response<WasiBody> {
        let body = Full::new(Bytes::from_static(self.text().as_bytes())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if matches!(self, Self::Busy | Self::PluginBusy) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
