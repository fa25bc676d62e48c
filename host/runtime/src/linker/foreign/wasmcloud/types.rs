//! The types of `wasmcloud:keyvalue` as wasmtime passes them, with the one mapping of our errors to theirs.

#![allow(unsafe_code, reason = "the derived implementations of wasmtime's traits are unsafe")]

use bytes::Bytes;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::super::super::wit;
use crate::cache::Version;

/// `error` of the interface `types`.
#[derive(Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "invalid-argument")]
    InvalidArgument,
    #[component(name = "precondition-failed")]
    PreconditionFailed,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "store-unavailable")]
    StoreUnavailable,
    #[component(name = "quota-exceeded")]
    QuotaExceeded,
    #[component(name = "other")]
    Other(String),
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::NoSuchCache => Self::NoSuchStore,
            wit::Error::AccessDenied => Self::AccessDenied,
            wit::Error::InvalidArgument(_) => Self::InvalidArgument,
            // A quota would be one that others use up too: this value will never be stored.
            wit::Error::ValueTooLarge(max) => Self::Other(format!("value: must not be over {max} bytes")),
            wit::Error::Timeout => Self::Timeout,
            wit::Error::Unavailable => Self::StoreUnavailable,
            wit::Error::Other(message) => Self::Other(message),
        }
    }
}

/// `set-options` of the interface `types`.
#[derive(Debug, Clone, Copy, Default, ComponentType, Lift)]
#[component(record)]
pub(super) struct SetOptions {
    #[component(name = "ttl-ms")]
    pub(super) ttl_ms: Option<u64>,
    #[component(name = "if-not-exists")]
    pub(super) if_not_exists: bool,
}

/// `entry` of the interface `cas`.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Entry {
    #[component(name = "value")]
    value: Bytes,
    #[component(name = "version")]
    version: String,
}

impl Entry {
    pub(super) fn new((value, version): (Bytes, Version)) -> Self {
        Self { value, version: version.to_token() }
    }
}

/// `cas-options` of the interface `cas`.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct CasOptions {
    #[component(name = "require-version")]
    pub(super) require_version: Option<String>,
    #[component(name = "require-value")]
    pub(super) require_value: Option<Vec<u8>>,
}

/// `cas-result` of the interface `cas`.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum CasResult {
    #[component(name = "swapped")]
    Swapped,
    #[component(name = "stale")]
    Stale(Option<Entry>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_name_that_the_interface_has_for_it() {
        let invalid = wit::Error::InvalidArgument("key: must not be empty".to_owned());
        let large = "value: must not be over 10 bytes".to_owned();
        for (ours, theirs) in [
            (wit::Error::NoSuchCache, Error::NoSuchStore),
            (wit::Error::AccessDenied, Error::AccessDenied),
            (invalid, Error::InvalidArgument),
            (wit::Error::ValueTooLarge(10), Error::Other(large)),
            (wit::Error::Timeout, Error::Timeout),
            (wit::Error::Unavailable, Error::StoreUnavailable),
            (wit::Error::Other("x".to_owned()), Error::Other("x".to_owned())),
        ] {
            assert_eq!(Error::from(ours), theirs);
        }
    }
}
