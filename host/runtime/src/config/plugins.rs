//! The `[plugins.*]` tables: what each plugin may do, what of the RAM caches is set aside for it, which requests it
//! answers, and where it may send its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::{Access, Namespace};
use crate::config::document::{Fault, Section};
use crate::config::sandbox::count;
use crate::config::units::{Count, Size};
use crate::config::{CacheConfig, Destination, OutgoingHost, Variables, list};

/// What a plugin may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The caches it may open; all where there is no list.
    pub caches: Option<Vec<String>>,
    /// Whether it may change them. Defaults to read-write.
    pub access: Access,
    /// Its own key space. Defaults to none, the space shared by all plugins without one.
    pub namespace: Option<Namespace>,
    /// The share of every RAM cache that is its namespace's own, in bytes. Defaults to none.
    pub max_bytes: Option<u64>,
    /// The most calls that all its instances in this process have under way at once, 1 to 65,536. Defaults to 1,024.
    pub max_concurrent_calls: usize,
    /// The hosts that it may send HTTP requests to. Defaults to none.
    pub outgoing_hosts: Vec<OutgoingHost>,
    /// The environment variables that it is given. Defaults to none.
    pub env: Variables,
}

impl Default for Grant {
    fn default() -> Self {
        Self {
            caches: None,
            access: Access::default(),
            namespace: None,
            max_bytes: None,
            max_concurrent_calls: 1024,
            outgoing_hosts: Vec::new(),
            env: Variables::default(),
        }
    }
}

/// A plugin that answers requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The plugin's name.
    pub plugin: String,
    /// Its file.
    pub path: PathBuf,
    /// The path prefix of its requests: `/shop` means that path and all below it, `/` every path.
    pub route: String,
}

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    pub(super) grants: BTreeMap<String, Grant>,
    pub(super) routes: Vec<Route>,
}

/// Reads all tables, and sets aside the shares of the caches that they speak of.
pub(super) fn read(
    sections: &[Section<'_>],
    directory: &Path,
    caches: &mut BTreeMap<String, CacheConfig>,
) -> Result<Plugins, Fault> {
    let Plugins { grants: mut plugins, mut routes } = Plugins::default();
    for section in sections {
        let mut raw = section.read::<RawGrant>()?;
        if let Some(route) = raw.take_route(section, directory)? {
            if let Some(other) = routes.iter().find(|other: &&Route| other.route == route.route) {
                return Err(section.fault("route", &format!("is that of `plugins.{}` already", other.plugin)));
            }
            routes.push(route);
        }
        let grant = raw.validate(caches, section)?;
        let shares_space = |other: &&Grant| grant.namespace.is_some() && other.namespace == grant.namespace;
        if let Some((other, _)) =
            plugins.iter().find(|(_, other)| shares_space(other) && other.max_bytes != grant.max_bytes)
        {
            let rule = format!("must be the same as that of `plugins.{other}`, which has the same namespace");
            return Err(section.fault("max_bytes", &rule));
        }
        if let (Some(namespace), Some(share)) = (&grant.namespace, grant.max_bytes) {
            for (name, cache) in caches.iter_mut().filter(|(name, _)| grant.may_open(name)) {
                cache.set_aside(name, namespace, share).map_err(|rule| section.fault("max_bytes", &rule))?;
            }
        }
        plugins.insert(section.name.clone(), grant);
    }
    Ok(Plugins { grants: plugins, routes })
}

impl Grant {
    /// Whether it may open the cache.
    pub fn may_open(&self, cache: &str) -> bool {
        self.caches.as_ref().is_none_or(|granted| granted.iter().any(|name| name == cache))
    }

    /// Whether it may send requests there.
    pub fn may_reach(&self, destination: &Destination) -> bool {
        self.outgoing_hosts.iter().any(|host| host.covers(destination))
    }
}

/// What one plugin may do; the table's name is that of its file, or `--name`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawGrant {
    /// The names of the caches it may open; absent: every cache.
    caches: Option<Vec<String>>,
    /// What it may do with them. Defaults to `"read-write"`.
    #[serde(default, with = "RawAccess")]
    #[cfg_attr(feature = "schema", schemars(!default, with = "Option<RawAccess>"))]
    access: Access,
    /// A key space of its own; absent: keys are shared.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = Namespace::MAX_LENGTH)))]
    namespace: Option<String>,
    /// A share of its own in every RAM cache that it may open. Needs a `namespace`.
    max_bytes: Option<Size>,
    /// How many calls all its instances in one host process may have under way at once. Defaults to `1024`.
    max_concurrent_calls: Option<Count>,
    /// The hosts that it may send HTTP requests to: a name, an address, `*.domain` or `*`, with a `:port` where it is
    /// not the scheme's own. Defaults to `[]`.
    #[serde(default)]
    outgoing_hosts: Vec<OutgoingHost>,
    /// Environment variables that it is given. Defaults to `{}`.
    #[serde(default)]
    env: Variables,
    /// Its file, for `larder serve`; a relative path starts at this file's folder. Needs a `route`.
    path: Option<PathBuf>,
    /// The path below which it answers requests, such as `/shop`; `/` is every path. Needs a `path`.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^/|\$\{")))]
    route: Option<String>,
}

/// [`Access`] as written.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(remote = "Access", rename_all = "kebab-case")]
enum RawAccess {
    ReadWrite,
    ReadOnly,
}

impl RawGrant {
    /// The plugin's file and its prefix, where it answers requests.
    fn take_route(&mut self, section: &Section<'_>, directory: &Path) -> Result<Option<Route>, Fault> {
        let (path, route) = match (self.path.take(), self.route.take()) {
            (None, None) => return Ok(None),
            (Some(path), Some(route)) => (path, route),
            (Some(_), None) => return Err(section.fault("path", "needs a `route`, under which the plugin answers")),
            (None, Some(_)) => return Err(section.fault("route", "needs a `path`, the plugin's file")),
        };
        let is_path = route.starts_with('/') && route.chars().all(|c| c.is_ascii_graphic() && !"?#".contains(c));
        if !is_path || (route.len() > 1 && route.ends_with('/')) {
            return Err(section.fault("route", "must be `/`, or a path such as `/shop` without a `/` at its end"));
        }
        Ok(Some(Route { plugin: section.name.clone(), path: directory.join(path), route }))
    }

    fn validate(self, caches: &BTreeMap<String, CacheConfig>, section: &Section<'_>) -> Result<Grant, Fault> {
        let Self { caches: granted, access, namespace, max_bytes, max_concurrent_calls, outgoing_hosts, env, .. } =
            self;
        if let Some(unknown) = granted.iter().flatten().find(|name| !caches.contains_key(*name)) {
            let rule = format!("there is no cache `{unknown}`, only {}", list(caches.keys()));
            return Err(section.fault("caches", &rule));
        }
        let namespace = namespace
            .map(|namespace| Namespace::new(&namespace))
            .transpose()
            .map_err(|error| section.fault("namespace", &error.to_string()))?;
        let max_bytes = max_bytes.map(|size| size.0);
        if max_bytes.is_some() && namespace.is_none() {
            return Err(section.fault("max_bytes", "needs a `namespace`, whose share it is"));
        }
        let default = Grant::default().max_concurrent_calls;
        let max_concurrent_calls = count(section, "max_concurrent_calls", max_concurrent_calls, default)?;
        Ok(Grant { caches: granted, access, namespace, max_bytes, max_concurrent_calls, outgoing_hosts, env })
    }
}
