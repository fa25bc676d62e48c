//! The caches that one plugin instance may open.

use std::collections::BTreeMap;

use crate::scoped::ScopedCache;

/// The caches that one plugin instance may open.
#[derive(Debug, Clone)]
pub struct PluginCaches {
    /// All caches of the host; `None` for one that is not granted.
    by_name: BTreeMap<String, Option<ScopedCache>>,
    default: String,
    is_restricted: bool,
}

/// Why a cache cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No cache with this name is configured. The plugin's author or the operator must correct the name.
    #[error("no cache of that name is configured")]
    NoSuchCache,
    /// The cache is configured, but not granted to the plugin. Only the operator can grant it.
    #[error("the cache is not granted to this plugin")]
    NotGranted,
}

impl PluginCaches {
    /// Takes all caches of the host by name, `None` for each that is not granted, and the name of the default cache.
    pub fn new(by_name: BTreeMap<String, Option<ScopedCache>>, default: impl Into<String>) -> Self {
        let is_restricted = by_name.values().any(Option::is_none);
        Self { by_name, default: default.into(), is_restricted }
    }

    /// Restricts the plugin to the caches that are granted now, although these may be all caches of the host.
    #[must_use]
    pub fn restricted(mut self) -> Self {
        self.is_restricted = true;
        self
    }

    /// True if the plugin may open certain caches only: if one is not granted, or after [`PluginCaches::restricted`].
    pub fn is_restricted(&self) -> bool {
        self.is_restricted
    }

    /// Opens a cache by name.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the cache is not configured or not granted.
    pub fn open(&self, name: &str) -> Result<&ScopedCache, OpenError> {
        self.by_name.get(name).ok_or(OpenError::NoSuchCache)?.as_ref().ok_or(OpenError::NotGranted)
    }

    /// The names of all caches of the host.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The names of the caches that are granted.
    pub fn granted(&self) -> impl Iterator<Item = &str> {
        self.by_name.iter().filter(|(_, cache)| cache.is_some()).map(|(name, _)| name.as_str())
    }

    /// The name of the default cache.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// Opens the default cache.
    ///
    /// # Errors
    ///
    /// As [`PluginCaches::open`].
    pub fn open_default(&self) -> Result<&ScopedCache, OpenError> {
        self.open(&self.default)
    }
}
