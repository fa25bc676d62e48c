//! The HTTP server: plugins that answer requests.
//!
//! Each request runs in a sandbox of its own, so no request sees the state of another, unless the plugin has a `reuse`.
//! The server speaks HTTP/1.1 and HTTP/2 without TLS. Terminate TLS in a proxy.

mod access_log;
mod admission;
mod answer;
mod answer_body;
mod begin;
mod concurrent;
mod connection;
mod crowd;
mod descriptors;
mod error_response;
mod error_text;
mod file_watch;
mod handler;
mod instance_metrics;
mod instances;
mod places;
mod request;
mod request_body;
mod request_state;
mod response;
mod state;
mod target;
mod upload;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::error::Error;
use crate::runtime::{Plugin, Runtime};
use connection::OpenConnection;
pub use descriptors::raise_descriptor_limit;
use state::ServerState;

/// The pause before the next accept if the system has no resources for another connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The shortest time between two lines about errors of accepting.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(1);

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
    /// [`Error::Load`] for a plugin that exports neither `wasi:http/incoming-handler` of WASI 0.2 nor `wasi:http/handler` of
    /// WASI 0.3. The plugin's author must fix it.
    pub fn new(runtime: Runtime, plugins: impl IntoIterator<Item = (String, Plugin)>) -> Result<Self, Error> {
        Ok(Self { state: Arc::new(ServerState::new(runtime, plugins)?) })
    }

    /// Serves requests until `shutdown` completes. Then it accepts no more connections, gives running requests
    /// `shutdown_timeout` to complete, cuts the others off, and waits until pending lease releases are finished.
    pub async fn run(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let ServerState { runtime, admission, cut_off, connections, .. } = &*self.state;
        let mut refused = AcceptLog::default();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => match connections.open().await {
                        Some(open) => self.serve_connection(stream, open),
                        None => tracing::debug!("closed a new connection: there is no room, and no other one is idle"),
                    },
                    Err(error) => {
                        refused.warn(&error);
                        if !concerns_one_connection(&error) {
                            connections.make_room(ACCEPT_RETRY_DELAY).await;
                        }
                    }
                },
                () = &mut shutdown => break,
            }
        }
        drop(listener);
        let options = runtime.serve();
        let state = Arc::clone(&self.state);
        let closing = tokio::task::spawn_blocking(move || state.close_instances());
        connections.shut_down();
        let completed = async {
            connections.until_closed().await;
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
        // It panics if one of them does when it is dropped, and the host ends all the same.
        let _closed = closing.await;
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

    // Not async, so that this crate compiles the connection, and not the one that polls `run`.
    fn serve_connection(&self, stream: TcpStream, open: OpenConnection) {
        // Responses are short: Nagle's algorithm would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
        let state = Arc::clone(&self.state);
        let timeouts = state.timeouts;
        let respond = move |request, answer| Arc::clone(&state).respond(request, answer);
        tokio::spawn(connection::serve(stream, open, timeouts, respond));
    }
}

/// Logs the errors of accepting connections, one line a second at most.
#[derive(Debug, Default)]
struct AcceptLog {
    last: Option<Instant>,
    /// Errors since then.
    omitted: u64,
}

impl AcceptLog {
    fn warn(&mut self, error: &io::Error) {
        if self.last.is_some_and(|last| last.elapsed() < ACCEPT_LOG_INTERVAL) {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        self.last = Some(Instant::now());
        match std::mem::take(&mut self.omitted) {
            0 => tracing::warn!("cannot accept a connection: {error}"),
            omitted => tracing::warn!("cannot accept a connection: {error} (and {omitted} times before)"),
        }
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
