//! The bindings that wit-bindgen generates from `wit/cache.wit`. Other modules use only the items re-exported by name.
//!
//! The generated functions work only in a WebAssembly component. On all other targets this module exports those of
//! [`crate::testing`] instead.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, unsafe_code, dead_code)]
#![allow(clippy::all, clippy::pedantic, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

wit_bindgen::generate!({
    path: "wit",
    world: "imports",
});

#[cfg(target_family = "wasm")]
pub use self::larder::cache::cache::{Cache, Entry, Freshness, StaleValue, Vacancy, open, open_default};
pub use self::larder::cache::cache::{Duration, Error};
#[cfg(not(target_family = "wasm"))]
pub use crate::testing::host::{Cache, Entry, Freshness, StaleValue, Vacancy, open, open_default};

/// The bindings of `wit/cache-async.wit`.
#[cfg(all(feature = "async", target_family = "wasm"))]
pub mod concurrent {
    wit_bindgen::generate!({
        path: "wit",
        world: "imports-async",
        with: { "larder:cache/cache@0.1.1": crate::bindings::larder::cache::cache },
    });

    pub use self::larder::cache::cache_async::{Cache, Entry, Freshness, StaleValue, Vacancy, open, open_default};
}
