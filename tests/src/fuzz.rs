//! What the fuzz targets do with their bytes. Each holds for all bytes there are; a panic is a finding.
//!
//! They stand here and not with the targets so that the corpus is replayed by plain tests, without a fuzzer.

// Decision: docs/decisions/0029-fuzz-properties-are-functions-of-the-test-harness.md

mod calls;
mod component;
mod config;
mod glob;
mod invoke;

pub use calls::calls;
pub use component::component;
pub use config::config;
pub use glob::{glob, reference};
pub use invoke::invoke;

/// A Tokio runtime for one target, whose stores live as long as the process.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
