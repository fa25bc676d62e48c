//! The error of a configuration.

use std::path::PathBuf;

/// Why a configuration is refused. The operator must correct the file or the environment variables it refers to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration `{}`: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// The file has a syntax error or an invalid value.
    #[error("{origin}:{line}:{column}: {message}")]
    Invalid {
        /// The file's name, as given.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters.
        column: usize,
        /// The key and the rule that it violates.
        message: String,
    },
}
