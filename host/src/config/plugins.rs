//! The `[plugins.*]` tables: what each plugin may do, and what of the RAM caches is set aside for it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cache::{Access, Namespace};
use crate::config::document::{Fault, Section};
use crate::config::sandbox::count;
use crate::config::units::Size;
use crate::config::{CacheConfig, list};

/// What a plugin may do with the caches.
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
}

impl Default for Grant {
    fn default() -> Self {
        Self { caches: None, access: Access::default(), namespace: None, max_bytes: None, max_concurrent_calls: 1024 }
    }
}

/// Reads all tables, and sets aside the shares of the caches that they speak of.
pub(super) fn read(
    sections: &[Section<'_>],
    caches: &mut BTreeMap<String, CacheConfig>,
) -> Result<BTreeMap<String, Grant>, Fault> {
    let mut plugins: BTreeMap<String, Grant> = BTreeMap::new();
    for section in sections {
        let grant = section.read::<RawGrant>()?.validate(caches, section)?;
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
    Ok(plugins)
}

impl Grant {
    /// Whether it may open the cache.
    pub fn may_open(&self, cache: &str) -> bool {
        self.caches.as_ref().is_none_or(|granted| granted.iter().any(|name| name == cache))
    }
}

/// A `[plugins.NAME]` table as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    caches: Option<Vec<String>>,
    #[serde(default, with = "RawAccess")]
    access: Access,
    namespace: Option<String>,
    max_bytes: Option<Size>,
    max_concurrent_calls: Option<i64>,
}

/// [`Access`] as written.
#[derive(Deserialize)]
#[serde(remote = "Access", rename_all = "kebab-case")]
enum RawAccess {
    ReadWrite,
    ReadOnly,
}

impl RawGrant {
    fn validate(self, caches: &BTreeMap<String, CacheConfig>, section: &Section<'_>) -> Result<Grant, Fault> {
        let Self { caches: granted, access, namespace, max_bytes, max_concurrent_calls } = self;
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
        Ok(Grant { caches: granted, access, namespace, max_bytes, max_concurrent_calls })
    }
}
