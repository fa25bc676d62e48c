//! The configuration: turns the operator's TOML into a valid [`Config`]. Opens no connection.
//!
//! `document` parses the text, substitutes `${NAME}` and tracks the position of each key. The sections deserialize into
//! private structs that mirror the TOML, which are validated and converted into the public structs.

mod caches;
mod deployment;
mod document;
mod env;
mod error;
mod hosts;
mod loading;
mod names;
mod near;
mod plugins;
mod reuse;
mod sandbox;
#[cfg(feature = "schema")]
mod schema;
mod serve;
mod server_address;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::sandbox::Shares;
use document::{Document, Fault, no_such, quoted_list};

pub use caches::{BackendConfig, CacheConfig};
pub use document::Environment;
pub use env::{InvalidEnv, Variables};
pub use error::ConfigError;
pub use hosts::{Destination, InvalidHost, OutgoingHost};
pub use loading::Loading;
pub use plugins::{Grant, Route, UnlistedPlugins};
pub use reuse::Reuse;
pub use sandbox::Sandbox;
#[cfg(feature = "schema")]
pub use schema::json_schema;
pub use serve::Serve;
pub use units::{parse_address, parse_duration};

/// A valid configuration. Read one from TOML, or start from [`Config::default`] and set the fields that differ.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The name of the default cache.
    pub default: String,
    /// The caches by name; at least one.
    pub caches: BTreeMap<String, CacheConfig>,
    /// The grants of the plugins that have a `[plugins.*]` table, by plugin name.
    pub plugins: BTreeMap<String, Grant>,
    /// What plugins without such a table may do. Defaults to [`UnlistedPlugins::Allow`].
    pub unlisted_plugins: UnlistedPlugins,
    /// The limits of one plugin instance.
    pub sandbox: Sandbox,
    /// The HTTP server.
    pub serve: Serve,
    /// The routes of the HTTP server.
    pub routes: Vec<Route>,
}

/// The process's environment.
fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// The environment variable that names the file if no option does.
    pub const PATH_VARIABLE: &'static str = "LARDER_CONFIG";
    /// The file in the working directory that is read if no file is named.
    pub const DEFAULT_PATH: &'static str = "larder.toml";

    /// Finds and reads the configuration: `path`, else the file that `LARDER_CONFIG` names, else `larder.toml` in the
    /// working directory, else [`Config::default`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unreadable or invalid file. A named file must exist. The operator must correct the file.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::find(path).map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    /// The file that [`Config::load`] reads. `None` if there is none, so that the defaults apply.
    pub fn find(path: Option<&Path>) -> Option<PathBuf> {
        let named = path
            .map(Path::to_owned)
            .or_else(|| std::env::var_os(Self::PATH_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
        let unnamed = Path::new(Self::DEFAULT_PATH);
        // A dangling symbolic link is an error, not a missing file.
        named.or_else(|| unnamed.symlink_metadata().is_ok().then(|| unnamed.to_owned()))
    }

    /// Reads one file. Relative paths in it start at the file's directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unreadable or invalid file. The operator must correct the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &path.display().to_string(), directory, &process_environment)
    }

    /// Reads a configuration from text. Relative paths in it start at the working directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the position of the mistake. The author of the text must correct it.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, "configuration", Path::new(""), &process_environment)
    }

    /// Reads a configuration from text. `origin` is the file name in error messages, relative paths start at
    /// `directory`, and `${NAME}` is read from `environment`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the position of the mistake. The author of the text must correct it.
    pub fn parse(
        text: &str,
        origin: &str,
        directory: &Path,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        Document::parse(text, environment)
            .and_then(|document| Self::from_document(document, directory, environment))
            .map_err(|fault| fault.locate(text, origin))
    }

    fn from_document(
        mut document: Document<'_>,
        directory: &Path,
        environment: Environment<'_>,
    ) -> Result<Self, Fault> {
        document.check_keys(&["default", "unlisted_plugins", "caches", "plugins", "sandbox", "serve"])?;
        let mut caches = BTreeMap::new();
        for section in document.take_sections("caches")? {
            let cache = CacheConfig::from_section(&section, directory, environment)?;
            if let Some((other, _)) = caches.iter().find(|(_, other)| cache.overlaps(other)) {
                let rule =
                    format!("overlaps with the prefix of cache `{other}`, which is on the same server and database");
                return Err(section.fault("prefix", &rule));
            }
            caches.insert(section.name, cache);
        }
        if caches.is_empty() {
            caches = Self::default().caches;
        }
        let default = match document.take_string("default")? {
            Some((default, _)) if caches.contains_key(&default) => default,
            Some((default, span)) => {
                return Err(Fault::at(span, format!("`default`: {}", no_such("cache", &default, caches.keys()))));
            }
            None => match caches.keys().next() {
                Some(only) if caches.len() == 1 => only.clone(),
                _ => {
                    let first = caches.keys().next().map(String::as_str).unwrap_or_default();
                    let message = format!(
                        "`default` is missing: it must name one of {}; begin the file with, for example, `default = \"{first}\"`",
                        quoted_list(caches.keys())
                    );
                    return Err(Fault::at(0..0, message));
                }
            },
        };
        let unlisted_plugins = match document.take_string("unlisted_plugins")? {
            Some((text, span)) => UnlistedPlugins::parse(&text)
                .ok_or_else(|| Fault::at(span, "`unlisted_plugins` must be `allow` or `deny`".to_owned()))?,
            None => UnlistedPlugins::default(),
        };
        let plugins = plugins::read(&document.take_sections("plugins")?, directory, &mut caches)?;
        let sandbox = match document.take_section("sandbox")? {
            Some(section) => Sandbox::from_section(&section)?,
            None => Sandbox::default(),
        };
        let serve = match document.take_section("serve")? {
            Some(section) => Serve::from_section(&section)?,
            None => Serve::default(),
        };
        let shares = Shares::new(sandbox.max_memory);
        for cache in caches.values_mut() {
            let share = match &cache.backend {
                BackendConfig::Ram { .. } => shares.value(),
                BackendConfig::Server(_) => shares.server_value(),
            };
            let policy = &mut cache.policy;
            policy.max_batch_bytes = sandbox.limits.max_batch_bytes;
            policy.max_value_bytes = policy.max_value_bytes.min(share);
        }
        Ok(Self { default, caches, plugins: plugins.grants, unlisted_plugins, sandbox, serve, routes: plugins.routes })
    }

    /// The cache of this name.
    ///
    /// # Errors
    ///
    /// A message that lists the names of the caches. Whoever named the cache must correct the name.
    pub fn cache(&self, name: &str) -> Result<&CacheConfig, String> {
        self.caches.get(name).ok_or_else(|| no_such("cache", name, self.caches.keys()))
    }

    /// The grant of a plugin. One without a table may do everything with the caches in the shared key space, or nothing if
    /// unlisted plugins are denied.
    pub fn grant(&self, plugin: &str) -> Grant {
        let unlisted = || match self.unlisted_plugins {
            UnlistedPlugins::Allow => Grant::default(),
            UnlistedPlugins::Deny => Grant::nothing(),
        };
        self.plugins.get(plugin).cloned().unwrap_or_else(unlisted)
    }
}

impl Default for Config {
    /// One RAM cache, named `ram`.
    fn default() -> Self {
        let ram = "ram".to_owned();
        Self {
            default: ram.clone(),
            caches: BTreeMap::from([(ram, CacheConfig::default())]),
            plugins: BTreeMap::new(),
            unlisted_plugins: UnlistedPlugins::default(),
            sandbox: Sandbox::default(),
            serve: Serve::default(),
            routes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
