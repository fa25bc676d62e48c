//! The errors of the interface as a Rust enum.

use std::fmt;

use crate::bindings;

/// Why a call failed. A miss is not an error.
///
/// Each variant names who can act on it. A later release may add variants, so a `match` needs a wildcard arm.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No cache of this name is configured. The operator adds one, or the plugin opens another.
    #[error("no cache of that name is configured")]
    NoSuchCache,
    /// The cache is not granted to this plugin, or is granted read-only. The operator must change the grant.
    #[error("access denied: the cache is not granted to this plugin, or read-only")]
    AccessDenied,
    /// An argument breaks a rule; the text names both. The plugin's author must fix the call.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The value, or all values of a batch together, exceed this limit in bytes. The plugin stores less or requests
    /// fewer values at once, or the operator raises `max_value_bytes` or the limit for batches. A read fails with this
    /// error if another program stored the value.
    #[error("value too large: the limit is {0} bytes")]
    ValueTooLarge(u64),
    /// No answer arrived before the deadline, or the connection broke first. A write may or may not have been applied.
    /// The plugin may retry or continue without the cache.
    #[error("timed out: no answer from the cache")]
    Timeout,
    /// The cache is unreachable. The plugin may continue without it; the operator reads the host's log.
    #[error("the cache is unreachable")]
    Unavailable,
    /// Any other failure, in a few stable words. The operator finds the details in the host's log.
    #[error("{0}")]
    Other(String),
    /// The value cannot be represented as JSON, or the stored bytes are not valid JSON of the requested type. The
    /// plugin's author must fix the type, or use the raw bytes of [`Cache::get_bytes`](crate::Cache::get_bytes).
    #[error("cannot convert to or from JSON: {0}")]
    Codec(String),
}

/// The same text as `Display`: a plugin whose `main` returns an error prints it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
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
