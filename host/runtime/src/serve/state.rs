//! The state of the HTTP server: its routes, its permits and its plugins.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::connection::{OpenConnections, Timeouts};
use super::descriptors::max_connections;
use super::handler::Handler;
use crate::cache::text::one_line;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::runtime::Runtime;

/// An admitted request. It counts until this is dropped.
pub(super) type Admitted = OwnedSemaphorePermit;

/// How many responses of the host itself may wait for their clients with a body. Further ones have none, and so leave
/// nothing to wait for.
const MAX_REFUSALS: usize = 16_384;

/// The state that all requests share.
pub(super) struct ServerState {
    pub(super) runtime: Runtime,
    /// Sorted by prefix, the longest first.
    pub(super) routes: Vec<ServedRoute>,
    /// One permit for each request that may run.
    pub(super) permits: Arc<Semaphore>,
    /// One permit for each response of the host itself that has a body.
    pub(super) refusals: Arc<Semaphore>,
    pub(super) connections: Arc<OpenConnections>,
    pub(super) timeouts: Timeouts,
    /// Cancels the running requests.
    pub(super) cut_off: CancellationToken,
}

/// A path prefix and the plugin that serves it.
pub(super) struct ServedRoute {
    pub(super) prefix: String,
    /// Replaced on a reload. A running request keeps the plugin that it started with.
    handler: RwLock<Arc<Handler>>,
    /// Held during a reload, so that of two reloads the later one wins.
    reloading: Mutex<()>,
}

impl ServerState {
    /// Sorts the routes, and checks that each plugin exports the HTTP handler.
    pub(super) fn new(runtime: Runtime, plugins: impl IntoIterator<Item = (String, Plugin)>) -> Result<Self, Error> {
        let mut routes = plugins
            .into_iter()
            .map(|(prefix, plugin)| {
                let handler = RwLock::new(Arc::new(Handler::new(plugin)?));
                Ok(ServedRoute { prefix, handler, reloading: Mutex::default() })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        let permits = Arc::new(Semaphore::new(runtime.serve().max_concurrent_requests));
        let connections = OpenConnections::new(max_connections(runtime.serve().max_connections));
        let (refusals, timeouts) = (Arc::new(Semaphore::new(MAX_REFUSALS)), Timeouts::default());
        Ok(Self { runtime, routes, permits, refusals, connections, timeouts, cut_off: CancellationToken::new() })
    }

    /// The plugin that serves the path.
    pub(super) fn route(&self, path: &str) -> Option<Arc<Handler>> {
        let is_below = |prefix: &str| {
            let rest = path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.routes.iter().find(|route| is_below(&route.prefix)).map(ServedRoute::handler)
    }
}

impl ServedRoute {
    pub(super) fn handler(&self) -> Arc<Handler> {
        Arc::clone(&self.handler.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reloads the plugin, or keeps the previous version if its file cannot be loaded.
    pub(super) fn reload(&self, runtime: &Runtime) {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.handler();
        let (name, path) = (one_line(old.plugin.name()), old.plugin.path());
        match runtime.load(path, Some(old.plugin.name())).and_then(Handler::new) {
            Ok(new) => {
                *self.handler.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!("reloaded plugin `{name}`");
            }
            Err(error) => {
                tracing::error!("kept the previous version of plugin `{name}`: {}", one_line(&error.to_string()))
            }
        }
    }
}
