//! What can go wrong outside a cache call, for the operator and the embedder.

use crate::cache::CacheError;
use crate::config::ConfigError;

/// Why a host could not start, or a plugin could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not valid. The operator mends the file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A cache cannot be used: its server is out of reach, too old, or refuses us. The operator mends one or the
    /// other.
    #[error("cache `{cache}`: {reason}")]
    Cache {
        /// The cache's name.
        cache: String,
        /// What the backend found.
        reason: CacheError,
    },
    /// Wasmtime could not be set up.
    #[error("cannot set up the engine: {0}")]
    Engine(String),
    /// The plugin's file is not what can be run. Its author builds it anew.
    #[error("cannot load plugin `{path}`: {reason}")]
    Load {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The call given by hand does not fit the plugin. Whoever wrote it mends it.
    #[error("cannot invoke `{call}`: {reason}")]
    Invoke {
        /// The call as given.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An option for the plugin's sandbox cannot be honoured, such as a folder that is not there.
    #[error("{0}")]
    Option(String),
    /// The plugin trapped. Its author finds out why.
    #[error("plugin `{plugin}` trapped: {reason}")]
    Trap {
        /// The plugin's name.
        plugin: String,
        /// The trap, in wasmtime's words.
        reason: String,
    },
    /// The plugin ran into a bound of its sandbox. Its author asks less, or the operator allows more.
    #[error("plugin `{plugin}` was stopped: {reason} (`{bound}` of `[sandbox]`)")]
    Stopped {
        /// The plugin's name.
        plugin: String,
        /// The bound, by its key of `[sandbox]`.
        bound: &'static str,
        /// What the plugin did.
        reason: String,
    },
}

impl Error {
    /// Whether what was asked for makes no sense, rather than having failed: exit status 2, not 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Invoke { .. } | Self::Option(_))
    }
}

pub use larder_cache::text::one_line;
