//! The stream to a server: TCP with keepalive, and TLS if it is configured.

// Decision: docs/decisions/0023-the-host-opens-the-socket-and-the-client-speaks-on-it.md

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::tls;
use crate::valkey::options::{Endpoint, TlsOptions};

/// Keepalive: an idle connection is probed after this time, then after each interval, and closed after this number of
/// probes without a reply. Otherwise the first calls after a silent partition would time out.
const IDLE_BEFORE_PROBE: StdDuration = StdDuration::from_secs(10);
const PROBE_INTERVAL: StdDuration = StdDuration::from_secs(3);
const PROBES: u32 = 3;

/// On Linux a connection is also closed if sent data is not acknowledged within this time.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: StdDuration = StdDuration::from_secs(10);

/// TCP, or TLS over TCP.
pub(in crate::valkey) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::valkey) enum StreamError {
    /// TCP failed, or with TLS the server's certificate is not valid for it, or the server refused the client.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// A file of the configuration cannot be used.
    #[error("`{key}` = `{file}`: {reason}")]
    File {
        /// The key in the configuration.
        key: &'static str,
        file: String,
        reason: String,
    },
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
) -> Result<Box<dyn Stream>, StreamError> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
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
    // Reads files.
    let config = tokio::task::spawn_blocking(move || client_config(&tls)).await.map_err(io::Error::other)??;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
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
            let key = PrivateKeyDer::from_pem_file(&client.key_file);
            let key = key.map_err(|error| unreadable("key_file", &client.key_file, error))?;
            config
                .with_client_auth_cert(certificates("cert_file", &client.cert_file)?, key)
                .map_err(|error| unusable("cert_file", &client.cert_file, error))?
        }
    })
}

/// The certificates of a file, at least one.
fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, StreamError> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(none) if none.is_empty() => Err(unusable(key, file, "it holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unreadable(key, file, error)),
    }
}

/// Hides the text of the error, which may show the content of the file: a private key is secret.
fn unreadable(key: &'static str, file: &Path, error: pem::Error) -> StreamError {
    match error {
        pem::Error::Io(error) => unusable(key, file, error),
        pem::Error::NoItemsFound => unusable(key, file, "it holds none in PEM"),
        _ => unusable(key, file, "it is not valid PEM"),
    }
}

fn unusable(key: &'static str, file: &Path, reason: impl ToString) -> StreamError {
    StreamError::File { key, file: file.display().to_string(), reason: reason.to_string() }
}
