//! The properties of the fuzz targets. Each holds for every input; a panic is a finding.
//!
//! They are part of the test harness, so that ordinary tests replay the corpus without a fuzzer.

// Decision: docs/decisions/0029-fuzz-properties-are-functions-of-the-test-harness.md

mod calls;
mod component;
mod config;
mod glob;
mod invoke;
mod reply_limit;

pub use calls::calls;
pub use component::component;
pub use config::config;
pub use glob::{glob, reference};
pub use invoke::invoke;
pub use reply_limit::reply_limit;

/// A Tokio runtime for one target. The stores of its plugins live as long as the process.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
