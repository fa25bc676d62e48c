//! Asks a host for its figures, or whether it is ready. What answers may be anything: it gets little time, and little
//! memory.

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
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::snapshot::Snapshot;

/// How long an answer may take, from the connection to its last byte.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest answer: a thousand caches tell less.
const MAX_ANSWER: usize = 32 << 20;

/// Where figures are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Endpoint {
    /// `HOST:PORT`.
    authority: String,
    path: String,
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be HOST:PORT or http://HOST:PORT/metrics";
        let uri = if text.contains("://") { text.parse() } else { format!("http://{text}").parse() };
        let uri: Uri = uri.map_err(|_| EXPECTED)?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(EXPECTED) };
        // Something before an `@` would be a secret, which nobody asks for.
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

impl From<SocketAddr> for Endpoint {
    /// The endpoint of a host of this machine that listens there.
    fn from(mut listening: SocketAddr) -> Self {
        match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => listening.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => listening.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self { authority: listening.to_string(), path: "/metrics".to_owned() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl Endpoint {
    /// Asks once.
    pub(super) async fn scrape(&self) -> anyhow::Result<Snapshot> {
        let (status, answer) = self.ask().await?;
        if status != StatusCode::OK {
            bail!("{self} answers with {status}");
        }
        Snapshot::parse(&answer).with_context(|| format!("{self} cannot be read"))
    }

    /// Whether the host that tells its figures here is ready, and a line for each cache that says why.
    pub(in crate::commands) async fn readiness(&self) -> anyhow::Result<(bool, String)> {
        // Beside the figures, also behind a proxy that knows both by another folder.
        let path = format!("{}/readyz", self.path.strip_suffix("/metrics").unwrap_or_default());
        let asked = Self { authority: self.authority.clone(), path };
        let (status, answer) = asked.ask().await?;
        match status {
            StatusCode::OK => Ok((true, answer)),
            StatusCode::SERVICE_UNAVAILABLE => Ok((false, answer)),
            _ => bail!("{asked} answers with {status}"),
        }
    }

    async fn ask(&self) -> anyhow::Result<(StatusCode, String)> {
        match tokio::time::timeout(DEADLINE, self.fetch()).await {
            Ok(answer) => answer,
            Err(_) => bail!("{self} has not answered within {DEADLINE:?}"),
        }
    }

    async fn fetch(&self) -> anyhow::Result<(StatusCode, String)> {
        let stream = TcpStream::connect(&self.authority).await.with_context(|| format!("cannot reach {self}"))?;
        let unfit = || format!("{self} does not answer as a metrics endpoint does");
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(unfit)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(&self.path).header(HOST, &self.authority).body(Empty::<Bytes>::new())?;
        let response = send.send_request(request).await.with_context(unfit)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).with_context(unfit)?.to_bytes();
        Ok((status, String::from_utf8(body.into()).with_context(unfit)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_short_or_in_full() {
        for (written, expected) in [
            ("127.0.0.1:9092", "http://127.0.0.1:9092/metrics"),
            ("localhost:9092", "http://localhost:9092/metrics"),
            ("[::1]:9092", "http://[::1]:9092/metrics"),
            ("localhost:9092/", "http://localhost:9092/metrics"),
            ("http://localhost:9092", "http://localhost:9092/metrics"),
            ("http://localhost:9092/metrics", "http://localhost:9092/metrics"),
            ("http://proxy:80/shop/metrics", "http://proxy:80/shop/metrics"),
        ] {
            assert_eq!(written.parse::<Endpoint>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for written in [
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
            assert!(written.parse::<Endpoint>().is_err(), "{written}");
        }
    }

    #[test]
    fn who_listens_on_every_address_is_asked_on_this_machine() {
        for (listening, expected) in [
            ("0.0.0.0:9092", "http://127.0.0.1:9092/metrics"),
            ("[::]:9092", "http://[::1]:9092/metrics"),
            ("192.0.2.1:9092", "http://192.0.2.1:9092/metrics"),
        ] {
            assert_eq!(Endpoint::from(listening.parse::<SocketAddr>().unwrap()).to_string(), expected);
        }
    }
}
