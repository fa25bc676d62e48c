//! Connections for outgoing requests: name lookup, TCP and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi_http::Error;

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
    lookups: Arc<Semaphore>,
    /// Created on first use, as it reads the system's CA certificates. `None` if that failed; it is not tried again, so
    /// that a plugin cannot fill the log.
    tls: OnceCell<Option<TlsConnector>>,
}

impl Connector {
    /// Connects to the destination. `limit` is divided among the addresses of its host.
    pub(super) async fn connect(
        &self,
        destination: &Destination,
        is_secure: bool,
        limit: Duration,
    ) -> Result<Box<dyn Stream>, Error> {
        let addresses =
            self.look_up(destination, |host, port| (host, port).to_socket_addrs().map(Vec::from_iter)).await?;
        let failed = |error| connect_error(destination, &error);
        let stream = reach(&addresses, limit).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if !is_secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(destination.host()).map_err(|_| Error::HttpRequestUriInvalid)?;
        let tls = self.tls.get_or_init(new_tls).await.as_ref().ok_or(Error::ConfigurationError)?;
        let stream = tls.connect(name, stream).await.map_err(|error| tls_error(destination, &error))?;
        Ok(Box::new(stream))
    }

    /// The addresses of the destination. A name is looked up by a function that may block.
    async fn look_up(
        &self,
        destination: &Destination,
        look_up: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Result<Vec<SocketAddr>, Error> {
        let (host, port) = (destination.host(), destination.port());
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let unknown = || Error::DnsError { rcode: None, info_code: None };
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(|_| unknown())?;
        let looking = tokio::task::spawn_blocking(move || {
            let _permit_until_the_lookup_ends = permit;
            look_up(&host, port)
        });
        match looking.await.map_err(io::Error::other).flatten() {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(unknown()),
            Err(error) => {
                tracing::debug!("cannot look up `{destination}`: {error}");
                Err(unknown())
            }
        }
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)), tls: OnceCell::new() }
    }
}

/// Connects to the first address that accepts. Each address gets an equal share of the remaining time, so that an
/// address that drops packets does not use up the time of the others.
async fn reach(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let began = Instant::now();
    let mut last_error = io::ErrorKind::TimedOut.into();
    for (index, address) in addresses.iter().enumerate() {
        let remaining = u32::try_from(addresses.len().saturating_sub(index)).unwrap_or(u32::MAX);
        let share = limit.saturating_sub(began.elapsed()).checked_div(remaining).unwrap_or_default();
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last_error = error,
            Err(_elapsed) => last_error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last_error)
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
fn connect_error(destination: &Destination, error: &io::Error) -> Error {
    tracing::debug!("cannot connect to `{destination}`: {error}");
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
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
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::task::{Context, Waker};

    use super::*;

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
            Ok(vec![([127, 0, 0, 1], 80).into()])
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
        let (connector, slow) = (Arc::new(Connector::default()), Arc::new(Slow::default()));
        let mut asking = tokio::task::JoinSet::new();
        let ask = |slow: &Arc<Slow>| {
            let (connector, slow) = (Arc::clone(&connector), Arc::clone(slow));
            async move {
                let destination = Destination::new("name.example", 80).unwrap();
                connector.look_up(&destination, move |_, _| slow.look_up()).await
            }
        };
        for _ in 0..40 {
            asking.spawn(ask(&slow));
        }
        slow.are_running(16).await;
        asking.shutdown().await;
        let mut next = pin!(ask(&slow));
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(connector.lookups.available_permits(), 0);
        *slow.is_over.lock().unwrap() = true;
        slow.ended.notify_all();
        assert_eq!(next.await.unwrap().len(), 1);
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
