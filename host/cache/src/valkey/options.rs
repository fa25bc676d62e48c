//! The options of a server backend: the servers, the login, TLS and deadlines.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration as StdDuration;

use crate::NearOptions;
use crate::tcp::Resolver;
use crate::valkey::password::PasswordSource;
use crate::valkey::server::info::ServerKind;

/// The maximum number of name lookups of one cache at a time. One that hangs occupies a thread.
const MAX_LOOKUPS: usize = 8;

/// How to connect to the servers of one cache.
///
/// ```
/// use larder_cache::valkey::{Deployment, Endpoint, ServerKind, ServerOptions};
///
/// let mut options = ServerOptions::new(ServerKind::Valkey);
/// options.deployment = Deployment::Server(Endpoint { host: "cache.example.com".to_owned(), port: 6379 });
/// assert_eq!(options.prefix, "cache:");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The product that the operator configured. It only appears in messages and metrics.
    pub kind: ServerKind,
    /// The servers that hold the keys. Defaults to a single server at `localhost`, port 6379.
    pub deployment: Deployment,
    /// The database number. Must be 0 for a cluster. Defaults to 0.
    pub db: u16,
    /// The prefix of every key on the server. Defaults to `cache:`.
    pub prefix: String,
    /// The ACL user. Defaults to none, which logs in as the server's user `default`.
    pub username: Option<String>,
    /// The password. Defaults to none.
    pub password: Option<PasswordSource>,
    /// TLS for the connections. Defaults to none, plain TCP.
    pub tls: Option<TlsOptions>,
    /// How the names of servers and sentinels become addresses. Defaults to the system's lookup. Each connection looks
    /// its name up anew.
    pub resolver: Resolver,
    /// The deadline for opening a connection. Defaults to 2 s.
    pub connect_timeout: StdDuration,
    /// The deadline for every exchange with the server, including a reconnect. Defaults to 500 ms.
    pub timeout: StdDuration,
    /// The number of regular connections to each server, over which calls are spread by key. At least 1; there is one
    /// more, the bulk connection. Defaults to 1.
    pub connections: u16,
    /// What happens if the servers are unreachable when the backend is created. Defaults to [`Start::Require`].
    pub start: Start,
    /// The duration of a lease that is not renewed, for example because its holder was killed. Defaults to 4 s, so that
    /// callers with the default [`Policy::wait`](crate::Policy::wait) of 5 s outlast it.
    pub lease: StdDuration,
    /// The near tier in front of the server. Defaults to none.
    pub near: Option<NearOptions>,
}

impl ServerOptions {
    /// The options with the defaults that each field documents.
    pub fn new(kind: ServerKind) -> Self {
        Self {
            kind,
            deployment: Deployment::Server(Endpoint { host: "localhost".to_owned(), port: 6379 }),
            db: 0,
            prefix: "cache:".to_owned(),
            username: None,
            password: None,
            tls: None,
            resolver: Resolver::system(MAX_LOOKUPS),
            connect_timeout: StdDuration::from_secs(2),
            timeout: StdDuration::from_millis(500),
            connections: 1,
            start: Start::Require,
            lease: StdDuration::from_secs(4),
            near: None,
        }
    }

    // Decision: docs/decisions/0011-prefixes-must-not-be-empty-or-overlap.md
    /// True if two caches with these options share keys if they are on one server.
    pub fn shares_keys_with(&self, other: &Self) -> bool {
        self.db == other.db && prefixes_overlap(&self.prefix, &other.prefix)
    }
}

/// True if keys under one prefix may be keys under the other.
pub(in crate::valkey) fn prefixes_overlap(prefix: &str, other: &str) -> bool {
    prefix.starts_with(other) || other.starts_with(prefix)
}

/// What happens if the servers of a cache are unreachable when its backend is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// The backend is not created.
    #[default]
    Require,
    /// The backend begins in an outage, and connects when it can. A server that refuses the login or the database, is
    /// too old or contradicts the deployment is still an error: that does not pass by itself.
    Degraded,
}

/// How the server of a cache is run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deployment {
    /// A single server.
    Server(Endpoint),
    /// A cluster, given by at least one of its nodes. The host asks these nodes for the others.
    Cluster(Vec<Endpoint>),
    /// The primary that sentinels name.
    Sentinel(Sentinels),
}

/// The sentinels that know which server is the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sentinels {
    /// The name of the primary on the sentinels.
    pub master: String,
    /// The sentinels; at least one.
    pub nodes: Vec<Endpoint>,
    /// The ACL user on the sentinels. Defaults to none, which logs in as the user `default`.
    pub username: Option<String>,
    /// The password on the sentinels. Defaults to none, whatever the password of the server is.
    pub password: Option<PasswordSource>,
}

impl Sentinels {
    /// The sentinels at `nodes`, which know the primary as `master`, without user and password.
    pub fn new(master: impl Into<String>, nodes: Vec<Endpoint>) -> Self {
        Self { master: master.into(), nodes, username: None, password: None }
    }
}

/// The network address of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A host name or an IP address, an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Brackets separate an IPv6 address from the port.
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
    /// True if both name a server in common. Compares the endpoints as text, without a name lookup.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sentinel(a), Self::Sentinel(b)) => {
                a.master == b.master && a.nodes.iter().any(|node| b.nodes.contains(node))
            }
            (Self::Sentinel(_), _) | (_, Self::Sentinel(_)) => false,
            _ => self.endpoints().iter().any(|endpoint| other.endpoints().contains(endpoint)),
        }
    }

    fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Server(endpoint) => std::slice::from_ref(endpoint),
            Self::Cluster(nodes) => nodes,
            Self::Sentinel(sentinels) => &sentinels.nodes,
        }
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(endpoint) => fmt::Display::fmt(endpoint, f),
            Self::Cluster(nodes) => {
                f.write_str("cluster ")?;
                list(nodes, f)
            }
            Self::Sentinel(sentinels) => fmt::Display::fmt(sentinels, f),
        }
    }
}

fn list(endpoints: &[Endpoint], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (nth, endpoint) in endpoints.iter().enumerate() {
        if nth > 0 {
            f.write_str(",")?;
        }
        write!(f, "{endpoint}")?;
    }
    Ok(())
}

/// TLS for the connections to a server. The server's certificate must name the configured host and be issued by a
/// trusted CA; this check cannot be disabled. The default trusts the system's CAs and presents no certificate.
///
/// The files are PEM. They are read for each connection, so that certificates can be renewed while the host runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The trusted CA certificates, instead of the system's. Defaults to none, the system's.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, for servers that require one. Defaults to none.
    pub client: Option<ClientCertificate>,
}

/// A client certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// The certificate, followed by the intermediate certificates up to its CA.
    pub cert_file: PathBuf,
    /// The private key, not encrypted.
    pub key_file: PathBuf,
}

impl ClientCertificate {
    /// A certificate and its private key, each in a PEM file.
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self { cert_file: cert_file.into(), key_file: key_file.into() }
    }
}
