//! Errors outside of cache calls, for the operator and the embedder.

use crate::cache::CacheError;
use crate::config::ConfigError;

/// Why a host cannot start, or why a plugin cannot be loaded or does not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is invalid. The operator must correct the file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A cache cannot be used: its server is unreachable, too old, or refuses the host. The operator must correct the
    /// configuration or the server.
    #[error("cache `{cache}`: {reason}")]
    Cache {
        /// The cache's name.
        cache: String,
        /// The error of the backend.
        reason: CacheError,
    },
    /// Wasmtime cannot be set up on this machine.
    #[error("cannot set up the engine: {0}")]
    Engine(String),
    /// The plugin's file cannot be read, is not a component, or lacks an import or export. The plugin's author must
    /// build it differently.
    #[error("cannot load plugin `{path}`: {reason}")]
    Load {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The call expression does not match a function of the plugin. The caller must correct it.
    #[error("cannot invoke `{call}`: {reason}")]
    Invoke {
        /// The call expression.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An option of the plugin's sandbox is invalid, such as a directory that does not exist. The caller must correct
    /// it.
    #[error("{0}")]
    Option(String),
    /// The plugin trapped. The plugin's author must fix it.
    #[error("plugin `{plugin}` trapped: {reason}")]
    Trap {
        /// The plugin's name.
        plugin: String,
        /// Wasmtime's description of the trap.
        reason: String,
    },
    /// The plugin exceeded a limit of its sandbox. The plugin's author must use less, or the operator must raise the
    /// limit.
    #[error("plugin `{plugin}` was stopped: {reason} (`{limit}` of `[sandbox]`)")]
    Stopped {
        /// The plugin's name.
        plugin: String,
        /// The key of the limit in `[sandbox]`.
        limit: &'static str,
        /// What the plugin did.
        reason: String,
    },
}
