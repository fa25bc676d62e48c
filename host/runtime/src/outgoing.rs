//! Outgoing HTTP requests of plugins: only to the hosts of the grant, and limited in number.
//!
//! Each request has a connection of its own and uses HTTP/1.1. The client follows no redirects and uses no proxy, so a
//! request goes to the host of its URI, which is checked.

// Decision: docs/decisions/0036-our-own-client-for-outgoing-requests.md

mod connector;
mod head_limit;
mod response_body;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use metrics::{Counter, counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::runtime::spawn;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode as ConcurrentErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use crate::cache::text::one_line;
use crate::config::{Config, Destination, Grant};
use crate::metrics::OUTGOING;
use crate::plugin_body::{AbortFlag, PluginBody};
use crate::sandbox::Shares;
use crate::trace::{self, TraceContext};
use connector::{Connector, Stream};
use head_limit::{HeadLimit, LimitedStream};
use response_body::ResponseBody;

/// The least buffer that the client accepts, in bytes.
const LEAST_BUFFER: usize = 8 * 1024;

/// The maxima and defaults of the timeouts of a request: to connect, with name lookup and TLS; from there to the head
/// of the response; between two frames of its body. TCP sends its third connection attempt within 10 s, and NAT devices
/// may drop connections that are idle for a minute. `timeout` of `[sandbox]` limits the whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// The HTTP state of a store.
#[derive(Debug)]
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

/// What all instances of a plugin share to send requests.
#[derive(Debug)]
pub(crate) struct Outgoing {
    plugin: String,
    grant: Grant,
    max_requests: usize,
    connector: Connector,
}

#[derive(Debug)]
struct Hooks {
    outgoing: Arc<Outgoing>,
    /// The trace of the request that this instance handles.
    trace: Option<TraceContext>,
    /// Set when this instance ends, before its unfinished bodies are dropped.
    abort: AbortFlag,
    /// One permit for each request of this instance that may run.
    permits: Arc<Semaphore>,
    shares: Shares,
}

/// A request that the grant and the limit allow.
struct Admitted {
    destination: Destination,
    is_secure: bool,
    permit: OwnedSemaphorePermit,
}

/// The timeouts of the steps of one request.
struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

/// Counts a request by its outcome when it is dropped. The outcome is `gone` if the plugin stops waiting.
struct OutcomeCounter {
    outgoing: Arc<Outgoing>,
    span: Span,
    outcome: &'static str,
}

/// The outcomes of a request: the label `outcome` of [`OUTGOING`].
const OUTCOMES: [&str; 6] = ["answered", "denied", "refused", "timed-out", "gone", "failed"];

type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Http {
    pub(crate) fn new(outgoing: &Arc<Outgoing>, shares: Shares) -> Self {
        let permits = Arc::new(Semaphore::new(outgoing.max_requests.min(shares.outgoing_requests())));
        let hooks = Hooks { outgoing: Arc::clone(outgoing), trace: None, abort: AbortFlag::default(), permits, shares };
        let mut ctx = WasiHttpCtx::default();
        ctx.set_field_size_limit(shares.fields());
        Self { ctx, hooks }
    }

    /// Makes the requests of this instance part of the trace.
    pub(crate) fn set_trace(&mut self, trace: Option<TraceContext>) {
        self.hooks.trace = trace;
    }

    /// Aborts the bodies that the instance has not finished.
    pub(crate) fn abort(&self) {
        self.hooks.abort.set();
    }

    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { ctx: &mut self.ctx, table, hooks: &mut self.hooks }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let outgoing = Arc::clone(&self.outgoing);
        let (mut head, body) = request.map(|body| PluginBody::of_request(body, self.abort.clone())).into_parts();
        // Here and not in the task, so that requests are admitted in the order of the calls.
        let admitted = outgoing.admit(&head, &self.permits);
        let span = info_span!(
            target: "larder_host::request",
            "outgoing request",
            http.request.method = %head.method,
            server.address = Empty,
            outcome = Empty,
            otel.kind = Empty,
        );
        let trace = trace::continued(&span, self.trace.as_ref());
        // The buffer of the connection also limits the head of the response.
        let buffer = self.shares.fields_held().max(LEAST_BUFFER);
        let outcome_counter = OutcomeCounter { outgoing: Arc::clone(&outgoing), span: span.clone(), outcome: "gone" };
        let sending = async move {
            let timeouts = Timeouts::new(options.unwrap_or_default());
            let connected = async {
                let Admitted { destination, is_secure, permit } = admitted?;
                Span::current().record("server.address", destination.host());
                rewrite(&mut head, &destination, trace.as_ref())?;
                let connecting = outgoing.connector.connect(&destination, is_secure, timeouts.connect);
                let stream = within(timeouts.connect, connecting, Error::ConnectionTimeout).await?;
                Ok((stream, permit))
            };
            let sent = match connected.await {
                Ok((stream, permit)) => {
                    exchange(stream, Request::from_parts(head, body), &timeouts, permit, buffer).await
                }
                Err(error) => Err(error),
            };
            outcome_counter.end(match &sent {
                Ok(_) => "answered",
                Err(Error::HttpRequestDenied) => "denied",
                Err(Error::ConnectionLimitReached) => "refused",
                Err(Error::ConnectionTimeout | Error::HttpResponseTimeout) => "timed-out",
                Err(_) => "failed",
            });
            sent
        };
        Box::new(sending.instrument(span))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        self.shares.chunk()
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        self.shares.chunk()
    }

    fn p3_error_from_hyper(&mut self, error: &hyper::Error) -> ConcurrentErrorCode {
        tracing::debug!("a request was interrupted: {error}");
        ConcurrentErrorCode::HttpProtocolError
    }

    /// Logs at debug level only: clients may disconnect at any time.
    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        tracing::debug!("a request was interrupted: {error}");
        ErrorCode::HttpProtocolError
    }
}

impl Outgoing {
    pub(crate) fn new(plugin: &str, config: &Config) -> Self {
        let max_requests = config.sandbox.max_outgoing_requests;
        // The series exist from the start, so that a rate sees the first failure.
        OUTCOMES.iter().for_each(|outcome| sent(plugin, outcome).increment(0));
        Self { plugin: plugin.to_owned(), grant: config.grant(plugin), max_requests, connector: Connector::default() }
    }

    /// Admits a request if the grant allows its destination and fewer than the maximum are running.
    fn admit(&self, head: &Parts, permits: &Arc<Semaphore>) -> Result<Admitted, Error> {
        let is_secure = match head.uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(Error::HttpRequestDenied),
        };
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        let destination = Destination::new(authority, if is_secure { 443 } else { 80 });
        let Some(destination) = destination.filter(|destination| self.grant.may_reach(destination)) else {
            tracing::debug!(
                "plugin `{}` may not send requests to `{authority}` (`outgoing_hosts`)",
                one_line(&self.plugin)
            );
            return Err(Error::HttpRequestDenied);
        };
        let permit = Arc::clone(permits).try_acquire_owned().map_err(|_| Error::ConnectionLimitReached)?;
        Ok(Admitted { destination, is_secure, permit })
    }
}

/// Sends a request over the connection, and returns once the head of the response has arrived.
async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<PluginBody>,
    timeouts: &Timeouts,
    permit: OwnedSemaphorePermit,
    buffer: usize,
) -> Result<Sent, Error> {
    // One buffer of the head, and what the connection reads of the body before the head is handed over.
    let limit = HeadLimit::new(buffer.saturating_mul(3));
    let interrupted = |error: hyper::Error| match limit.is_exceeded() {
        true => Error::HttpResponseHeaderSectionSize(None),
        false => interruption(&error),
    };
    let stream = LimitedStream::new(stream, limit.clone());
    let connection = http1::Builder::new().max_buf_size(buffer).handshake(TokioIo::new(stream));
    let (mut sender, connection) = connection.await.map_err(interrupted)?;
    let driving = spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("the connection of a plugin's request failed: {error}");
        }
    });
    let responded = async { sender.send_request(request).await.map_err(interrupted) };
    let response = within(timeouts.first_byte, responded, Error::HttpResponseTimeout).await?;
    limit.lift();
    let response = response.map(|body| ResponseBody::new(body, timeouts.between_bytes, permit).boxed_unsync());
    // Dropped with the body of the response, which closes the connection.
    let driven = async move {
        driving.await;
        Ok(())
    };
    Ok((response, Box::new(driven)))
}

/// Prepares the head for HTTP/1.1: the path alone as the request target, and the headers that the host sets.
fn rewrite(head: &mut Parts, destination: &Destination, trace: Option<&TraceContext>) -> Result<(), Error> {
    head.uri = head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    // The destination that was checked, whatever the plugin has set.
    let host = HeaderValue::try_from(destination.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
    head.headers.insert(HOST, host);
    trace::pass_on(trace, &mut head.headers);
    Ok(())
}

async fn within<T>(limit: Duration, step: impl Future<Output = Result<T, Error>>, late: Error) -> Result<T, Error> {
    tokio::time::timeout(limit, step).await.unwrap_or(Err(late))
}

/// The error of a request that was interrupted before the head of the response. The plugin gets its kind only.
fn interruption(error: &hyper::Error) -> Error {
    tracing::debug!("a plugin's request was interrupted: {error}");
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() || error.is_user() {
        Error::HttpProtocolError
    } else {
        Error::ConnectionTerminated
    }
}

impl Timeouts {
    fn new(options: RequestOptions) -> Self {
        let RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout } = options;
        let capped = |wanted: Option<Duration>, max: Duration| wanted.map_or(max, |wanted| wanted.min(max));
        Self {
            connect: capped(connect_timeout, CONNECT_TIMEOUT),
            first_byte: capped(first_byte_timeout, FIRST_BYTE_TIMEOUT),
            between_bytes: capped(between_bytes_timeout, BETWEEN_BYTES_TIMEOUT),
        }
    }
}

/// The counter of a plugin's requests with one outcome.
fn sent(plugin: &str, outcome: &'static str) -> Counter {
    counter!(OUTGOING.name, "plugin" => plugin.to_owned(), "outcome" => outcome)
}

impl OutcomeCounter {
    fn end(mut self, outcome: &'static str) {
        debug_assert!(OUTCOMES.contains(&outcome), "`{outcome}` is in no series from the start");
        self.outcome = outcome;
    }
}

impl Drop for OutcomeCounter {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome);
        sent(&self.outgoing.plugin, self.outcome).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_can_only_shorten_the_timeouts_of_a_request() {
        let of = |wanted: Option<Duration>| {
            let options =
                RequestOptions { connect_timeout: wanted, first_byte_timeout: wanted, between_bytes_timeout: wanted };
            let Timeouts { connect, first_byte, between_bytes } = Timeouts::new(options);
            [connect, first_byte, between_bytes].map(|timeout| timeout.as_millis())
        };
        assert_eq!(of(None), [10_000, 60_000, 60_000]);
        assert_eq!(of(Some(Duration::from_secs(3_600))), [10_000, 60_000, 60_000]);
        assert_eq!(of(Some(Duration::from_millis(7))), [7, 7, 7]);
    }
}
