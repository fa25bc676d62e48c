//! `larder serve` as a child process, and HTTP clients for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::{Larder, LarderOutput, LarderProcess, TEST_TIMEOUT, guest};

/// A `larder serve` process on a free port. Dropping this value kills it.
#[derive(Debug)]
pub struct ServeProcess {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    process: LarderProcess,
}

impl ServeProcess {
    /// Serves the plugin `http` at all paths, with a configuration.
    pub fn start(config: &str) -> Self {
        Self::start_with(Larder::serve().config(config).arg(guest("http")))
    }

    /// Starts a [`Larder::serve`] and waits until it has printed its address.
    pub fn start_with(larder: Larder) -> Self {
        let mut process = larder.start();
        let line = process.read_line();
        let Some(address) = line.strip_prefix("listening on http://") else {
            panic!("`{line}`: {:#?}", process.finish());
        };
        Self { address: address.parse().unwrap(), metrics: None, process }
    }

    /// [`ServeProcess::start`] with a metrics port.
    pub fn start_with_metrics(config: &str) -> Self {
        Self::start_with_metrics_of(Larder::serve().config(config).arg(guest("http")))
    }

    /// [`ServeProcess::start_with`] with a metrics port.
    pub fn start_with_metrics_of(larder: Larder) -> Self {
        let mut serving = Self::start_with(larder.arg("--metrics-addr").arg("127.0.0.1:0"));
        let line = serving.process.read_line();
        let address = line.strip_prefix("metrics on http://").and_then(|rest| rest.strip_suffix("/metrics"));
        serving.metrics = Some(address.expect("the second line is the address of the metrics port").parse().unwrap());
        serving
    }

    /// Sends a GET request to the metrics port of [`ServeProcess::start_with_metrics`].
    pub async fn get_from_metrics_port(&self, path: &str) -> HttpResponse {
        Client::connect(self.metrics_address()).await.get(path).await.unwrap()
    }

    /// The address of the metrics port of [`ServeProcess::start_with_metrics`].
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics.expect("the process has a metrics port")
    }

    /// The address of the HTTP port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub fn process(&mut self) -> &mut LarderProcess {
        &mut self.process
    }

    /// Waits for the next line of standard output, and asserts that it equals `expected`.
    pub async fn expect_line(&mut self, expected: &str) {
        let next_line = async {
            loop {
                if let Some(line) = self.process.try_read_line() {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let line = tokio::time::timeout(TEST_TIMEOUT, next_line).await;
        assert_eq!(line.as_deref(), Ok(expected));
    }

    /// Sends a GET request on a new connection.
    pub async fn get(&self, path: &str) -> HttpResponse {
        Client::connect(self.address).await.get(path).await.unwrap()
    }

    /// Sends SIGTERM and waits until the process has exited.
    pub async fn terminate(self) -> LarderOutput {
        self.process.terminate();
        tokio::task::spawn_blocking(|| self.process.finish()).await.unwrap()
    }
}

/// A complete HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// The value of the header `retry-after`.
    pub retry_after: Option<String>,
}

impl HttpResponse {
    /// A response with status 200 and this body.
    pub fn ok(body: &str) -> Self {
        Self { status: 200, body: body.to_owned(), retry_after: None }
    }
}

/// An HTTP connection to a [`ServeProcess`]. Clones share the connection.
#[derive(Debug, Clone)]
pub enum Client {
    /// HTTP/1.1: one request at a time.
    Http1(Arc<Mutex<http1::SendRequest<Full<Bytes>>>>),
    /// HTTP/2 without TLS: concurrent requests.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// Connects with HTTP/1.1.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("the server accepts connections")
    }

    /// Connects with HTTP/2.
    pub async fn connect_http2(address: SocketAddr) -> Self {
        Self::try_connect_http2(address).await.expect("the server accepts connections")
    }

    /// [`Client::connect`], or `None` if the server is shutting down.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TokioIo::new(TcpStream::connect(address).await.ok()?);
        let (send, connection) = http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        Some(Self::Http1(Arc::new(send.into())))
    }

    /// [`Client::connect_http2`], or `None` if the server is shutting down.
    pub async fn try_connect_http2(address: SocketAddr) -> Option<Self> {
        let stream = TokioIo::new(TcpStream::connect(address).await.ok()?);
        let (send, connection) = http2::handshake(TokioExecutor::new(), stream).await.ok()?;
        tokio::spawn(connection);
        Some(Self::Http2(send))
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> Result<HttpResponse, hyper::Error> {
        self.get_with(path, &[]).await
    }

    /// Sends a GET request with headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<HttpResponse, hyper::Error> {
        self.request(Method::GET, path, headers, "").await
    }

    /// Sends a POST request. A response that ends early is an error. Panics after [`TEST_TIMEOUT`].
    pub async fn send(&self, path: &str, body: &str) -> Result<HttpResponse, hyper::Error> {
        self.request(Method::POST, path, &[], body).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<HttpResponse, hyper::Error> {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = Request::builder().method(method).uri(format!("http://host.example{path}"));
        let request = request.header("host", "host.example");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(body).unwrap();
        let response = async {
            let response = match self {
                Self::Http1(send) => {
                    let mut send = send.lock().await;
                    send.ready().await?;
                    send.send_request(request).await?
                }
                Self::Http2(send) => {
                    let mut send = send.clone();
                    send.ready().await?;
                    send.send_request(request).await?
                }
            };
            let status = response.status().as_u16();
            let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            let body = response.into_body().collect().await?.to_bytes();
            let body = String::from_utf8(body.into()).unwrap();
            Ok(HttpResponse { status, body, retry_after })
        };
        tokio::time::timeout(TEST_TIMEOUT, response).await.unwrap_or_else(|_| panic!("no response to {path}"))
    }
}
