//! The host's caches, made from a configuration; the only place that constructs backends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::cache::ram::RamBackend;
use crate::cache::valkey::{ServerOptions, ValkeyBackend};
use crate::cache::{Access, Cache, CacheBackend, Namespace, Owner, PluginCaches, ScopedCache};
use crate::config::{CacheConfig, Config, Store};
use crate::error::Error;
use crate::linker::{Bounds, CallLimit, LarderCtx};
use crate::metrics as listed;

/// All caches of a host, connected. Cheap to clone; the clones share them.
#[derive(Debug, Clone)]
pub struct Caches {
    by_name: BTreeMap<String, Arc<Cache>>,
    config: Arc<Config>,
    /// The calls of each plugin that has an instance, by its name. A std mutex: nothing awaits while it is held.
    calls: Arc<Mutex<HashMap<String, Weak<CallLimit>>>>,
}

impl Caches {
    /// Connects every cache of the configuration. Must be called on a Tokio runtime, which keeps the connections up.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] for the first cache that cannot be used, in the order of their names.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        listed::describe(listed::ALL);
        listed::describe(listed::OF_PLUGINS);
        let mut by_name = BTreeMap::new();
        for (name, cache) in &config.caches {
            by_name.insert(name.clone(), connect_cache(name, cache).await?);
        }
        Ok(Self { by_name, config: Arc::new(config), calls: Arc::default() })
    }

    /// A ctx for one instance of a plugin, with the grant that the configuration has for its name.
    pub fn plugin(&self, plugin: &str) -> LarderCtx {
        let grant = self.config.grant(plugin);
        let sandbox = &self.config.sandbox;
        let owner = Owner::new();
        let scoped = |(name, cache): (&String, &Arc<Cache>)| {
            let scoped = || ScopedCache::new(Arc::clone(cache), grant.namespace.clone(), grant.access, owner);
            (name.clone(), grant.may_open(name).then(|| scoped().with_limits(sandbox.limits)))
        };
        let caches = PluginCaches::new(self.by_name.iter().map(scoped).collect(), &self.config.default);
        let calls = self.calls(plugin, grant.max_concurrent_calls);
        let bounds = Bounds {
            max_handles: sandbox.max_handles,
            max_vacancies: sandbox.max_vacancies,
            max_log_lines: sandbox.max_log_lines,
            calls,
        };
        LarderCtx::new(plugin, caches, bounds)
    }

    /// What all instances of a plugin share.
    fn calls(&self, plugin: &str, max: usize) -> Arc<CallLimit> {
        let mut by_plugin = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = by_plugin.get(plugin).and_then(Weak::upgrade) {
            return calls;
        }
        // Names of plugins that have come and gone do not pile up.
        by_plugin.retain(|_, calls| calls.strong_count() > 0);
        let calls = CallLimit::new(max);
        by_plugin.insert(plugin.to_owned(), Arc::downgrade(&calls));
        calls
    }

    /// A cache by the operator's name; [`operator_view`] makes it usable for the host's own code.
    pub fn get(&self, name: &str) -> Option<&Arc<Cache>> {
        self.by_name.get(name)
    }

    /// Tells the recorder of the [metrics](crate::metrics) how all caches stand. To be called before each export.
    pub fn publish(&self) {
        self.by_name.values().for_each(|cache| cache.publish());
    }

    /// All caches by the operator's names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.by_name.values()
    }

    /// Ends when the leases of dropped vacancies have been given back, or could not be, within twice the `timeout` of
    /// their caches. Wait for it before the program ends, or else whoever waits in another process waits until they
    /// lapse.
    pub async fn drain(&self) {
        for cache in self.by_name.values() {
            cache.drain().await;
        }
    }

    // Decision: docs/decisions/0021-one-host-call-copies-in-at-most-twice-the-largest-value-or-batch.md
    /// The most bytes that one call of a plugin may need to bring in: what wasmtime calls the fuel of a host call.
    /// Beyond it a plugin traps, so it is above all limits that answer with an error.
    pub fn largest_call(&self) -> usize {
        let largest = self.config.caches.values().map(|cache| cache.policy.max_value_bytes).max().unwrap_or(0);
        let limits = &self.config.sandbox.limits;
        // A batch at its limit also has a header for each key and value.
        let headers = limits.max_batch.saturating_mul(64);
        limits.max_batch_bytes.max(largest).saturating_add(headers).saturating_mul(2).saturating_add(1 << 20)
    }

    /// The configuration that these caches were made from.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Connects one cache.
///
/// # Errors
///
/// [`Error::Cache`] when its server is out of reach, too old, or refuses us.
pub async fn connect_cache(name: &str, config: &CacheConfig) -> Result<Arc<Cache>, Error> {
    let backend: Arc<dyn CacheBackend> = match &config.store {
        Store::Ram { max_bytes, shares } => RamBackend::new(*max_bytes, config.policy.max_value_bytes, shares),
        Store::Server(options) => {
            let connected = ValkeyBackend::connect(ServerOptions::clone(options), &config.policy).await;
            Arc::new(connected.map_err(|reason| Error::Cache { cache: name.to_owned(), reason })?)
        }
    };
    Ok(Arc::new(Cache::new(name, backend, config.policy.clone())))
}

/// One cache as the host itself sees it: everything in one key space, whatever plugins are granted.
///
/// A view is one owner of vacancies: who asks for a key whose vacancy the same view holds is refused, and does not
/// wait. Tasks that shall wait for each other need a view each.
pub fn operator_view(cache: Arc<Cache>, namespace: Option<Namespace>) -> ScopedCache {
    ScopedCache::new(cache, namespace, Access::ReadWrite, Owner::new())
}
