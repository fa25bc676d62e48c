//! The stream to a server: TCP with keepalive, and TLS if it is configured.

// Decision: docs/decisions/0023-the-host-opens-the-socket-and-the-client-speaks-on-it.md

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::blocking::BlockingCalls;
use crate::tcp::{ConnectError, Resolver, TimeLimit};
use crate::valkey::options::{Endpoint, TlsOptions};
use crate::{small_file, tls};

/// Keepalive: an idle connection is probed after this time, then after each interval, and closed after this number of
/// probes without a reply. Otherwise the first calls after a silent partition would time out.
const IDLE_BEFORE_PROBE: StdDuration = StdDuration::from_secs(10);
const PROBE_INTERVAL: StdDuration = StdDuration::from_secs(3);
const PROBES: u32 = 3;

/// On Linux a connection is also closed if sent data is not acknowledged within this time.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: StdDuration = StdDuration::from_secs(10);

/// The longest file with certificates or a key, in bytes. The bundle of a system's CA certificates has 250 KB.
const MAX_FILE: u64 = 4 << 20;

/// The maximum number of files of one cache that are read at a time. One on a file system that hangs occupies a thread.
const MAX_READS: usize = 8;

/// What all connections of a cache use to look up names and read files. Clones share the limits.
#[derive(Debug, Clone)]
pub(in crate::valkey) struct Network {
    pub(in crate::valkey) resolver: Resolver,
    pub(in crate::valkey) files: BlockingCalls,
}

impl Network {
    pub(in crate::valkey) fn new(resolver: Resolver) -> Self {
        Self { resolver, files: BlockingCalls::new(MAX_READS) }
    }
}

/// TCP, or TLS over TCP.
pub(in crate::valkey) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::valkey) enum StreamError {
    /// No address of the host accepted the connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// TCP failed, or with TLS the server's certificate is not valid for it, or the server refused the client.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The server's answer to the start of TLS is not TLS.
    #[error("the server does not speak TLS on this port; it may expect a connection without TLS")]
    NoTls,
    /// A file of the configuration cannot be used.
    #[error("`{key}` = `{file}`: {reason}")]
    File {
        /// The key in the configuration.
        key: &'static str,
        file: String,
        reason: String,
    },
    /// The server does not answer the start of TLS. One without TLS takes it for the beginning of a command.
    #[error("no answer within {0:?} to the start of TLS; the server may expect a connection without TLS")]
    SilentTls(StdDuration),
    /// The configuration is not valid for a TLS client.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system has no CA certificates.
    #[error("TLS: this machine has no certificate authorities to trust; name them by `ca_file`")]
    NoCaCertificates,
    /// The host is neither a DNS name nor an IP address, so no certificate can name it.
    #[error("TLS: no certificate can be for the host `{0}`")]
    HostName(String),
}

/// Opens a stream to the server.
pub(in crate::valkey) async fn open(
    endpoint: &Endpoint,
    tls: Option<&TlsOptions>,
    network: &Network,
    time: TimeLimit,
) -> Result<Box<dyn Stream>, StreamError> {
    let stream = network.resolver.connect(&endpoint.host, endpoint.port, time).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(IDLE_BEFORE_PROBE).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(endpoint.host.clone());
    let name = name.map_err(|_| StreamError::HostName(endpoint.host.clone()))?;
    let tls = tls.clone();
    let config = network.files.run(move || client_config(&tls)).await??;
    let securing = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let secured = timeout_at(time.deadline(), securing).await.map_err(|_| StreamError::SilentTls(time.limit()))?;
    Ok(Box::new(secured.map_err(tls_error)?))
}

fn tls_error(error: io::Error) -> StreamError {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidMessage(_)) => StreamError::NoTls,
        _ => StreamError::Connection(error),
    }
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig, StreamError> {
    let trusted = match &options.ca_file {
        Some(file) => {
            let mut trusted = RootCertStore::empty();
            for certificate in certificates("ca_file", file)? {
                trusted.add(certificate).map_err(|error| unusable("ca_file", file, error))?;
            }
            trusted
        }
        None => tls::system_roots(),
    };
    if trusted.is_empty() {
        return Err(StreamError::NoCaCertificates);
    }
    let config = tls::client_config(trusted)?;
    Ok(match &options.client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let key = read("key_file", &client.key_file)?;
            let key = PrivateKeyDer::from_pem_slice(&key);
            let key = key.map_err(|error| unreadable("key_file", &client.key_file, error))?;
            config
                .with_client_auth_cert(certificates("cert_file", &client.cert_file)?, key)
                .map_err(|error| unusable("cert_file", &client.cert_file, error))?
        }
    })
}

/// The certificates of a file, at least one.
fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, StreamError> {
    let content = read(key, file)?;
    match CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>() {
        Ok(none) if none.is_empty() => Err(unusable(key, file, "it holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unreadable(key, file, error)),
    }
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, StreamError> {
    small_file::read(file, MAX_FILE).map_err(|error| unusable(key, file, error))
}

/// Hides the text of the error, which may show the content of the file: a private key is secret.
fn unreadable(key: &'static str, file: &Path, error: pem::Error) -> StreamError {
    match error {
        pem::Error::NoItemsFound => unusable(key, file, "it holds none in PEM"),
        _ => unusable(key, file, "it is not valid PEM"),
    }
}

fn unusable(key: &'static str, file: &Path, reason: impl ToString) -> StreamError {
    StreamError::File { key, file: file.display().to_string(), reason: reason.to_string() }
}
