//! The host's caches, created from a configuration. No other module constructs backends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::cache::ram::RamBackend;
use crate::cache::valkey::{ServerOptions, ServerRegistry, ValkeyBackend};
use crate::cache::{Access, Cache, CacheBackend, Namespace, Owner, PluginCaches, ScopedCache};
use crate::config::{BackendConfig, CacheConfig, Config};
use crate::error::Error;
use crate::linker::{Bounds, CallLimit, LarderCtx, Mistakes};
use crate::metrics;
use crate::sandbox::Shares;

/// All caches of a host, connected. Clones are cheap and share the caches.
#[derive(Debug, Clone)]
pub struct Caches {
    by_name: BTreeMap<String, Arc<Cache>>,
    config: Arc<Config>,
    /// The call limits of the plugins with instances, by plugin name. Nothing awaits while the mutex is held.
    call_limits: Arc<Mutex<HashMap<String, Weak<CallLimit>>>>,
    mistakes: Arc<Mistakes>,
}

impl Caches {
    /// Connects all caches of the configuration. Must be called on a Tokio runtime; its tasks maintain the connections.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] for the first cache, by name, that cannot be used. The operator must correct the configuration
    /// or the server. A cache with `start = "degraded"` begins in an outage instead if its server is unreachable.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        metrics::describe(metrics::ALL);
        metrics::describe(metrics::OF_PLUGINS);
        let mut by_name = BTreeMap::new();
        let registry = ServerRegistry::default();
        for (name, cache) in &config.caches {
            by_name.insert(name.clone(), connect_registered(name, cache, &registry).await?);
        }
        Ok(Self { by_name, config: Arc::new(config), call_limits: Arc::default(), mistakes: Arc::default() })
    }

    /// Creates the cache state of one instance of a plugin, with the grant of its name and the limits of `[sandbox]`.
    pub fn plugin(&self, plugin: &str) -> LarderCtx {
        let grant = self.config.grant(plugin);
        let sandbox = &self.config.sandbox;
        let owner = Owner::new();
        let scoped = |(name, cache): (&String, &Arc<Cache>)| {
            let scoped = || ScopedCache::new(Arc::clone(cache), grant.namespace.clone(), grant.access, owner);
            (name.clone(), grant.may_open(name).then(|| scoped().with_limits(sandbox.limits)))
        };
        let caches =
            PluginCaches::new(self.by_name.iter().map(scoped).collect(), grant.default_cache(&self.config.default));
        let caches = if grant.caches.is_some() { caches.restricted() } else { caches };
        let caches = if grant.caches.is_some() { caches.restricted() } else { caches };
        let calls = self.call_limit(plugin, grant.max_concurrent_calls);
        let shares = Shares::new(sandbox.max_memory);
        let bounds = Bounds {
            max_handles: sandbox.max_handles.min(shares.cache_handles()),
            max_vacancies: sandbox.max_vacancies.min(shares.vacancies()),
            max_log_lines: sandbox.max_log_lines,
            max_concurrent_bytes: shares.concurrent_calls(),
            calls,
            mistakes: Arc::clone(&self.mistakes),
        };
        LarderCtx::new(plugin, caches, bounds).with_settings(grant.config)
    }

    /// The call limit that all instances of a plugin share.
    fn call_limit(&self, plugin: &str, max: usize) -> Arc<CallLimit> {
        let mut by_plugin = self.call_limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = by_plugin.get(plugin).and_then(Weak::upgrade) {
            return calls;
        }
        // Removes plugins without instances, so that the table does not grow without limit.
        by_plugin.retain(|_, calls| calls.strong_count() > 0);
        let calls = CallLimit::new(max);
        by_plugin.insert(plugin.to_owned(), Arc::downgrade(&calls));
        calls
    }

    /// A cache by name. [`operator_view`] gives the host's own code access to its keys.
    pub fn get(&self, name: &str) -> Option<&Arc<Cache>> {
        self.by_name.get(name)
    }

    /// Updates the gauges of all caches, such as `larder_up`. Call it before each export of the
    /// [metrics](crate::metrics).
    pub fn publish(&self) {
        self.by_name.values().for_each(|cache| cache.publish());
    }

    /// All caches, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.by_name.values()
    }

    /// Waits until pending lease releases are finished, at most twice the `timeout` of each cache. Call it before the
    /// program ends: otherwise callers in other processes wait until the leases expire.
    pub async fn drain(&self) {
        for cache in self.by_name.values() {
            cache.drain().await;
        }
    }

    // Decision: docs/decisions/0021-one-host-call-copies-in-at-most-twice-the-largest-value-or-batch.md
    /// The maximum size of the arguments of one call, in bytes, for [`Store::set_hostcall_fuel`]. A plugin traps beyond
    /// it, so it is above all limits that return an error.
    ///
    /// [`Store::set_hostcall_fuel`]: wasmtime::Store::set_hostcall_fuel
    pub fn largest_call(&self) -> usize {
        let largest = self.config.caches.values().map(|cache| cache.policy.max_value_bytes).max().unwrap_or(0);
        let limits = &self.config.sandbox.limits;
        // Each key and value of a batch also has a header.
        let headers = limits.max_batch.saturating_mul(64);
        let largest = limits.max_batch_bytes.max(largest).saturating_add(headers).saturating_mul(2);
        let share = Shares::new(self.config.sandbox.max_memory).call();
        largest.saturating_add(1 << 20).min(share)
    }

    /// The configuration of the caches.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Connects one cache, for a program that uses no other. [`connect_registered`] connects one of several.
///
/// # Errors
///
/// [`Error::Cache`] if its server is unreachable, too old, or refuses the host. The operator must correct the
/// configuration or the server. A cache with `start = "degraded"` begins in an outage if its server is unreachable;
/// [`CacheConfig::required`] changes that.
pub async fn connect_cache(name: &str, config: &CacheConfig) -> Result<Arc<Cache>, Error> {
    connect_registered(name, config, &ServerRegistry::default()).await
}

/// Connects one cache of several, which share the registry.
///
/// # Errors
///
/// As [`connect_cache`]; also [`Error::Cache`] with [`CacheError::Overlap`](crate::cache::CacheError::Overlap) if a
/// cache that is connected and has an overlapping prefix is on the same server, whatever their addresses are.
pub async fn connect_registered(
    name: &str,
    config: &CacheConfig,
    registry: &ServerRegistry,
) -> Result<Arc<Cache>, Error> {
    let backend: Arc<dyn CacheBackend> = match &config.backend {
        BackendConfig::Ram { max_bytes, shares } => RamBackend::new(*max_bytes, config.policy.max_value_bytes, shares),
        BackendConfig::Server(options) => {
            let options = ServerOptions::clone(options);
            let connected = ValkeyBackend::connect_near(name, options, &config.policy, registry).await;
            connected.map_err(|reason| Error::Cache { cache: name.to_owned(), reason })?
        }
    };
    Ok(Arc::new(Cache::new(name, backend, config.policy.clone())))
}

/// Gives the host's own code full access to one key space of a cache: that of a namespace, or the shared one.
///
/// A view is one owner of vacancies: a get-or-set of a key whose vacancy the same view holds fails instead of waiting.
/// Tasks that should wait for each other need a view each.
pub fn operator_view(cache: Arc<Cache>, namespace: Option<Namespace>) -> ScopedCache {
    ScopedCache::new(cache, namespace, Access::ReadWrite, Owner::new())
}
