//! The types of `wasi:keyvalue` and `fermyon:spin/key-value` as wasmtime passes them, with the one mapping of our errors to
//! theirs.

#![allow(unsafe_code, reason = "the derived implementations of wasmtime's traits are unsafe")]

use wasmtime::component::{ComponentType, Lower, Resource};

use super::super::handles::HeldCas;
use super::super::wit;
use super::bucket::write_cursor;
use crate::cache::KeyPage;

/// `error` of `wasi:keyvalue/store`.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

/// `error` of `fermyon:spin/key-value`.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum SpinError {
    #[component(name = "store-table-full")]
    StoreTableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

/// `cas-error` of `wasi:keyvalue/atomics`.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<HeldCas>),
}

/// `key-response` of `wasi:keyvalue/store@0.2.0-draft`.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct NumberedKeys {
    #[component(name = "keys")]
    pub(super) keys: Vec<String>,
    #[component(name = "cursor")]
    pub(super) cursor: Option<u64>,
}

/// `key-response` of `wasi:keyvalue/store@0.2.0-draft2` and of `wasmcloud:keyvalue/types`.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Keys {
    #[component(name = "keys")]
    pub(super) keys: Vec<String>,
    #[component(name = "cursor")]
    pub(super) cursor: Option<String>,
}

impl Keys {
    pub(super) fn new(page: KeyPage) -> Self {
        Self { keys: page.keys, cursor: page.next.map(write_cursor) }
    }
}

/// `error` of `wasi:config/store`. Settings are in the memory of the host, and so no call returns one.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum ConfigError {
    #[expect(dead_code, reason = "the type has the case")]
    #[component(name = "upstream")]
    Upstream(String),
    #[expect(dead_code, reason = "the type has the case")]
    #[component(name = "io")]
    Io(String),
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::NoSuchCache => Self::NoSuchStore,
            wit::Error::AccessDenied => Self::AccessDenied,
            wit::Error::InvalidArgument(rule) => Self::Other(rule),
            wit::Error::ValueTooLarge(max) => Self::Other(format!("value: must not be over {max} bytes")),
            wit::Error::Timeout => {
                Self::Other("timeout: no answer in time; a write may or may not have happened".to_owned())
            }
            wit::Error::Unavailable => Self::Other("unavailable: the cache cannot be reached now".to_owned()),
            wit::Error::Other(message) => Self::Other(message),
        }
    }
}

impl From<wit::Error> for SpinError {
    fn from(error: wit::Error) -> Self {
        match Error::from(error) {
            Error::NoSuchStore => Self::NoSuchStore,
            Error::AccessDenied => Self::AccessDenied,
            Error::Other(message) => Self::Other(message),
        }
    }
}

impl From<wit::Error> for CasError {
    fn from(error: wit::Error) -> Self {
        Self::Store(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: wit::Error) -> String {
        match Error::from(error) {
            Error::Other(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_error_keeps_what_the_plugin_can_act_on() {
        assert!(matches!(Error::from(wit::Error::NoSuchCache), Error::NoSuchStore));
        assert!(matches!(Error::from(wit::Error::AccessDenied), Error::AccessDenied));
        assert_eq!(text(wit::Error::InvalidArgument("key: must not be empty".to_owned())), "key: must not be empty");
        assert_eq!(text(wit::Error::ValueTooLarge(10)), "value: must not be over 10 bytes");
        assert!(text(wit::Error::Timeout).contains("may or may not have happened"));
        assert!(text(wit::Error::Unavailable).starts_with("unavailable: "));
        assert_eq!(text(wit::Error::Other("x".to_owned())), "x");
        assert!(matches!(SpinError::from(wit::Error::NoSuchCache), SpinError::NoSuchStore));
        assert!(matches!(SpinError::from(wit::Error::AccessDenied), SpinError::AccessDenied));
        assert!(matches!(CasError::from(wit::Error::AccessDenied), CasError::Store(Error::AccessDenied)));
    }
}
