//! The URL of a host's metrics, and a client for it. The server at the URL may not be a host, so the time and the size
//! of a response are limited.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use larder_host::cache::tcp::{Resolver, TimeLimit};
use larder_host::{Config, Error};
use tokio_util::task::AbortOnDropHandle;

/// The timeout of a request, from the connection to the last byte of the response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a response, in bytes. The metrics of a thousand caches are smaller.
const MAX_RESPONSE: usize = 32 << 20;

/// The URL of `/metrics` on a host's metrics port. It uses `http:` and has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricsUrl {
    /// `HOST:PORT`.
    authority: String,
    path: String,
}

impl FromStr for MetricsUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be HOST:PORT or http://HOST:PORT/metrics";
        let uri = if text.contains("://") { text.parse() } else { format!("http://{text}").parse() };
        let uri: Uri = uri.map_err(|_| EXPECTED)?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(EXPECTED) };
        // User information in front of an `@` would be a secret that no host needs.
        if authority.port_u16().is_none_or(|port| port == 0) || authority.host().is_empty() || text.contains('@') {
            return Err(EXPECTED);
        }
        let path = match uri.path() {
            "/" => "/metrics",
            path => path,
        };
        Ok(Self { authority: authority.to_string(), path: path.to_owned() })
    }
}

impl From<SocketAddr> for MetricsUrl {
    /// The URL of a host on this machine that listens on an address. An unspecified address becomes loopback.
    fn from(mut listening: SocketAddr) -> Self {
        match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => listening.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => listening.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self { authority: listening.to_string(), path: "/metrics".to_owned() }
    }
}

impl fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl MetricsUrl {
    /// The URL of the host that uses this configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `metrics_addr` of `[serve]` is absent, or has port 0; the user must pass an address.
    pub(crate) fn from_config(config: &Config) -> Result<Self, Error> {
        match config.serve.metrics_addr {
            Some(addr) if addr.port() != 0 => Ok(addr.into()),
            Some(_) => Err(Error::Option(
                "`metrics_addr` of `[serve]` has port 0: pass the address that `larder serve` printed, such as \
                 `127.0.0.1:9092`"
                    .to_owned(),
            )),
            None => Err(Error::Option(
                "no metrics address: pass that of `larder serve --metrics-addr`, such as `127.0.0.1:9092`, or set \
                 `metrics_addr` of `[serve]` in the configuration"
                    .to_owned(),
            )),
        }
    }

    /// Requests the metrics, in the text format of Prometheus.
    ///
    /// # Errors
    ///
    /// If there is no response of status 200 in time, or it is too large or not UTF-8.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let (status, body) = self.request(&Resolver::system(1)).await?;
        if status != StatusCode::OK {
            bail!("{self} responded with {status}");
        }
        Ok(body)
    }

    /// Requests `/readyz`. Returns whether the host is ready, and its report with one line per cache.
    ///
    /// # Errors
    ///
    /// As [`MetricsUrl::metrics`], for a status other than 200 and 503.
    pub(crate) async fn readiness(&self) -> anyhow::Result<(bool, String)> {
        // In the directory of `/metrics`: a proxy may serve both under a path of its own.
        let path = format!("{}/readyz", self.path.strip_suffix("/metrics").unwrap_or_default());
        let url = Self { authority: self.authority.clone(), path };
        let (status, report) = url.request(&Resolver::system(1)).await?;
        match status {
            StatusCode::OK => Ok((true, report)),
            StatusCode::SERVICE_UNAVAILABLE => Ok((false, report)),
            _ => bail!("{url} responded with {status}"),
        }
    }

    async fn request(&self, resolver: &Resolver) -> anyhow::Result<(StatusCode, String)> {
        let time = TimeLimit::new(TIMEOUT);
        match tokio::time::timeout_at(time.deadline(), self.request_untimed(resolver, time)).await {
            Ok(response) => response,
            Err(_) => bail!("{self} did not respond within {TIMEOUT:?}"),
        }
    }

    async fn request_untimed(&self, resolver: &Resolver, time: TimeLimit) -> anyhow::Result<(StatusCode, String)> {
        let unreachable = || format!("cannot reach {self}");
        let (host, port) = self.authority.rsplit_once(':').with_context(unreachable)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let stream = resolver.connect(host, port.parse()?, time).await.with_context(unreachable)?;
        let invalid = || format!("{self} does not respond as a metrics port");
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(invalid)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(&self.path).header(HOST, &self.authority).body(Empty::<Bytes>::new())?;
        let response = send.send_request(request).await.with_context(invalid)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).with_context(invalid)?.to_bytes();
        Ok((status, String::from_utf8(body.into()).with_context(invalid)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_completed_to_a_url() {
        for (text, expected) in [
            ("127.0.0.1:9092", "http://127.0.0.1:9092/metrics"),
            ("localhost:9092", "http://localhost:9092/metrics"),
            ("[::1]:9092", "http://[::1]:9092/metrics"),
            ("localhost:9092/", "http://localhost:9092/metrics"),
            ("http://localhost:9092", "http://localhost:9092/metrics"),
            ("http://localhost:9092/metrics", "http://localhost:9092/metrics"),
            ("http://proxy:80/shop/metrics", "http://proxy:80/shop/metrics"),
        ] {
            assert_eq!(text.parse::<MetricsUrl>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn an_invalid_address_is_refused() {
        for text in [
            "",
            "localhost",
            ":9092",
            "localhost:0",
            "localhost:99999",
            "https://localhost:9092",
            "user:secret@localhost:9092",
            "a b:1",
            "http://",
        ] {
            assert!(text.parse::<MetricsUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unspecified_address_becomes_loopback() {
        for (listening, expected) in [
            ("0.0.0.0:9092", "http://127.0.0.1:9092/metrics"),
            ("[::]:9092", "http://[::1]:9092/metrics"),
            ("192.0.2.1:9092", "http://192.0.2.1:9092/metrics"),
        ] {
            assert_eq!(MetricsUrl::from(listening.parse::<SocketAddr>().unwrap()).to_string(), expected);
        }
    }

    /// The first address of the name has a port with a full queue, whose system drops further connections.
    #[tokio::test]
    async fn a_host_is_reached_although_the_first_address_of_its_name_drops_packets() {
        let host = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = host.local_addr().unwrap().port();
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind(([127, 0, 0, 2], port).into()).unwrap();
        let silent = silent.listen(0).unwrap();
        let table = vec![silent.local_addr().unwrap(), host.local_addr().unwrap()];
        let mut queued = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(table[0])).await
        {
            queued.push(stream.unwrap());
        }
        tokio::spawn(async move {
            let (mut stream, _) = host.accept().await.unwrap();
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, response).await.unwrap();
            std::future::pending::<()>().await;
        });
        let resolver = Resolver::from_fn(1, move |_, _| Ok(table.clone()));
        let url: MetricsUrl = format!("two.example.com:{port}").parse().unwrap();
        assert_eq!(url.request(&resolver).await.unwrap(), (StatusCode::OK, "ready\n".to_owned()));
    }
}
