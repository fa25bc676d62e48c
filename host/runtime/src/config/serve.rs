//! The `[serve]` table: the HTTP server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use crate::config::document::{Fault, Section};
use crate::config::sandbox::count;
use crate::config::units::{Count, DurationOrZero, QueueSize, Size, parse_address};
use crate::default_limits;

/// The settings of the HTTP server. Start from [`Serve::default`] and set the fields that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Serve {
    /// The address to listen on. Defaults to 127.0.0.1:8080.
    pub addr: SocketAddr,
    /// The address for metrics and health checks. Defaults to none.
    pub metrics_addr: Option<SocketAddr>,
    /// The maximum number of concurrent requests over all plugins, 1 to 65,536. Further requests are refused. Defaults
    /// to 256.
    pub max_concurrent_requests: usize,
    /// The maximum number of open connections, 1 to 65,536. At the maximum the connection that has been idle for longest
    /// is closed for a new one; if none is idle, the new one is closed. Defaults to three quarters of the file
    /// descriptors that the process may have less 64, at most 10,000.
    pub max_connections: Option<usize>,
    /// The longest request body, in bytes. Defaults to 8 MiB.
    pub max_request_body: u64,
    /// How long running requests may take to complete at shutdown. Defaults to 30 s.
    pub shutdown_timeout: Duration,
    /// The maximum of log lines and output of plugins that wait to be written to stdout, and to stderr, in bytes.
    /// Further ones are dropped. At least 16 KiB. Defaults to 1 MiB.
    pub max_queued_output: u64,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            metrics_addr: None,
            max_concurrent_requests: default_limits::MAX_CONCURRENT_REQUESTS,
            max_connections: None,
            max_request_body: default_limits::MAX_REQUEST_BODY,
            shutdown_timeout: default_limits::SHUTDOWN_TIMEOUT,
            max_queued_output: default_limits::MAX_QUEUED_OUTPUT,
        }
    }
}

impl Serve {
    pub(super) fn from_section(section: &Section<'_>) -> Result<Self, Fault> {
        let RawServe {
            addr,
            metrics_addr,
            max_concurrent_requests,
            max_connections,
            max_request_body,
            shutdown_timeout,
            max_queued_output,
        } = section.read()?;
        let default = Self::default();
        let max = default.max_concurrent_requests;
        let address = |key, text: Option<String>| {
            text.map(|text| parse_address(&text).map_err(|rule| section.fault(key, &rule))).transpose()
        };
        Ok(Self {
            addr: address("addr", addr)?.unwrap_or(default.addr),
            metrics_addr: address("metrics_addr", metrics_addr)?,
            max_concurrent_requests: count(section, "max_concurrent_requests", max_concurrent_requests, max)?,
            max_connections: max_connections
                .map(|written| count(section, "max_connections", Some(written), max))
                .transpose()?,
            max_request_body: max_request_body.map_or(default.max_request_body, |size| size.0),
            shutdown_timeout: shutdown_timeout.map_or(default.shutdown_timeout, |duration| duration.0),
            max_queued_output: max_queued_output.map_or(default.max_queued_output, |size| size.0),
        })
    }
}

/// The HTTP server of `larder serve`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawServe {
    /// The address to listen on. Defaults to `"127.0.0.1:8080"`.
    addr: Option<String>,
    /// The address of `/metrics`, `/healthz` and `/readyz`; absent: none.
    metrics_addr: Option<String>,
    /// The maximum number of concurrent requests over all plugins. Defaults to `256`.
    max_concurrent_requests: Option<Count>,
    /// The maximum number of open connections. Defaults to three quarters of the file descriptors that the process may
    /// have less 64, at most 10,000.
    max_connections: Option<Count>,
    /// The longest request body. Defaults to `"8MiB"`.
    max_request_body: Option<Size>,
    /// How long running requests may take to complete at shutdown. Defaults to `"30s"`.
    shutdown_timeout: Option<DurationOrZero>,
    /// The maximum of log lines and output of plugins that wait to be written to stdout, and to stderr. Further ones are
    /// dropped. At least `"16KiB"`. Defaults to `"1MiB"`.
    max_queued_output: Option<QueueSize>,
}
