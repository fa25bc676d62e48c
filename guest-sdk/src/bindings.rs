//! What wit-bindgen makes of `wit/cache.wit`. Nothing generated leaves this module unnamed.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, unsafe_code)]
#![allow(clippy::all, clippy::pedantic, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

wit_bindgen::generate!({
    path: "wit",
    world: "imports",
});

pub use self::larder::cache::cache::*;
