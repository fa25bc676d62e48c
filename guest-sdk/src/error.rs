//! Why a call failed: the interface's errors as a Rust enum.

use crate::bindings;

/// Why a call failed. A miss is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No cache of that name is configured. The operator adds one, or the plugin asks for another.
    #[error("no cache of that name is configured")]
    NoSuchCache,
    /// The cache is configured, but not granted to this plugin, or granted read-only. The operator decides.
    #[error("access denied: the cache is not granted to this plugin, or read-only")]
    AccessDenied,
    /// An argument breaks a rule; the text names both. The plugin's author mends it.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The value is longer than this many bytes. The plugin stores less, or the operator raises `max_value_bytes`.
    #[error("value too large: the limit is {0} bytes")]
    ValueTooLarge(u64),
    /// No answer in time. A write may or may not have happened. The plugin may try again or go on without.
    #[error("no answer in time")]
    Timeout,
    /// The cache cannot be reached now. The plugin may go on without; the operator looks at the host's log.
    #[error("the cache cannot be reached now")]
    Unavailable,
    /// Anything else, in a few stable words. The operator finds the whole story in the host's log.
    #[error("{0}")]
    Other(String),
    /// The typed API could not encode the value as JSON, or decode the stored bytes as the type asked for. The
    /// plugin's author mends the type, or reads with [`Cache::get_bytes`](crate::Cache::get_bytes).
    #[error("cannot convert to or from JSON: {0}")]
    Codec(String),
}

impl From<bindings::Error> for Error {
    fn from(error: bindings::Error) -> Self {
        match error {
            bindings::Error::NoSuchCache => Self::NoSuchCache,
            bindings::Error::AccessDenied => Self::AccessDenied,
            bindings::Error::InvalidArgument(rule) => Self::InvalidArgument(rule),
            bindings::Error::ValueTooLarge(limit) => Self::ValueTooLarge(limit),
            bindings::Error::Timeout => Self::Timeout,
            bindings::Error::Unavailable => Self::Unavailable,
            bindings::Error::Other(text) => Self::Other(text),
        }
    }
}
