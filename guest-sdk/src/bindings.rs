//! What wit-bindgen makes of `wit/cache.wit`. Nothing generated leaves this module unnamed.
//!
//! Its functions can be called in a WebAssembly component only; on all other targets those of [`crate::testing`] stand
//! in for them.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, unsafe_code, dead_code)]
#![allow(clippy::all, clippy::pedantic, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

wit_bindgen::generate!({
    path: "wit",
    world: "imports",
});

#[cfg(target_family = "wasm")]
pub use self::larder::cache::cache::{Cache, Entry, Vacancy, open, open_default};
pub use self::larder::cache::cache::{Duration, Error};
#[cfg(not(target_family = "wasm"))]
pub use crate::testing::host::{Cache, Entry, Vacancy, open, open_default};
