//! The `[plugins.*]` tables: the grant, the share of RAM caches, the route and the outgoing hosts of each plugin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::{Access, Namespace};
use crate::config::caches::CacheConfig;
use crate::config::document::{Fault, Section, no_such, quoted_list};
use crate::config::env::Variables;
use crate::config::hosts::{Destination, OutgoingHost};
use crate::config::reuse::{RawReuse, Reuse};
use crate::config::sandbox::{MAX_COUNT, count};
use crate::config::units::{Count, Size};
use crate::default_limits;
use crate::settings::Settings;

/// The permissions of a plugin. Start from [`Grant::default`], which allows everything with the caches and no requests,
/// and set the fields that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The caches that it may open. Defaults to `None`: all caches.
    pub caches: Option<Vec<String>>,
    /// The cache that it gets if it asks for the default cache. Defaults to `None`: the only one in `caches`, if there is
    /// only one, else the `default` of all plugins.
    pub default: Option<String>,
    /// Whether it may write to the caches. Defaults to read-write.
    pub access: Access,
    /// The namespace of its keys. Defaults to `None`: the key space that all plugins without a namespace share.
    pub namespace: Option<Namespace>,
    /// The share of each RAM cache that is reserved for its namespace, in bytes. Defaults to `None`: no share.
    pub max_bytes: Option<u64>,
    /// The maximum number of concurrent calls of all its instances in this process, 1 to 65,536. Defaults to 1,024.
    pub max_concurrent_calls: usize,
    /// The maximum number of its concurrent HTTP requests, 1 to 65,536. Defaults to `None`: `max_concurrent_requests` of
    /// `[serve]` without the requests that are reserved for other plugins.
    pub max_concurrent_requests: Option<usize>,
    /// The hosts that it may send HTTP requests to. Defaults to none.
    pub outgoing_hosts: Vec<OutgoingHost>,
    /// How long its instances answer HTTP requests. Defaults to `None`: each request of a plugin of WASI 0.2 gets an
    /// instance of its own, and an instance of WASI 0.3 answers as `wasmtime serve` does by default.
    pub reuse: Option<Reuse>,
    /// Its environment variables. Defaults to none.
    pub env: Variables,
    /// Its settings, which it reads through `wasi:config`. Defaults to none.
    pub config: Settings,
    /// The cache that each label of an import opens, by the label. Defaults to none.
    pub imports: BTreeMap<String, String>,
}

impl Default for Grant {
    fn default() -> Self {
        Self {
            caches: None,
            default: None,
            access: Access::default(),
            namespace: None,
            max_bytes: None,
            max_concurrent_calls: default_limits::MAX_CONCURRENT_CALLS,
            max_concurrent_requests: None,
            outgoing_hosts: Vec::new(),
            reuse: None,
            env: Variables::default(),
            config: Settings::default(),
            imports: BTreeMap::new(),
        }
    }
}

/// What a plugin may do that has no `[plugins.*]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UnlistedPlugins {
    /// Everything with the caches, in the shared key space, and no requests.
    #[default]
    Allow,
    /// Nothing: it gets no cache.
    Deny,
}

impl UnlistedPlugins {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }
}

/// A path prefix and the plugin that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's file.
    pub path: PathBuf,
    /// The path prefix: `/shop` is that path and all paths below it, `/` is every path.
    pub route: String,
}

/// The result of all tables.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    pub(super) grants: BTreeMap<String, Grant>,
    pub(super) routes: Vec<Route>,
}

/// Reads all tables and reserves the shares in the RAM caches.
pub(super) fn read(
    sections: &[Section<'_>],
    directory: &Path,
    caches: &mut BTreeMap<String, CacheConfig>,
) -> Result<Plugins, Fault> {
    let Plugins { mut grants, mut routes } = Plugins::default();
    for section in sections {
        let mut raw = section.read::<RawGrant>()?;
        if let Some(route) = raw.take_route(section, directory)? {
            if let Some(other) = routes.iter().find(|other: &&Route| other.route == route.route) {
                return Err(section.fault("route", &format!("is already used by `plugins.{}`", other.plugin)));
            }
            routes.push(route);
        }
        let grant = raw.validate(caches, section)?;
        let shares_space = |other: &&Grant| grant.namespace.is_some() && other.namespace == grant.namespace;
        if let Some((other, _)) =
            grants.iter().find(|(_, other)| shares_space(other) && other.max_bytes != grant.max_bytes)
        {
            let rule = format!("must be the same as that of `plugins.{other}`, which has the same namespace");
            return Err(section.fault("max_bytes", &rule));
        }
        if let (Some(namespace), Some(share)) = (&grant.namespace, grant.max_bytes) {
            for (name, cache) in caches.iter_mut().filter(|(name, _)| grant.may_open(name)) {
                cache.reserve_share(name, namespace, share).map_err(|rule| section.fault("max_bytes", &rule))?;
            }
        }
        grants.insert(section.name.clone(), grant);
    }
    Ok(Plugins { grants, routes })
}

impl Grant {
    /// The grant of a plugin that may use no cache.
    pub(super) fn nothing() -> Self {
        Self { caches: Some(Vec::new()), ..Self::default() }
    }

    /// The cache that the plugin gets if it asks for the default cache. `of_all` is the default of all plugins.
    pub fn default_cache<'a>(&'a self, of_all: &'a str) -> &'a str {
        match (&self.default, self.caches.as_deref()) {
            (Some(default), _) | (None, Some([default])) => default,
            _ => of_all,
        }
    }

    /// True if the plugin may open the cache.
    pub fn may_open(&self, cache: &str) -> bool {
        self.caches.as_ref().is_none_or(|granted| granted.iter().any(|name| name == cache))
    }

    /// True if the plugin may send requests to the destination.
    pub fn may_reach(&self, destination: &Destination) -> bool {
        self.outgoing_hosts.iter().any(|host| host.covers(destination))
    }
}

/// The permissions of one plugin. The table's name is the plugin's file name without extension, or `--name`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawGrant {
    /// The names of the caches that it may open; absent: every cache.
    caches: Option<Vec<String>>,
    /// The cache that it gets if it asks for the default cache; absent: the only one in `caches`, if there is only one,
    /// else the `default` of this file.
    default: Option<String>,
    /// Whether it may write to the caches. Defaults to `"read-write"`.
    #[serde(default, with = "RawAccess")]
    #[cfg_attr(feature = "schema", schemars(!default, with = "Option<RawAccess>"))]
    access: Access,
    /// The namespace of its keys; absent: the shared key space.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = Namespace::MAX_LENGTH)))]
    namespace: Option<String>,
    /// The size of the share that is reserved for it in each RAM cache that it may open. Needs a `namespace`.
    max_bytes: Option<Size>,
    /// The maximum number of concurrent calls of all its instances in one host process. Defaults to `1024`.
    max_concurrent_calls: Option<Count>,
    /// The maximum number of its concurrent HTTP requests; absent: all of `[serve]` that are not reserved for other plugins.
    max_concurrent_requests: Option<Count>,
    /// The hosts that it may send HTTP requests to: a name, an address, `*.domain` or `*`, with a `:port` if it is not
    /// the scheme's default. Defaults to `[]`.
    #[serde(default)]
    outgoing_hosts: Vec<OutgoingHost>,
    /// How long an instance answers HTTP requests; absent: each request of a plugin of WASI 0.2 gets an instance of its own,
    /// and one of WASI 0.3 has `{ requests = 128, concurrent = 16, idle = "1s" }`.
    reuse: Option<RawReuse>,
    /// Its environment variables. Defaults to `{}`.
    #[serde(default)]
    env: Variables,
    /// Its settings, which it reads through `wasi:config`. Defaults to `{}`.
    #[serde(default)]
    config: Settings,
    /// The cache that each label opens under which it imports an interface of another project, such as
    /// `import team-a: wasi:keyvalue/store`. Defaults to `{}`.
    #[serde(default)]
    imports: BTreeMap<String, String>,
    /// Its file, for `larder serve`; a relative path starts at this file's directory. Needs a `route`.
    path: Option<PathBuf>,
    /// The path prefix that it serves, such as `/shop`; `/` is every path. Needs a `path`.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^/|\$\{")))]
    route: Option<String>,
}

/// [`Access`] in TOML.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(remote = "Access", rename_all = "kebab-case")]
enum RawAccess {
    ReadWrite,
    ReadOnly,
}

impl RawGrant {
    /// Takes the route out, if the plugin has one.
    fn take_route(&mut self, section: &Section<'_>, directory: &Path) -> Result<Option<Route>, Fault> {
        let (path, route) = match (self.path.take(), self.route.take()) {
            (None, None) => return Ok(None),
            (Some(path), Some(route)) => (path, route),
            (Some(_), None) => {
                return Err(section.fault("path", "needs a `route`: the path prefix that the plugin serves"));
            }
            (None, Some(_)) => return Err(section.fault("route", "needs a `path`: the plugin's file")),
        };
        let is_path = route.starts_with('/') && route.chars().all(|c| c.is_ascii_graphic() && !"?#".contains(c));
        if !is_path || (route.len() > 1 && route.ends_with('/')) {
            return Err(section.fault("route", "must be `/`, or a path such as `/shop` without a trailing `/`"));
        }
        Ok(Some(Route { plugin: section.name.clone(), path: directory.join(path), route }))
    }

    fn validate(self, caches: &BTreeMap<String, CacheConfig>, section: &Section<'_>) -> Result<Grant, Fault> {
        let Self {
            caches: granted,
            default,
            access,
            namespace,
            max_bytes,
            max_concurrent_calls,
            max_concurrent_requests,
            outgoing_hosts,
            reuse,
            env,
            config,
            imports,
            ..
        } = self;
        if let Some(unknown) = granted.iter().flatten().find(|name| !caches.contains_key(*name)) {
            return Err(section.fault("caches", &no_such("cache", unknown, caches.keys())));
        }
        if let Some(default) = &default {
            let granted =
                granted.as_ref().map_or_else(|| caches.keys().collect(), |granted| granted.iter().collect::<Vec<_>>());
            if !granted.contains(&default) {
                let rule = format!("must be one of the plugin's caches: {}", quoted_list(granted.into_iter()));
                return Err(section.fault("default", &rule));
            }
        }
        let may_open = |cache: &String| granted.as_ref().is_none_or(|granted| granted.contains(cache));
        let is_bound = |cache: &String| caches.contains_key(cache) && may_open(cache);
        if let Some((label, cache)) = imports.iter().find(|(_, cache)| !is_bound(cache)) {
            let own = caches.keys().filter(|cache| may_open(cache));
            let rule = format!("`{label}` must be one of the plugin's caches and not `{cache}`: {}", quoted_list(own));
            return Err(section.fault("imports", &rule));
        }
        let namespace = namespace
            .map(|namespace| Namespace::new(&namespace))
            .transpose()
            .map_err(|error| section.fault("namespace", &error.to_string()))?;
        let max_bytes = max_bytes.map(|size| size.0);
        if max_bytes.is_some() && namespace.is_none() {
            return Err(section.fault("max_bytes", "needs a `namespace`, for which the share is reserved"));
        }
        let (calls, max_calls) = (max_concurrent_calls, default_limits::MAX_CONCURRENT_CALLS);
        let max_concurrent_calls = count(section, "max_concurrent_calls", calls, max_calls)?;
        let max_concurrent_requests = max_concurrent_requests
            .map(|max| count(section, "max_concurrent_requests", Some(max), MAX_COUNT))
            .transpose()?;
        Ok(Grant {
            caches: granted,
            default,
            access,
            namespace,
            max_bytes,
            max_concurrent_calls,
            max_concurrent_requests,
            outgoing_hosts,
            reuse: reuse.map(|reuse| reuse.validate(section)).transpose()?,
            env,
            config,
            imports,
        })
    }
}
