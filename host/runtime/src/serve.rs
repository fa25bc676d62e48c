//! Plugins that answer HTTP requests: connections, routes, and an orderly end.
//!
//! Each request has a sandbox of its own, so what one does to its plugin no other ever sees. HTTP/1.1 and HTTP/2 are
//! served in clear text; TLS is the business of what stands in front.

mod answer;
mod body;
mod request;
mod watch;

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, one_line};
use crate::runtime::{Plugin, Runtime};
use request::Handler;

/// How long the head of a request may take to arrive, and an HTTP/2 connection may leave a ping unanswered.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long we wait to accept again where the system has no room for another connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long plugins that are cut off may take to let go of what they hold, which is no more than a tick each.
const LET_GO: Duration = Duration::from_secs(1);

/// Serves plugins over HTTP.
pub struct Server {
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    runtime: Runtime,
    /// The longest prefix first.
    routes: Vec<Route>,
    /// One for each request that may be under way.
    permits: Arc<Semaphore>,
    /// Cuts off what still runs.
    cut_off: CancellationToken,
}

/// A plugin under its prefix.
struct Route {
    prefix: String,
    /// Replaced as a whole: a request that runs keeps the plugin it began with.
    handler: RwLock<Arc<Handler>>,
    /// Held while the file is read again, so that who read it last is the last to be served.
    reloading: Mutex<()>,
}

impl Server {
    /// A server of these plugins, each under a path prefix: `/shop` means that path and all below it, `/` every path.
    /// Of several prefixes that fit the longest counts. The runtime's configuration bounds the requests; it is one made
    /// [for requests](Runtime::for_requests).
    ///
    /// # Errors
    ///
    /// [`Error::Load`] for a plugin that does not export `wasi:http/incoming-handler` of WASI 0.2.
    pub fn new(runtime: Runtime, plugins: impl IntoIterator<Item = (String, Plugin)>) -> Result<Self, Error> {
        let mut routes = plugins
            .into_iter()
            .map(|(prefix, plugin)| {
                let handler = RwLock::new(Arc::new(Handler::new(plugin)?));
                Ok(Route { prefix, handler, reloading: Mutex::default() })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        let permits = Arc::new(Semaphore::new(runtime.serve().max_concurrent_requests));
        let cut_off = CancellationToken::new();
        Ok(Self { shared: Arc::new(Shared { runtime, routes, permits, cut_off }) })
    }

    /// Answers requests until `shutdown` comes. Then it takes no new connection, lets requests that run end within
    /// `shutdown_timeout`, and waits until what they were computing is open to others.
    pub async fn run(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let connections = GracefulShutdown::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.serve_connection(stream, &connections),
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        if !is_of_one_connection(&error) {
                            tokio::time::sleep(ACCEPT_AGAIN).await;
                        }
                    }
                },
                () = &mut shutdown => break,
            }
        }
        drop(listener);
        let Shared { runtime, permits, cut_off, .. } = &*self.shared;
        let options = runtime.serve();
        let all = u32::try_from(options.max_concurrent_requests).unwrap_or(u32::MAX);
        let ended = async {
            connections.shutdown().await;
            // A plugin may go on after its answer.
            let _closed = permits.acquire_many(all).await;
        };
        if tokio::time::timeout(options.shutdown_timeout, ended).await.is_err() {
            let timeout = humantime::format_duration(options.shutdown_timeout);
            tracing::warn!(
                "requests still ran {timeout} after the end was asked for (`shutdown_timeout` of `[serve]`)"
            );
            cut_off.cancel();
            let _late = tokio::time::timeout(LET_GO, permits.acquire_many(all)).await;
        }
        runtime.caches().drain().await;
    }

    /// Reads all plugins' files again. Requests that come from then on are answered by what is there now; those that run
    /// are not disturbed. A plugin whose file cannot be served stays as it is, and the log says why.
    pub async fn reload(&self) {
        let shared = Arc::clone(&self.shared);
        // To compile takes its time, in which others are served.
        let reload = move || shared.routes.iter().for_each(|route| route.reload(&shared.runtime));
        if let Err(error) = tokio::task::spawn_blocking(reload).await {
            tracing::error!("cannot reload the plugins: {error}");
        }
    }

    fn serve_connection(&self, stream: TcpStream, connections: &GracefulShutdown) {
        // Answers are short, and nobody should wait for more of one to come together.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).keep_alive_timeout(HEAD_TIMEOUT);
        let shared = Arc::clone(&self.shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, std::convert::Infallible>(shared.answer(request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
        });
    }
}

impl Shared {
    /// The plugin under whose prefix the path is.
    fn route(&self, path: &str) -> Option<Arc<Handler>> {
        let is_below = |prefix: &str| {
            let rest = path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.routes.iter().find(|route| is_below(&route.prefix)).map(Route::handler)
    }
}

impl Route {
    fn handler(&self) -> Arc<Handler> {
        Arc::clone(&self.handler.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the plugin's file again. What cannot be served leaves the old one in its place.
    fn reload(&self, runtime: &Runtime) {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.handler();
        let (name, path) = (one_line(old.plugin().name()), old.plugin().path());
        match runtime.load(path, Some(old.plugin().name())).and_then(Handler::new) {
            Ok(new) => {
                *self.handler.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!("plugin `{name}` is loaded anew");
            }
            Err(error) => tracing::error!("plugin `{name}` stays as it was: {}", one_line(&error.to_string())),
        }
    }
}

/// Whether the error is that of the connection that was to be accepted, and not of all that come.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<_> = self.shared.routes.iter().map(|route| &route.prefix).collect();
        f.debug_struct("Server")
            .field("options", self.shared.runtime.serve())
            .field("routes", &prefixes)
            .finish_non_exhaustive()
    }
}
