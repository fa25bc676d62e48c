//! The `[serve]` table: where and how requests are answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use crate::config::document::{Fault, Section};
use crate::config::sandbox::count;
use crate::config::units::{Count, Size, Span};

/// Where and how requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serve {
    /// The address to listen on. Defaults to 127.0.0.1:8080.
    pub addr: SocketAddr,
    /// The address for Prometheus and health checks. Defaults to none.
    pub metrics_addr: Option<SocketAddr>,
    /// The most requests under way at a time, over all plugins, 1 to 65,536. One more is refused. Defaults to 256.
    pub max_concurrent_requests: usize,
    /// The longest body of a request, in bytes. Defaults to 8 MiB.
    pub max_request_body: u64,
    /// How long requests that run may take to end when the host is to end. Defaults to 30 s.
    pub shutdown_timeout: Duration,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            metrics_addr: None,
            max_concurrent_requests: 256,
            max_request_body: 8 << 20,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

impl Serve {
    pub(super) fn from_section(section: &Section<'_>) -> Result<Self, Fault> {
        let RawServe { addr, metrics_addr, max_concurrent_requests, max_request_body, shutdown_timeout } =
            section.read()?;
        let default = Self::default();
        let max = default.max_concurrent_requests;
        let address = |key, text: Option<String>| {
            let fault = |_| section.fault(key, "must be an address and a port, such as 127.0.0.1:8080");
            text.map(|text| text.parse::<SocketAddr>().map_err(fault)).transpose()
        };
        Ok(Self {
            addr: address("addr", addr)?.unwrap_or(default.addr),
            metrics_addr: address("metrics_addr", metrics_addr)?,
            max_concurrent_requests: count(section, "max_concurrent_requests", max_concurrent_requests, max)?,
            max_request_body: max_request_body.map_or(default.max_request_body, |size| size.0),
            shutdown_timeout: shutdown_timeout.map_or(default.shutdown_timeout, |span| span.0),
        })
    }
}

/// Where and how `larder serve` answers requests.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawServe {
    /// Where to listen. Defaults to `"127.0.0.1:8080"`.
    addr: Option<String>,
    /// Where Prometheus finds `/metrics`, and others `/healthz` and `/readyz`.
    metrics_addr: Option<String>,
    /// How many requests may be under way at once, over all plugins. Defaults to `256`.
    max_concurrent_requests: Option<Count>,
    /// The longest body of a request. Defaults to `"8MiB"`.
    max_request_body: Option<Size>,
    /// How long requests may take to end when the host is to end. Defaults to `"30s"`.
    shutdown_timeout: Option<Span>,
}
