//! The state of the HTTP server: its routes and their plugins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::access_log;
use super::admission::{Admission, PluginAdmission};
use super::connection::{OpenConnections, Timeouts};
use super::crowd::Crowd;
use super::descriptors::max_connections;
use super::handler::{Handler, Hosting};
use super::places::Places;
use crate::cache::text::one_line;
use crate::config::Reuse;
use crate::console;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::runtime::Runtime;

/// How many responses of the host itself may wait for their clients with a body. Further ones have none, and so leave
/// nothing to wait for.
const MAX_REFUSALS: usize = 16_384;

/// The state that all requests share.
pub(super) struct ServerState {
    pub(super) runtime: Runtime,
    /// Sorted by prefix, the longest first.
    pub(super) routes: Vec<ServedRoute>,
    pub(super) admission: Admission,
    /// One permit for each response of the host itself that has a body.
    pub(super) refusals: Arc<Semaphore>,
    pub(super) connections: Arc<OpenConnections>,
    pub(super) timeouts: Timeouts,
    pub(super) crowd: Arc<Crowd>,
    /// `None` if no plugin has a `reuse`.
    pub(super) places: Option<Arc<Places>>,
    /// The places of the instances of WASI 0.3: as many as requests may run.
    pub(super) concurrent_places: Arc<Places>,
    /// Cancels the running requests.
    pub(super) cut_off: CancellationToken,
}

/// A path prefix and the plugin that serves it.
pub(super) struct ServedRoute {
    pub(super) prefix: String,
    pub(super) admission: PluginAdmission,
    /// Replaced on a reload. A running request keeps the plugin that it started with.
    handler: RwLock<Arc<Handler>>,
    /// Held during a reload, so that of two reloads the later one wins. Waiting for it takes no thread.
    /// It has the number of the last request that was served.
    reloading: Mutex<u64>,
    /// The number of reloads that were requested.
    requested: AtomicU64,
}

impl ServerState {
    /// Sorts the routes, and checks that each plugin exports the HTTP handler.
    pub(super) fn new(runtime: Runtime, plugins: impl IntoIterator<Item = (String, Plugin)>) -> Result<Self, Error> {
        let plugins: Vec<_> = plugins.into_iter().collect();
        let max = runtime.serve().max_concurrent_requests;
        let admission = Admission::new(max, plugins.len());
        let grant = |plugin: &Plugin| runtime.caches().config().grant(plugin.name());
        let places = plugins.iter().any(|(_, plugin)| grant(plugin).reuse.is_some()).then(|| Places::new(max));
        let concurrent_places = Places::new(max);
        let mut routes = plugins
            .into_iter()
            .map(|(prefix, plugin)| {
                let grant = grant(&plugin);
                let admission = admission.plugin(grant.max_concurrent_requests);
                let hosting = hosting(&runtime, grant.reuse, places.as_ref(), &concurrent_places);
                let handler = RwLock::new(Arc::new(Handler::new(plugin, &hosting)?));
                Ok(ServedRoute {
                    prefix,
                    admission,
                    handler,
                    reloading: Mutex::default(),
                    requested: AtomicU64::new(0),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        let names: Vec<_> = routes.iter().map(|route| route.handler().plugin.name().to_owned()).collect();
        for warning in runtime.caches().config().warnings_about(&names, true) {
            tracing::warn!("{}", one_line(&warning));
        }
        console::prepare(runtime.serve().max_queued_output, names.iter().map(String::as_str));
        access_log::create_series(names.iter().map(String::as_str));
        let connections = OpenConnections::new(max_connections(runtime.serve().max_connections));
        let (refusals, timeouts) = (Arc::new(Semaphore::new(MAX_REFUSALS)), Timeouts::default());
        let (crowd, cut_off) = (Arc::new(Crowd::new()), CancellationToken::new());
        Ok(Self {
            runtime,
            routes,
            admission,
            refusals,
            connections,
            timeouts,
            crowd,
            places,
            concurrent_places,
            cut_off,
        })
    }

    /// The route of the path.
    pub(super) fn route(&self, path: &str) -> Option<&ServedRoute> {
        let is_below = |prefix: &str| {
            let rest = path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.routes.iter().find(|route| is_below(&route.prefix))
    }
}

impl ServedRoute {
    pub(super) fn handler(&self) -> Arc<Handler> {
        Arc::clone(&self.handler.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reloads the plugin, or keeps the previous version if its file cannot be loaded.
    fn load_again(&self, state: &ServerState) {
        let runtime = &state.runtime;
        let old = self.handler();
        let (name, path) = (one_line(old.plugin.name()), old.plugin.path());
        let reuse = runtime.caches().config().grant(old.plugin.name()).reuse;
        let hosting = hosting(runtime, reuse, state.places.as_ref(), &state.concurrent_places);
        match runtime.load(path, Some(old.plugin.name())).and_then(|plugin| Handler::new(plugin, &hosting)) {
            Ok(new) => {
                *self.handler.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                old.close();
                tracing::info!("reloaded plugin `{name}`");
            }
            Err(error) => {
                tracing::error!("kept the previous version of plugin `{name}`: {}", one_line(&error.to_string()))
            }
        }
    }
}

fn hosting<'a>(
    runtime: &Runtime,
    reuse: Option<Reuse>,
    places: Option<&'a Arc<Places>>,
    concurrent_places: &'a Arc<Places>,
) -> Hosting<'a> {
    Hosting { reuse, places, concurrent_places, threads: runtime.threads() }
}

/// Reloads the plugin of one route, independently of all others: in a thread that may block, of which each route has
/// one at most. It goes on if the handle is dropped. A request that a reload begun later has served does nothing.
pub(super) fn reload(state: &Arc<ServerState>, index: usize) -> JoinHandle<()> {
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let Some(route) = state.routes.get(index) else { return };
        let number = route.requested.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut last_served = route.reloading.lock().await;
        if *last_served >= number {
            return;
        }
        let served = route.requested.load(Ordering::Relaxed);
        let loading = Arc::clone(&state);
        let load = move || loading.routes.get(index).map(|route| route.load_again(&loading));
        if let Err(error) = tokio::task::spawn_blocking(load).await {
            tracing::error!("cannot reload a plugin: {error}");
        }
        *last_served = served;
    })
}
