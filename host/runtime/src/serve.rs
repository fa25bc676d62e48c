//! The HTTP server: plugins that answer requests.
//!
//! Each request runs in a sandbox of its own, so no request sees the state of another. The server speaks HTTP/1.1 and
//! HTTP/2 without TLS. Terminate TLS in a proxy.

mod access_log;
mod admission;
mod error_response;
mod file_watch;
mod handler;
mod request;
mod request_body;
mod state;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use crate::error::Error;
use crate::runtime::{Plugin, Runtime};
use state::ServerState;

/// How long the head of a request may take to arrive, and the answer to a ping of HTTP/2.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before the next accept if the system has no resources for another connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long plugins that are cut off may take to drop their resources. A plugin needs at most one tick.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves plugins over HTTP.
pub struct Server {
    state: Arc<ServerState>,
}

impl Server {
    /// Creates a server of these plugins, each with a path prefix: `/shop` is that path and all paths below it, `/` is
    /// every path. The longest matching prefix wins. The runtime's configuration has the limits of requests; create it
    /// with [`Runtime::for_requests`].
    ///
    /// # Errors
    ///
    /// [`Error::Load`] for a plugin that does not export `wasi:http/incoming-handler` of WASI 0.2. The plugin's author
    /// must fix it.
    pub fn new(runtime: Runtime, plugins: impl IntoIterator<Item = (String, Plugin)>) -> Result<Self, Error> {
        Ok(Self { state: Arc::new(ServerState::new(runtime, plugins)?) })
    }

    /// Serves requests until `shutdown` completes. Then it accepts no more connections, gives running requests
    /// `shutdown_timeout` to complete, cuts the others off, and waits until pending lease releases are finished.
    pub async fn run(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let connections = GracefulShutdown::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.serve_connection(stream, &connections),
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        if !concerns_one_connection(&error) {
                            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                        }
                    }
                },
                () = &mut shutdown => break,
            }
        }
        drop(listener);
        let ServerState { runtime, admission, cut_off, .. } = &*self.state;
        let options = runtime.serve();
        let completed = async {
            connections.shutdown().await;
            // A plugin may still be running after its response.
            admission.until_idle().await;
        };
        if tokio::time::timeout(options.shutdown_timeout, completed).await.is_err() {
            let timeout = humantime::format_duration(options.shutdown_timeout);
            tracing::warn!(
                "requests were still running {timeout} after shutdown was requested (`shutdown_timeout` of `[serve]`)"
            );
            cut_off.cancel();
            let _late = tokio::time::timeout(CUT_OFF_TIMEOUT, admission.until_idle()).await;
        }
        runtime.caches().drain().await;
    }

    /// Reloads all plugins from their files, each independently of the others. New requests use the new versions;
    /// running requests are not affected. If a file cannot be loaded, the server keeps the previous version and logs the
    /// reason.
    ///
    /// Returns once all are reloaded. The reloads go on if the future is dropped, and a file that changed meanwhile can be
    /// reloaded by another call.
    pub async fn reload(&self) {
        let all = 0..self.state.routes.len();
        let reloads: Vec<_> = all.map(|index| state::reload(&self.state, index)).collect();
        for reload in reloads {
            // It logs its failure itself.
            let _reloaded = reload.await;
        }
    }

    /// Polls the plugins' files once a second and reloads those that have changed, as [`Server::reload`] does for all. A
    /// file is reloaded once it is unchanged between two polls. Never returns.
    pub async fn watch(&self) -> Infallible {
        file_watch::watch(&self.state).await
    }

    fn serve_connection(&self, stream: TcpStream, connections: &GracefulShutdown) {
        // Responses are short: Nagle's algorithm would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).keep_alive_timeout(HEAD_TIMEOUT);
        let state = Arc::clone(&self.state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(state.respond(request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection failed: {error}");
            }
        });
    }
}

/// True if the error concerns only the connection that was to be accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<_> = self.state.routes.iter().map(|route| &route.prefix).collect();
        f.debug_struct("Server")
            .field("options", self.state.runtime.serve())
            .field("routes", &prefixes)
            .finish_non_exhaustive()
    }
}
