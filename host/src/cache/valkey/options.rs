//! Where a server is, who we are there, and how long it may take: what a backend must be told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration as StdDuration;

use crate::cache::valkey::identity::ServerKind;

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
    /// Name or address. Defaults to `localhost`.
    pub host: String,
    /// TCP port. Defaults to 6379.
    pub port: u16,
    /// Database number. Defaults to 0.
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
    /// How long a lease lasts that is not renewed, as when its holder was killed. Defaults to 10 s.
    pub lease: StdDuration,
}

impl ServerOptions {
    /// The server's address, without secrets.
    pub fn address(&self) -> String {
        // An IPv6 address needs its brackets to be told from the port.
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
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
