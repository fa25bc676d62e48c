//! A plugin's own HTTP requests: to the hosts that it is granted, so many at a time, and to nowhere else.
//!
//! A connection for each request, spoken in HTTP/1.1. No redirect is followed and no proxy asked, so where a request goes
//! is what its URI says, and that is what is checked.

// Decision: docs/decisions/0036-our-own-client-for-outgoing-requests.md

mod body;
mod connector;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::runtime::spawn;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use crate::body::Failure;
use crate::config::{Config, Destination, Grant};
use crate::error::one_line;
use crate::metrics as listed;
use crate::trace::{self, TraceContext};
use body::{Answer, Sending};
use connector::{Connector, Stream};

/// How much of an answer, or of the head of one that a plugin receives, is under way at a time, in bytes: there are many.
const CHUNK: usize = 64 * 1024;

/// The longest that a plugin may wait for each step, and does where it does not say: until the connection stands, with
/// lookup and TLS; from there to the head of the answer; between two pieces of its body. Whoever does not connect within
/// three tries of TCP will not, and after a minute of silence what stands between hosts forgets a connection. `timeout` of
/// `[sandbox]` ends all of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// What a store holds of HTTP.
#[derive(Debug)]
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

/// What all instances of a plugin need to send requests.
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
    /// The trace that this instance works for.
    trace: Option<TraceContext>,
    /// Set when this instance ends, before what it was writing does.
    ended: Failure,
    /// One for each request of this instance that may be under way.
    permits: Arc<Semaphore>,
}

/// A request that may be sent.
struct Admitted {
    destination: Destination,
    is_secure: bool,
    permit: OwnedSemaphorePermit,
}

/// How long the steps of one request may take.
struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

/// Counts a request by what came of it: one that is dropped before that is known is `gone`.
struct Counted {
    outgoing: Arc<Outgoing>,
    span: Span,
    outcome: &'static str,
}

type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Http {
    pub(crate) fn new(outgoing: &Arc<Outgoing>) -> Self {
        let permits = Arc::new(Semaphore::new(outgoing.max_requests));
        let hooks = Hooks { outgoing: Arc::clone(outgoing), trace: None, ended: Failure::default(), permits };
        Self { ctx: WasiHttpCtx::default(), hooks }
    }

    /// The requests of this instance are part of the trace.
    pub(crate) fn set_trace(&mut self, trace: Option<TraceContext>) {
        self.hooks.trace = trace;
    }

    /// What the instance has not finished is broken off from now on.
    pub(crate) fn end(&self) {
        self.hooks.ended.set();
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
        let (mut head, body) = request.map(|body| Sending::new(body, self.ended.clone())).into_parts();
        // Here and not in the task, so that of several requests the first ones are let through.
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
        let counted = Counted { outgoing: Arc::clone(&outgoing), span: span.clone(), outcome: "gone" };
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
                Ok((stream, permit)) => exchange(stream, Request::from_parts(head, body), &timeouts, permit).await,
                Err(error) => Err(error),
            };
            counted.end(match &sent {
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
        CHUNK
    }

    /// A client that goes away in mid-request is no news.
    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        tracing::debug!("a request broke off: {error}");
        ErrorCode::HttpProtocolError
    }
}

impl Outgoing {
    pub(crate) fn new(plugin: &str, config: &Config) -> Self {
        let max_requests = config.sandbox.max_outgoing_requests;
        Self { plugin: plugin.to_owned(), grant: config.grant(plugin), max_requests, connector: Connector::default() }
    }

    /// Lets a request through, if it may go where it wants to and not too many are under way.
    fn admit(&self, head: &Parts, permits: &Arc<Semaphore>) -> Result<Admitted, Error> {
        let is_secure = match head.uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(Error::HttpRequestDenied),
        };
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        let destination = Destination::new(authority, if is_secure { 443 } else { 80 });
        let Some(destination) = destination.filter(|destination| self.grant.may_reach(destination)) else {
            tracing::debug!("plugin `{}` may not send a request to `{authority}`", one_line(&self.plugin));
            return Err(Error::HttpRequestDenied);
        };
        let permit = Arc::clone(permits).try_acquire_owned().map_err(|_| Error::ConnectionLimitReached)?;
        Ok(Admitted { destination, is_secure, permit })
    }
}

/// Sends a request over a connection of its own, and answers when the head of the answer is there.
async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Sending>,
    timeouts: &Timeouts,
    permit: OwnedSemaphorePermit,
) -> Result<Sent, Error> {
    let broken = |error: hyper::Error| broken_off(&error);
    let connection = http1::Builder::new().max_buf_size(CHUNK).handshake(TokioIo::new(stream));
    let (mut sender, connection) = connection.await.map_err(broken)?;
    let driving = spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("the connection of a plugin's request ended: {error}");
        }
    });
    let answered = async { sender.send_request(request).await.map_err(broken) };
    let response = within(timeouts.first_byte, answered, Error::HttpResponseTimeout).await?;
    let response = response.map(|body| Answer::new(body, timeouts.between_bytes, permit).boxed_unsync());
    // Goes with the answer's body, and the connection with it.
    let driven = async move {
        driving.await;
        Ok(())
    };
    Ok((response, Box::new(driven)))
}

/// Makes the head what goes over the wire: the path alone in its first line, and the headers that are the host's to set.
fn rewrite(head: &mut Parts, destination: &Destination, trace: Option<&TraceContext>) -> Result<(), Error> {
    head.uri = head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    // What was granted, whatever the plugin made of it.
    let host = HeaderValue::try_from(destination.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
    head.headers.insert(HOST, host);
    trace::pass_on(trace, &mut head.headers);
    Ok(())
}

async fn within<T>(limit: Duration, step: impl Future<Output = Result<T, Error>>, late: Error) -> Result<T, Error> {
    tokio::time::timeout(limit, step).await.unwrap_or(Err(late))
}

/// The error of a request that broke before the head of its answer was there. The plugin learns its kind alone.
fn broken_off(error: &hyper::Error) -> Error {
    tracing::debug!("a plugin's request broke off: {error}");
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

impl Counted {
    fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome);
        let plugin = self.outgoing.plugin.clone();
        counter!(listed::OUTGOING.name, "plugin" => plugin, "outcome" => self.outcome).increment(1);
    }
}
