//! The WIT interface `larder:cache/cache` on a wasmtime linker, and the interfaces of other projects that are served by the
//! same caches. It converts types and calls [`cache`](crate::cache); it has no caching logic.

mod cache;
mod call_limit;
mod concurrent;
mod ctx;
mod foreign;
mod handles;
mod interface;
mod mistakes;
mod wit;

pub use call_limit::CallLimit;
pub(crate) use concurrent::INTERFACE as CONCURRENT_INTERFACE;
pub use concurrent::add_concurrent_to_linker;
pub use ctx::{Bounds, LarderCtx, LarderView};
pub use foreign::add_foreign_to_linker;
pub(crate) use foreign::{UnboundLabels, import_of, imports_foreign, missing_import};
pub(crate) use interface::INTERFACE;
pub use interface::add_to_linker;
pub use mistakes::Mistakes;
