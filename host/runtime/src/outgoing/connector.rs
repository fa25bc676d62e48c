//! Connections for outgoing requests: name lookup, TCP and TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi_http::Error;

use crate::cache::tcp::{ConnectError, Resolver, TimeLimit};
use crate::cache::tls;
use crate::config::Destination;

/// The maximum number of concurrent name lookups of one plugin, over all its instances. A lookup occupies a thread of
/// the pool that all plugins share, and continues after the plugin has stopped waiting.
const MAX_LOOKUPS: usize = 16;

/// TCP, or TLS on top of it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Opens the connections of one plugin.
pub(super) struct Connector {
    resolver: Resolver,
    /// Created on first use, as it reads the system's CA certificates. `None` if that failed; it is not tried again, so
    /// that a plugin cannot fill the log.
    tls: OnceCell<Option<TlsConnector>>,
}

impl Connector {
    /// Connects to the destination. `limit` is that of the TCP connection and the name lookup.
    pub(super) async fn connect(
        &self,
        destination: &Destination,
        is_secure: bool,
        limit: Duration,
    ) -> Result<Box<dyn Stream>, Error> {
        let host = destination.host();
        let connecting = self.resolver.connect(&host, destination.port(), TimeLimit::new(limit));
        let stream = connecting.await.map_err(|error| connect_error(destination, &error))?;
        stream.set_nodelay(true).map_err(|_| Error::DestinationUnavailable)?;
        if !is_secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(destination.host()).map_err(|_| Error::HttpRequestUriInvalid)?;
        let tls = self.tls.get_or_init(new_tls).await.as_ref().ok_or(Error::ConfigurationError)?;
        let stream = tls.connect(name, stream).await.map_err(|error| tls_error(destination, &error))?;
        Ok(Box::new(stream))
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self { resolver: Resolver::system(MAX_LOOKUPS), tls: OnceCell::new() }
    }
}

/// A TLS client that trusts the system's CA certificates.
async fn new_tls() -> Option<TlsConnector> {
    let authorities = tokio::task::spawn_blocking(tls::system_roots).await;
    let config = authorities.map_err(|error| error.to_string()).and_then(|authorities| {
        if authorities.is_empty() {
            return Err("this machine has no CA certificates".to_owned());
        }
        tls::client_config(authorities).map_err(|error| error.to_string())
    });
    let config = config.map(|config| config.with_no_client_auth());
    let mut config =
        config.inspect_err(|reason| tracing::warn!("plugins cannot send requests with TLS: {reason}")).ok()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(TlsConnector::from(Arc::new(config)))
}

/// Logs the error. The plugin gets its kind only.
fn connect_error(destination: &Destination, error: &ConnectError) -> Error {
    tracing::debug!("cannot connect to `{destination}`: {error}");
    match error.kind() {
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        _ if error.is_lookup() => Error::DnsError { rcode: None, info_code: None },
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        _ => Error::DestinationUnavailable,
    }
}

fn tls_error(destination: &Destination, error: &io::Error) -> Error {
    tracing::debug!("TLS with `{destination}` failed: {error}");
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: None }
        }
        _ => Error::TlsProtocolError,
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::task::{Context, Waker};

    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    fn connector(lookup: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Connector {
        Connector { resolver: Resolver::from_fn(MAX_LOOKUPS, move |_, _| lookup()), tls: OnceCell::new() }
    }

    #[tokio::test]
    async fn a_destination_is_reached_although_the_first_address_of_its_name_is_dead() {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // A port that is reserved for a service that no machine runs.
        let dead = SocketAddr::from(([127, 0, 0, 1], 1));
        let destination = Destination::new("two.example.com", 80).unwrap();
        let limit = Duration::from_secs(60);
        let connect = async |addresses: Vec<SocketAddr>| {
            connector(move || Ok(addresses.clone())).connect(&destination, false, limit).await.map(drop)
        };
        assert!(connect(vec![dead, upstream.local_addr().unwrap()]).await.is_ok());
        let refused = connect(vec![dead, dead]).await;
        assert!(matches!(refused, Err(Error::ConnectionRefused)), "{refused:?}");
        let unknown = connect(Vec::new()).await;
        assert!(matches!(unknown, Err(Error::DnsError { .. })), "{unknown:?}");
    }

    /// Name lookups that last until they are let go.
    #[derive(Default)]
    struct Slow {
        running: AtomicUsize,
        most: AtomicUsize,
        is_over: Mutex<bool>,
        ended: Condvar,
    }

    impl Slow {
        fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
            let running = self.running.fetch_add(1, Ordering::SeqCst).saturating_add(1);
            self.most.fetch_max(running, Ordering::SeqCst);
            drop(self.ended.wait_while(self.is_over.lock().unwrap(), |is_over| !*is_over).unwrap());
            self.running.fetch_sub(1, Ordering::SeqCst);
            Ok(Vec::new())
        }

        async fn are_running(&self, count: usize) {
            let running = async {
                while self.running.load(Ordering::SeqCst) != count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), running).await.expect("the lookups run");
        }
    }

    /// Also if the plugin has stopped waiting: the thread of a lookup is occupied until it ends.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_plugin_has_at_most_16_name_lookups_at_a_time() {
        let slow = Arc::new(Slow::default());
        let looking = Arc::clone(&slow);
        let connector = Arc::new(connector(move || looking.look_up()));
        let mut asking = tokio::task::JoinSet::new();
        let ask = || {
            let connector = Arc::clone(&connector);
            async move {
                let destination = Destination::new("name.example", 80).unwrap();
                connector.connect(&destination, false, Duration::from_secs(60)).await.map(drop)
            }
        };
        for _ in 0..40 {
            asking.spawn(ask());
        }
        slow.are_running(16).await;
        asking.shutdown().await;
        let mut next = pin!(ask());
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        *slow.is_over.lock().unwrap() = true;
        slow.ended.notify_all();
        assert!(matches!(next.await, Err(Error::DnsError { .. })));
        assert_eq!(slow.most.load(Ordering::SeqCst), 16);
    }

    /// A listener whose queue is full, so that it drops what would open a further connection.
    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_is_given_up_at_the_limit() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            queued.push(stream);
        }
        let destination = Destination::new(&address.to_string(), 80).unwrap();
        let began = Instant::now();
        // The clock is paused, and goes on when nothing else can.
        let limit = Duration::from_secs(10);
        let refused = Connector::default().connect(&destination, false, limit).await.map(drop);
        assert!(matches!(refused, Err(Error::ConnectionTimeout)), "{refused:?}");
        assert!((limit..limit * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}
