//! A plugin that exports the HTTP handler.

use std::sync::Arc;

use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::access_log::RequestMetrics;
use super::concurrent::InstancePool;
use super::instances::Instances;
use super::places::Places;
use crate::command::Command;
use crate::config::Reuse;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::plugin_state::PluginState;

/// A plugin that exports the HTTP handler.
pub(super) struct Handler {
    pub(super) plugin: Plugin,
    pub(super) proxy: Proxy,
    pub(super) metrics: RequestMetrics,
}

/// The HTTP handler, by the version of WASI that it is of.
pub(super) enum Proxy {
    /// `wasi:http/incoming-handler` of WASI 0.2: an instance answers one request at a time.
    Sequential {
        pre: ProxyPre<PluginState>,
        /// `None` if each request gets an instance of its own.
        instances: Option<Arc<Instances>>,
    },
    /// `wasi:http/handler` of WASI 0.3: an instance answers many requests at the same time.
    Concurrent { pre: ServicePre<PluginState>, pool: InstancePool },
}

/// What the handlers of a plugin have in common, whatever the version of its file.
pub(super) struct Hosting<'a> {
    pub(super) reuse: Option<Reuse>,
    /// `None` if no plugin has a `reuse`.
    pub(super) places: Option<&'a Arc<Places>>,
    pub(super) concurrent_places: &'a Arc<Places>,
    /// The number of instances that can compute at the same time.
    pub(super) threads: usize,
}

impl Handler {
    pub(super) fn new(plugin: Plugin, hosting: &Hosting<'_>) -> Result<Self, Error> {
        let proxy = Proxy::of(&plugin, hosting).ok_or_else(|| {
            let next = match Command::of(&plugin) {
                Some(_) => format!("it is a command: type `larder run {}`", plugin.path().display()),
                None => "build it with an HTTP handler, as `larder new --http` does".to_owned(),
            };
            plugin.load_error(&format!(
                "it exports neither `wasi:http/incoming-handler` of WASI 0.2 nor `wasi:http/handler` of WASI 0.3, so it \
                 cannot answer requests; {next}"
            ))
        })?;
        let metrics = RequestMetrics::new(plugin.name());
        Ok(Self { plugin, proxy, metrics })
    }

    /// The instances that answer one request at a time.
    pub(super) fn instances(&self) -> Option<&Arc<Instances>> {
        match &self.proxy {
            Proxy::Sequential { instances, .. } => instances.as_ref(),
            Proxy::Concurrent { .. } => None,
        }
    }

    /// The instances that answer many requests at the same time.
    pub(super) fn pool(&self) -> Option<&InstancePool> {
        match &self.proxy {
            Proxy::Sequential { .. } => None,
            Proxy::Concurrent { pool, .. } => Some(pool),
        }
    }

    /// Ends all instances after the requests that they have.
    pub(super) fn close(&self) {
        match &self.proxy {
            Proxy::Sequential { instances, .. } => {
                if let Some(instances) = instances {
                    instances.close();
                }
            }
            Proxy::Concurrent { pool, .. } => pool.close(),
        }
    }
}

impl Proxy {
    /// Of two versions the later one is taken.
    fn of(plugin: &Plugin, hosting: &Hosting<'_>) -> Option<Self> {
        let &Hosting { reuse, places, concurrent_places, threads } = hosting;
        if plugin.kind().is_concurrent
            && let Ok(pre) = ServicePre::new(plugin.pre().clone())
        {
            let pool = InstancePool::new(plugin.name(), reuse, threads, concurrent_places);
            return Some(Self::Concurrent { pre, pool });
        }
        let pre = ProxyPre::new(plugin.pre().clone()).ok()?;
        let instances =
            reuse.zip(places).map(|(reuse, places)| Instances::new(plugin.name(), reuse, Arc::clone(places)));
        Some(Self::Sequential { pre, instances })
    }
}
