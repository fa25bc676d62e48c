//! The metrics port of `larder serve`: metrics for Prometheus, and health checks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use larder_host::Caches;
use larder_host::cache::Cache;
use larder_host::cache::text::one_line;
use larder_host::config::BackendConfig;
use larder_host::write_deadline::WriteDeadline;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::listening::cannot_listen;
use crate::process_metrics::ProcessMetrics;
use crate::recorder::Recorder;

/// Interval between upkeep runs, which merge recorded samples into the histograms. Without upkeep, samples accumulate
/// until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The timeout for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take for each 8 KiB of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The maximum number of connections. For a further one, the oldest is closed.
const MAX_CONNECTIONS: usize = 64;

/// How long a check of a cache may take beyond the cache's `timeout`. It runs on the server's runtime, which may be
/// busy.
const CHECK_SLACK: Duration = Duration::from_secs(1);

/// The pause between two log lines about connections that cannot be accepted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a connection could not be accepted, such as when the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bound port and the recorder. Answers requests only while [`MetricsServer::run`] is polled.
pub(crate) struct MetricsServer {
    listener: StdTcpListener,
    recorder: Recorder,
    process: ProcessMetrics,
}

impl MetricsServer {
    /// Binds the port.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound; the operator must choose another one.
    pub(crate) fn bind(addr: SocketAddr, recorder: Recorder) -> anyhow::Result<Self> {
        let listener = StdTcpListener::bind(addr)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| cannot_listen(addr, "--metrics-addr", &error))?;
        Ok(Self { listener, recorder, process: ProcessMetrics::new() })
    }

    /// The bound address, with the actual port if port 0 was requested.
    pub(crate) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until it is dropped. The caches are checked on the runtime `server`. Once `shutdown` is
    /// cancelled, the host reports that it is not ready.
    pub(crate) async fn run(self, caches: Caches, server: Handle, shutdown: CancellationToken) -> Infallible {
        let Self { listener, recorder, process } = self;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("cannot serve the metrics port: {error}");
                return std::future::pending().await;
            }
        };
        let handler = Handler { caches, server, recorder, process, shutdown };
        let mut connections = Connections::default();
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        let mut next_log = Instant::now();
        loop {
            tokio::select! {
                _ = upkeep.tick() => handler.recorder.run_upkeep(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => connections.add(&tokio::spawn(handler.clone().serve(stream))),
                    Err(error) => {
                        if Instant::now() >= next_log {
                            tracing::warn!("cannot accept a connection on the metrics port: {error}");
                            next_log = Instant::now().checked_add(LOG_INTERVAL).unwrap_or(next_log);
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Connections(VecDeque<AbortHandle>);

impl Connections {
    fn add(&mut self, connection: &JoinHandle<()>) {
        if self.0.len() >= MAX_CONNECTIONS {
            self.0.retain(|connection| !connection.is_finished());
        }
        if self.0.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection.abort_handle());
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Handler {
    caches: Caches,
    server: Handle,
    recorder: Recorder,
    process: ProcessMetrics,
    shutdown: CancellationToken,
}

impl Handler {
    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let handler = self.clone();
            async move { Ok::<_, Infallible>(handler.respond(&request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.half_close(true).max_buf_size(MAX_HEAD);
        let stream = TokioIo::new(WriteDeadline::new(stream, WRITE_TIMEOUT));
        if let Err(error) = builder.serve_connection(stream, service).await {
            tracing::debug!("a connection to the metrics port failed: {error}");
        }
    }

    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let message = "method not allowed: use GET or HEAD\n".to_owned();
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, message);
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => {
                let metrics = self.recorder.render(&self.caches) + &self.process.render();
                response(StatusCode::OK, PROMETHEUS_TEXT, metrics)
            }
            "/healthz" => response(StatusCode::OK, TEXT, "alive\n".to_owned()),
            "/readyz" => {
                let (is_ready, report) = self.readiness().await;
                response(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, TEXT, report)
            }
            _ => {
                let message = "not found: use /metrics, /healthz or /readyz\n".to_owned();
                response(StatusCode::NOT_FOUND, TEXT, message)
            }
        }
    }

    // Decision: docs/decisions/0033-readiness-asks-the-servers-each-time.md
    /// Whether the host is ready for requests, and a report with one line per cache.
    async fn readiness(&self) -> (bool, String) {
        if self.shutdown.is_cancelled() {
            return (false, "the host is shutting down\n".to_owned());
        }
        let checks = join_all(self.caches.iter().map(|cache| self.check(cache))).await;
        (checks.iter().all(|(is_ready, _)| *is_ready), checks.into_iter().map(|(_, line)| line).collect())
    }

    /// Contacts the server of a cache, within the cache's `timeout`. Returns whether the cache is ready, and its line
    /// of the report. A runtime that does not get to it makes the host not ready.
    async fn check(&self, cache: &Arc<Cache>) -> (bool, String) {
        let name = cache.name();
        let timeout = match self.caches.config().caches.get(name).map(|config| &config.backend) {
            Some(BackendConfig::Server(options)) => options.timeout,
            _ => Duration::ZERO,
        };
        let checked = {
            let cache = Arc::clone(cache);
            AbortOnDropHandle::new(self.server.spawn(async move { cache.check().await }))
        };
        match tokio::time::timeout(timeout.saturating_add(CHECK_SLACK), checked).await {
            Ok(Ok(Ok(_))) => (true, format!("{name}: ready\n")),
            Ok(Ok(Err(error))) => {
                let is_ready = cache.degrades();
                let status = if is_ready { "degraded, reads are misses" } else { "not ready" };
                (is_ready, format!("{name}: {status}: {}\n", one_line(&error.to_string())))
            }
            Ok(Err(error)) => (false, format!("{name}: not ready: the check failed: {error}\n")),
            Err(_elapsed) => (false, format!("{name}: not ready: the host is too busy to check it\n")),
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
