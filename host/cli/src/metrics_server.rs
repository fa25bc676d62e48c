//! The metrics port of `larder serve`: metrics for Prometheus, and health checks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
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
use larder_host::metrics::BUCKETS;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Interval between upkeep runs, which merge recorded samples into the histograms. Without upkeep, samples accumulate
/// until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The timeout for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted, such as when the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bound port and the recorder. Answers requests only while [`MetricsServer::run`] is polled.
pub(crate) struct MetricsServer {
    listener: TcpListener,
    recorder: PrometheusHandle,
}

impl MetricsServer {
    /// Binds the port and installs the process's metrics recorder. Call it before the caches are connected: metrics are
    /// recorded only from then on.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound; the operator must choose another one.
    pub(crate) async fn bind(addr: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS)?.install_recorder()?;
        Ok(Self { listener, recorder })
    }

    /// The bound address, with the actual port if port 0 was requested.
    pub(crate) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until it is dropped. Once `shutdown` is cancelled, the host reports that it is not ready.
    pub(crate) async fn run(self, caches: Caches, shutdown: CancellationToken) -> Infallible {
        let Self { listener, recorder } = self;
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = upkeep.tick() => recorder.run_upkeep(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (caches, recorder, shutdown) = (caches.clone(), recorder.clone(), shutdown.clone());
                        tokio::spawn(Handler { caches, recorder, shutdown }.serve(stream));
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept a connection on the metrics port: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Handler {
    caches: Caches,
    recorder: PrometheusHandle,
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
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
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
                self.caches.publish();
                response(StatusCode::OK, PROMETHEUS_TEXT, self.recorder.render())
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
        let checks = join_all(self.caches.iter().map(|cache| check(cache))).await;
        (checks.iter().all(|(is_ready, _)| *is_ready), checks.into_iter().map(|(_, line)| line).collect())
    }
}

/// Contacts the server of a cache, within the cache's `timeout`. Returns whether the cache is ready, and its line of
/// the report.
async fn check(cache: &Cache) -> (bool, String) {
    let name = cache.name();
    match cache.check().await {
        Ok(_) => (true, format!("{name}: ready\n")),
        Err(error) => {
            let is_ready = cache.degrades();
            let status = if is_ready { "degraded, reads are misses" } else { "not ready" };
            (is_ready, format!("{name}: {status}: {}\n", one_line(&error.to_string())))
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
