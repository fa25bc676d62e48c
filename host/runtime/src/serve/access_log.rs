//! The access log: a line, a span and metrics for each request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Method, Request, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};
use tracing::field::Empty;
use tracing::{Span, error_span};

use super::error_response::ErrorResponse;
use super::handler::Handler;
use crate::cache::text::one_line;
use crate::metrics::{REFUSALS, REQUEST_SECONDS, REQUESTS};
use crate::trace::TraceContext;

/// The longest path in the log, in bytes.
const MAX_PATH: usize = 1024;

/// The longest method in the log, in bytes.
const MAX_METHOD: usize = 32;

/// The access log line and the metrics of a request. Written when it is dropped: when the head of the response is sent,
/// or the client has disconnected.
pub(super) struct AccessLine {
    began: Instant,
    method: Method,
    path: String,
    handler: Option<Arc<Handler>>,
    /// `None` until the head of the response is known.
    pub(super) status: Option<StatusCode>,
    pub(super) trace_id: Option<String>,
}

impl AccessLine {
    pub(super) fn new<B>(request: &Request<B>, handler: Option<Arc<Handler>>) -> Self {
        // Without the query, which may contain secrets.
        let path = one_line(cut(request.uri().path(), MAX_PATH));
        Self { began: Instant::now(), method: request.method().clone(), path, handler, status: None, trace_id: None }
    }

    fn method(&self) -> &str {
        cut(self.method.as_str(), MAX_METHOD)
    }

    fn plugin(&self) -> &str {
        self.handler.as_ref().map_or(NO_PLUGIN, |handler| handler.plugin.name())
    }

    /// The span of the request, with field names of the OpenTelemetry conventions. Its level is error, so that every
    /// logged error has the request as its context.
    pub(super) fn span(&self, context: Option<&TraceContext>) -> Span {
        error_span!(
            target: "larder_host::request",
            "request",
            http.request.method = %self.method(),
            url.path = self.path,
            plugin = self.plugin(),
            trace_id = context.map(TraceContext::trace_id),
            http.response.status_code = Empty,
            otel.kind = Empty,
            otel.status_code = Empty,
        )
    }
}

/// The metrics of the requests of one plugin. They are created once, so that no request looks them up.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    /// By class, in the order of [`CLASSES`].
    requests: [Counter; 5],
    seconds: Histogram,
}

impl RequestMetrics {
    pub(super) fn new(plugin: &str) -> Self {
        Self { requests: CLASSES.map(|class| requests(plugin, class)), seconds: request_seconds(plugin) }
    }

    fn count(&self, status: Option<StatusCode>, took: Duration) {
        let class = class(status);
        let counters = CLASSES.iter().zip(&self.requests);
        counters.filter(|(name, _)| **name == class).for_each(|(_, counter)| counter.increment(1));
        self.seconds.record(took);
    }
}

/// The name of [`AccessLine::plugin`] if no route matches.
const NO_PLUGIN: &str = "-";

/// The classes of a status that a response can have, and `gone` for a client that got none.
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "gone"];

fn class(status: Option<StatusCode>) -> &'static str {
    status.map_or("gone", |status| match status.as_u16() {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    })
}

fn requests(plugin: &str, class: &'static str) -> Counter {
    counter!(REQUESTS.name, "plugin" => plugin.to_owned(), "status" => class)
}

fn request_seconds(plugin: &str) -> Histogram {
    histogram!(REQUEST_SECONDS.name, "plugin" => plugin.to_owned())
}

fn refusals(reason: &'static str) -> Counter {
    counter!(REFUSALS.name, "reason" => reason)
}

/// Counts a request that no plugin answered.
pub(super) fn count_refusal(error: ErrorResponse) {
    if let Some(reason) = error.reason() {
        refusals(reason).increment(1);
    }
}

/// Creates the series of all plugins, classes and reasons with 0: a rate or an alarm sees the first failure only if its
/// series was there before.
pub(super) fn create_series<'a>(plugins: impl IntoIterator<Item = &'a str>) {
    for plugin in plugins.into_iter().chain([NO_PLUGIN]) {
        CLASSES.iter().for_each(|class| requests(plugin, class).increment(0));
        // A histogram exists once it has a handle.
        drop(request_seconds(plugin));
    }
    ErrorResponse::ALL.iter().filter_map(|error| error.reason()).for_each(|reason| refusals(reason).increment(0));
}

/// The beginning of a text of the client, who chooses its length.
fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let (plugin, method) = (self.plugin(), self.method());
        let Self { began, path, status, trace_id, handler, .. } = &*self;
        match handler {
            Some(handler) => handler.metrics.count(*status, began.elapsed()),
            None => {
                requests(plugin, class(*status)).increment(1);
                request_seconds(plugin).record(began.elapsed());
            }
        }
        // The arguments are evaluated only if the line is enabled. The line repeats the fields of the span, so it has
        // none.
        tracing::info!(
            target: "larder_host::access",
            parent: None,
            %method,
            %path,
            status = status.map(|status| status.as_u16()),
            gone = status.is_none().then_some(true),
            milliseconds = began.elapsed().as_micros() as f64 / 1e3,
            plugin = %one_line(plugin),
            trace_id,
        );
    }
}
