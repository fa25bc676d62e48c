//! Configuration: what the operator wrote in TOML, made into what is valid. Opens no connection.
//!
//! Two steps: `document` reads the text, fills in `${NAME}` and knows where everything stands; the sections deserialize
//! into private structs that mirror the TOML, and convert into the public ones, which hold valid values only.

mod caches;
mod deployment;
mod document;
mod env;
mod hosts;
mod plugins;
mod sandbox;
#[cfg(feature = "schema")]
mod schema;
mod serve;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cache::{OnOutage, Policy};
use document::{Document, Fault};

pub use caches::{CacheConfig, Store};
pub use env::{InvalidEnv, Variables};
pub use hosts::{Destination, InvalidHost, OutgoingHost};
pub use plugins::{Grant, Route};
pub use sandbox::Sandbox;
#[cfg(feature = "schema")]
pub use schema::json_schema;
pub use serve::Serve;
pub use units::parse_duration;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name of the default cache.
    pub default: String,
    /// The caches by the operator's names; at least one.
    pub caches: BTreeMap<String, CacheConfig>,
    /// What each plugin with a table of its own may do, by the plugin's name.
    pub plugins: BTreeMap<String, Grant>,
    /// The bounds of one plugin instance.
    pub sandbox: Sandbox,
    /// Where and how requests are answered.
    pub serve: Serve,
    /// The plugins that answer them.
    pub routes: Vec<Route>,
}

/// Why there is no configuration. The operator mends the file, or the environment that it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration `{}`: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, in the system's words.
        reason: String,
    },
    /// The file holds something that is not valid.
    #[error("{origin}:{line}:{column}: {message}")]
    Invalid {
        /// The file's name, as given.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters.
        column: usize,
        /// The key and the rule it breaks.
        message: String,
    },
}

/// Reads environment variables: [`std::env::var`], or a test's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment.
fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// The environment variable that names the file where no option does.
    pub const PATH_VARIABLE: &'static str = "LARDER_CONFIG";
    /// The file in the working directory that is read where nothing names one.
    pub const DEFAULT_PATH: &'static str = "larder.toml";

    /// Finds and reads the configuration: `path`, else the file that `LARDER_CONFIG` names, else `larder.toml` in the
    /// working directory, else [`Config::default`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; a file that is named must exist.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path
            .map(Path::to_owned)
            .or_else(|| std::env::var_os(Self::PATH_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
        let unnamed = Path::new(Self::DEFAULT_PATH);
        match named {
            Some(path) => Self::read(&path),
            // A link to nowhere is a mistake, not the absence of a file.
            None if unnamed.symlink_metadata().is_ok() => Self::read(unnamed),
            None => Ok(Self::default()),
        }
    }

    /// Reads one file. A relative `password_file` stands beside it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &path.display().to_string(), directory, &process_environment)
    }

    /// Reads a configuration from text, for embedders that keep it elsewhere. A relative `password_file` stands in the
    /// working directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, "configuration", Path::new(""), &process_environment)
    }

    /// Reads a configuration from text, with everything that it depends on given.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`], with `origin` as the file's name.
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
        document.check_keys(&["default", "caches", "plugins", "sandbox", "serve"])?;
        let mut caches = BTreeMap::new();
        for section in document.take_sections("caches")? {
            let cache = CacheConfig::from_section(&section, directory, environment)?;
            if let Some((other, _)) = caches.iter().find(|(_, other)| cache.overlaps(other)) {
                let rule = format!("meets the keys of `{other}`, which is on the same server and database");
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
                let message = format!("`default`: there is no cache `{default}`, only {}", list(caches.keys()));
                return Err(Fault::at(span, message));
            }
            None => match caches.keys().next() {
                Some(only) if caches.len() == 1 => only.clone(),
                _ => {
                    let message = format!("`default` is missing: it must name one of {}", list(caches.keys()));
                    return Err(Fault::at(0..0, message));
                }
            },
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
        for cache in caches.values_mut() {
            cache.policy.max_batch_bytes = sandbox.limits.max_batch_bytes;
        }
        Ok(Self { default, caches, plugins: plugins.grants, sandbox, serve, routes: plugins.routes })
    }

    /// What the plugin may do: its table, or everything in the shared key space where it has none.
    pub fn grant(&self, plugin: &str) -> Grant {
        self.plugins.get(plugin).cloned().unwrap_or_default()
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
            sandbox: Sandbox::default(),
            serve: Serve::default(),
            routes: Vec::new(),
        }
    }
}

/// Names for a message: `` `a`, `b` ``.
fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
