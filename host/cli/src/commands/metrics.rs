//! The operator's port: the figures for Prometheus, and whether the host lives and is ready.

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

/// How often what the histograms have taken in is summed up, which else grows until somebody asks.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long the head of a question may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A port on which nobody is answered yet.
pub(crate) struct Metrics {
    listener: TcpListener,
    recorder: PrometheusHandle,
}

impl Metrics {
    /// Takes the port, and all figures of this process from now on: so it comes before the caches.
    pub(crate) async fn listen(addr: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS)?.install_recorder()?;
        Ok(Self { listener, recorder })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for as long as it is polled; after `ending` the host is not ready any more.
    pub(crate) async fn run(self, caches: Caches, ending: CancellationToken) -> Infallible {
        let Self { listener, recorder } = self;
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = upkeep.tick() => recorder.run_upkeep(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let asked = Asked { caches: caches.clone(), recorder: recorder.clone(), ending: ending.clone() };
                        tokio::spawn(asked.on(stream));
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept a connection for metrics: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }
}

/// What is asked on one connection.
#[derive(Clone)]
struct Asked {
    caches: Caches,
    recorder: PrometheusHandle,
    ending: CancellationToken,
}

impl Asked {
    async fn on(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let asked = self.clone();
            async move { Ok::<_, Infallible>(asked.answer(&request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!("a connection for metrics ended: {error}");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let text = "text/plain; charset=utf-8";
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, text, "this is for reading\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => {
                self.caches.publish();
                response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.recorder.render())
            }
            "/healthz" => response(StatusCode::OK, text, "alive\n".to_owned()),
            "/readyz" => {
                let (is_ready, why) = self.readiness().await;
                response(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text, why)
            }
            _ => response(StatusCode::NOT_FOUND, text, "there are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }

    // Decision: docs/decisions/0033-readiness-asks-the-servers-each-time.md
    /// Whether requests should come here, and what says so: a line for each cache.
    async fn readiness(&self) -> (bool, String) {
        if self.ending.is_cancelled() {
            return (false, "the host is about to end\n".to_owned());
        }
        let looks = join_all(self.caches.iter().map(|cache| look(cache))).await;
        (looks.iter().all(|(is_ready, _)| *is_ready), looks.into_iter().map(|(_, line)| line).collect())
    }
}

/// Reaches a cache, within its `timeout`.
async fn look(cache: &Cache) -> (bool, String) {
    let name = cache.name();
    match cache.check().await {
        Ok(_) => (true, format!("{name}: ready\n")),
        Err(error) => {
            let is_ready = cache.degrades();
            let standing = if is_ready { "degraded, reads are misses" } else { "not ready" };
            (is_ready, format!("{name}: {standing}: {}\n", one_line(&error.to_string())))
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
