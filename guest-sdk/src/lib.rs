//! The guest SDK of Larder: one shared cache for WebAssembly plugins.
//!
//! The host that runs the plugin serves the cache from memory, or from a Valkey or Redis server that many host
//! processes share. The operator chooses the backend; the plugin is the same `.wasm` file for all of them.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use larder::Cache;
//!
//! fn main() -> Result<(), larder::Error> {
//!     let cache = Cache::default()?;
//!
//!     cache.set("user:123", "John")?;
//!     let name: Option<String> = cache.get("user:123")?;
//!     println!("{name:?}");
//!
//!     let report: String = cache.get_or_set("report", Duration::from_secs(60), || expensive_report())?;
//!     println!("{report}");
//!
//!     cache.clear_pattern("user:*")?;
//!     Ok(())
//! }
//! # fn expensive_report() -> String { String::new() }
//! ```
//!
//! Build a plugin with `cargo build --target wasm32-wasip2` and run it with `larder run`. Its tests run natively with
//! `cargo test`, on the in-memory host of [`testing`].
//!
//! - [`Cache`] is an open cache. [`Cache::open`] opens one by name, [`Cache::default`] the operator's default.
//! - [`Cache::get_or_set`] and its variants compute a missing value once for all concurrent callers.
//! - [`Duration`] is how long a value may be served. Every call also takes a [`std::time::Duration`].
//! - [`Error`] is the reason why a call failed. Its variants state who can act on it:
//!
//! ```no_run
//! use larder::{Cache, Error};
//!
//! match Cache::open("valkey") {
//!     Ok(cache) => println!("{} keys cleared", cache.clear_all().unwrap_or(0)),
//!     Err(Error::NoSuchCache) => eprintln!("no cache is named `valkey`: ask the operator to add one"),
//!     Err(Error::AccessDenied) => eprintln!("ask the operator to grant the cache to this plugin"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! ```

// A panic in this crate ends the plugin that uses it.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod bindings;
mod cache;
mod codec;
mod duration;
mod error;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use cache::{Cache, Entry, Vacancy};
pub use duration::Duration;
pub use error::Error;
