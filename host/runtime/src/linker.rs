//! The WIT interface `larder:cache/cache` on a wasmtime linker. It converts types and calls [`cache`](crate::cache); it
//! has no caching logic.

mod cache;
mod call_limit;
mod concurrent;
mod ctx;
mod handles;
mod interface;
mod wit;

pub use call_limit::CallLimit;
pub use concurrent::add_concurrent_to_linker;
pub use ctx::{Bounds, LarderCtx, LarderView};
pub use interface::add_to_linker;
