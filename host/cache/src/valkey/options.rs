//! Where a server is, who we are there, and how long it may take: what a backend must be told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration as StdDuration;

use crate::valkey::server::info::ServerKind;

/// A password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

/// Where a server is and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// What the operator says it is; only for messages.
    pub kind: ServerKind,
    /// Where the keys are. Defaults to one server at `localhost`, port 6379.
    pub deployment: Deployment,
    /// Database number; 0 for a cluster. Defaults to 0.
    pub db: u16,
    /// What stands before every key. Defaults to `cache:`.
    pub prefix: String,
    /// The ACL user. Defaults to none, the server's `default` user.
    pub username: Option<String>,
    /// The password. Defaults to none.
    pub password: Option<Secret>,
    /// TLS on the connection. Defaults to none, plain TCP.
    pub tls: Option<TlsOptions>,
    /// The deadline of connecting. Defaults to 2 s.
    pub connect_timeout: StdDuration,
    /// The deadline of every exchange with the server, a reconnect included. Defaults to 500 ms.
    pub timeout: StdDuration,
    /// Over how many connections to each server calls are spread, by their keys; at least 1. What is large goes over one
    /// more. Defaults to 1.
    pub connections: u16,
    /// How long a lease lasts that is not renewed, as when its holder was killed. Defaults to 10 s.
    pub lease: StdDuration,
}

/// Where the keys of a cache are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployment {
    /// On one server.
    Server(Endpoint),
    /// On the nodes of a cluster. These are some of them, which are asked for the others; at least one.
    Cluster(Vec<Endpoint>),
    /// On the server that sentinels know as the primary.
    Sentinel(Sentinels),
}

/// Who knows which server is the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// The name by which the sentinels know the primary.
    pub master: String,
    /// The sentinels; at least one.
    pub nodes: Vec<Endpoint>,
    /// The ACL user on the sentinels. Defaults to none, the `default` user.
    pub username: Option<String>,
    /// The password on the sentinels. Defaults to none, whatever that of the server is.
    pub password: Option<Secret>,
}

/// A host, by its name or address, and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address needs its brackets to be told from the port.
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sentinel ", self.master)?;
        list(&self.nodes, f)
    }
}

impl Deployment {
    /// Whether the two name a server in common.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sentinel(a), Self::Sentinel(b)) => {
                a.master == b.master && a.nodes.iter().any(|node| b.nodes.contains(node))
            }
            (Self::Sentinel(_), _) | (_, Self::Sentinel(_)) => false,
            _ => self.addresses().iter().any(|address| other.addresses().contains(address)),
        }
    }

    fn addresses(&self) -> &[Endpoint] {
        match self {
            Self::Server(address) => std::slice::from_ref(address),
            Self::Cluster(nodes) => nodes,
            Self::Sentinel(sentinels) => &sentinels.nodes,
        }
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(address) => fmt::Display::fmt(address, f),
            Self::Cluster(nodes) => {
                f.write_str("cluster ")?;
                list(nodes, f)
            }
            Self::Sentinel(sentinels) => fmt::Display::fmt(sentinels, f),
        }
    }
}

fn list(addresses: &[Endpoint], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (nth, address) in addresses.iter().enumerate() {
        if nth > 0 {
            f.write_str(",")?;
        }
        write!(f, "{address}")?;
    }
    Ok(())
}

/// Whom to trust on a TLS connection and who we are. The server's certificate must name the configured host and come
/// from an authority that is trusted; nothing turns that off.
///
/// The files are PEM, and are read for every connection, so that certificates can be renewed under a running host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The authorities to trust, instead of the system's. Defaults to none, the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for a server that asks for one. Defaults to none.
    pub client: Option<ClientCertificate>,
}

/// A certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, with those that lead to its authority behind it.
    pub cert_file: PathBuf,
    /// The private key, not encrypted.
    pub key_file: PathBuf,
}
