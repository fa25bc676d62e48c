//! The types of `wit/cache.wit` as wasmtime passes them. Values are [`Bytes`], which go from where they are kept into the
//! plugin's memory without a copy in between.

#![allow(unsafe_code, reason = "what wasmtime derives is unsafe to write by hand")]

use bytes::Bytes;
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use super::cache::HeldVacancy;

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

/// How long a value may be served.
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

/// What `get-or-set` found.
#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Entry {
    #[component(name = "occupied")]
    Occupied(Bytes),
    #[component(name = "vacant")]
    Vacant(Resource<HeldVacancy>),
}
