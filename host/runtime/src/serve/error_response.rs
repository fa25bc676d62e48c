//! Responses of the host itself, for requests to which no plugin responds: a status and a line of text.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use wasmtime_wasi_http::WasiBody;

/// The methods that plugins may answer. They may answer others too.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// Why no plugin responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorResponse {
    /// The request has no host, two, or one that is not valid.
    InvalidHost,
    /// The target is neither a path nor an absolute URI.
    InvalidTarget,
    /// The method is one that no plugin can answer: CONNECT or TRACE.
    MethodNotAllowed,
    /// The method is too long.
    UnknownMethod,
    /// Not an error: `OPTIONS *` asks about the host and not about a plugin.
    Options,
    /// No route matches the path.
    NoRoute,
    /// The body is malformed, or the client broke it off.
    BrokenBody,
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
    /// The client sent too little of the body while the plugin waited for it.
    SlowBody,
    /// The host is shutting down, and the plugin was still running after `shutdown_timeout`.
    ShuttingDown,
}

impl ErrorResponse {
    pub(super) const ALL: [Self; 14] = [
        Self::InvalidHost,
        Self::InvalidTarget,
        Self::MethodNotAllowed,
        Self::UnknownMethod,
        Self::Options,
        Self::NoRoute,
        Self::BrokenBody,
        Self::BodyTooLarge,
        Self::Busy,
        Self::PluginBusy,
        Self::Failed,
        Self::TimedOut,
        Self::SlowBody,
        Self::ShuttingDown,
    ];

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidHost | Self::InvalidTarget | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownMethod => StatusCode::NOT_IMPLEMENTED,
            Self::Options => StatusCode::NO_CONTENT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::PluginBusy | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// The `reason` label of the metric of refused requests. `None` if the request was not refused.
    pub(super) fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidHost => "no-host",
            Self::InvalidTarget => "no-target",
            Self::MethodNotAllowed | Self::UnknownMethod => "method",
            Self::Options => return None,
            Self::NoRoute => "no-route",
            Self::BrokenBody => "broken-body",
            Self::BodyTooLarge => "body-too-large",
            Self::Busy => "busy",
            Self::PluginBusy => "plugin-busy",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::SlowBody => "slow-body",
            Self::ShuttingDown => "ending",
        })
    }

    /// The text for the client. It reveals nothing about the plugin or the host.
    fn text(self) -> &'static str {
        match self {
            Self::InvalidHost => "the request has no valid host\n",
            Self::InvalidTarget => "the request has no valid target\n",
            Self::MethodNotAllowed => "method not allowed\n",
            Self::UnknownMethod => "unknown method\n",
            Self::Options => "",
            Self::NoRoute => "no plugin serves this path\n",
            Self::BrokenBody => "the request body is broken\n",
            Self::BodyTooLarge => "the request body is too large\n",
            Self::Busy | Self::PluginBusy => "too many concurrent requests\n",
            Self::Failed => "the plugin failed\n",
            Self::TimedOut => "the plugin timed out\n",
            Self::SlowBody => "the request body did not arrive in time\n",
            Self::ShuttingDown => "the server is shutting down\n",
        }
    }

    /// The response, with its text or with an empty body.
    pub(super) fn response(self, has_text: bool) -> Response<WasiBody> {
        let text = if has_text { self.text() } else { "" };
        let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if self != Self::Options {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
        match self {
            Self::Busy | Self::PluginBusy => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::MethodNotAllowed | Self::Options => drop(headers.insert(ALLOW, HeaderValue::from_static(METHODS))),
            _ => {}
        }
        response
    }
}
