//! The types of `wit/cache.wit` as wasmtime passes them. Values are [`Bytes`], so that wasmtime writes a stored value
//! into the plugin's memory without an intermediate copy.

#![allow(unsafe_code, reason = "the derived implementations of wasmtime's traits are unsafe")]

use bytes::Bytes;
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use super::handles::HeldVacancy;

/// Why a call failed.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Error {
    #[component(name = "no-such-cache")]
    NoSuchCache,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "invalid-argument")]
    InvalidArgument(String),
    #[component(name = "value-too-large")]
    ValueTooLarge(u64),
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "unavailable")]
    Unavailable,
    #[component(name = "other")]
    Other(String),
}

/// The duration of a value.
#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Duration {
    #[component(name = "default")]
    Default,
    #[component(name = "milliseconds")]
    Milliseconds(u64),
    #[component(name = "unlimited")]
    Unlimited,
}

/// The result of `get-or-set`.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Entry {
    #[component(name = "occupied")]
    Occupied(Bytes),
    #[component(name = "vacant")]
    Vacant(Resource<HeldVacancy>),
}

/// The result of `get-or-refresh`.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Freshness {
    #[component(name = "fresh")]
    Fresh(Bytes),
    #[component(name = "stale")]
    Stale(StaleValue),
    #[component(name = "vacant")]
    Vacant(Resource<HeldVacancy>),
}

/// A value that expires soon.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct StaleValue {
    #[component(name = "value")]
    pub(super) value: Bytes,
    #[component(name = "refresh")]
    pub(super) refresh: Option<Resource<HeldVacancy>>,
}
