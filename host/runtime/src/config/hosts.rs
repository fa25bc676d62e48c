//! The hosts that a plugin may send requests to.
//!
//! Entries of `outgoing_hosts` and the authorities of requests are parsed and normalized by the same rules, so that the
//! host connects to exactly the destination that was checked.

// Decision: docs/decisions/0037-an-outgoing-host-without-a-port-means-the-schemes-default-port.md

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

/// An entry of `outgoing_hosts`: a host, all subdomains of a domain, or every host; with a port, or the default port of
/// the request's scheme.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct OutgoingHost {
    hosts: Hosts,
    port: Option<u16>,
}

/// The destination of a request. The host name is normalized: in lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    host: Host,
    port: u16,
    default_port: u16,
}

/// The error for a text that is not an [`OutgoingHost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a host name, an IP address (IPv6 in brackets), `*.domain` or `*`, with an optional `:port`, and without \
     scheme, user or path"
)]
pub struct InvalidHost;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    Every,
    /// The domain, with a leading dot.
    Below(String),
    One(Host),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// The longest host name and the longest label that DNS allows.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

impl OutgoingHost {
    /// True if the entry matches the host and the port of the destination.
    pub fn covers(&self, destination: &Destination) -> bool {
        let is_host = match (&self.hosts, &destination.host) {
            (Hosts::Every, _) => true,
            (Hosts::Below(domain), Host::Name(name)) => name.ends_with(domain.as_str()),
            (Hosts::Below(_), _) => false,
            (Hosts::One(host), asked) => host == asked,
        };
        is_host && destination.port == self.port.unwrap_or(destination.default_port)
    }
}

impl fmt::Display for OutgoingHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Every => f.write_str("*"),
            Hosts::Below(domain) => write!(f, "*{domain}"),
            Hosts::One(Host::Name(name)) => f.write_str(name),
            Hosts::One(Host::V4(address)) => write!(f, "{address}"),
            Hosts::One(Host::V6(address)) => write!(f, "[{address}]"),
        }?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<&str> for OutgoingHost {
    type Error = InvalidHost;

    fn try_from(text: &str) -> Result<Self, InvalidHost> {
        let (host, port) = split(text).ok_or(InvalidHost)?;
        let hosts = match (host, host.strip_prefix("*.")) {
            ("*", _) => Hosts::Every,
            (_, Some(domain)) => Hosts::Below(format!(".{}", name(domain).ok_or(InvalidHost)?)),
            _ => Hosts::One(Host::parse(host).ok_or(InvalidHost)?),
        };
        Ok(Self { hosts, port })
    }
}

impl TryFrom<String> for OutgoingHost {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::try_from(text.as_str())
    }
}

impl Destination {
    /// Parses the authority of a URI whose scheme has this default port. `None` if the authority is not a host with an
    /// optional port, such as one that contains a user.
    pub fn new(authority: &str, default_port: u16) -> Option<Self> {
        let (host, port) = split(authority)?;
        Some(Self { host: Host::parse(host)?, port: port.unwrap_or(default_port), default_port })
    }

    /// The host name or IP address, without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::V4(address) => address.to_string(),
            Host::V6(address) => address.to_string(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Formats the destination as an authority and as the header `host`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::V4(address) => write!(f, "{address}")?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        if self.port == self.default_port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return address.parse().ok().map(Self::V6);
        }
        text.parse().map(Self::V4).ok().or_else(|| name(text).map(Self::Name))
    }
}

/// Splits a text into the host and the optional port.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    // The colons of an IPv6 address are inside its brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Some((text, None)),
    };
    // Rust's parser accepts a sign.
    let is_number = port.chars().all(|digit| digit.is_ascii_digit());
    let port = port.parse().ok().filter(|&port| is_number && port > 0)?;
    Some((host, Some(port)))
}

/// Normalizes a host name.
fn name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_allowed)
    };
    // The system's resolver takes a name that ends in a number for an address: `127.1`, `0x7f000001`.
    let last = name.rsplit('.').next()?;
    let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= MAX_NAME && name.split('.').all(is_label) && !is_number).then_some(name)
}
