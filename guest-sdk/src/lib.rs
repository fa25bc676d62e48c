//! One shared cache for WebAssembly plugins: the plugin's side.
//!
//! The host that runs the plugin answers from memory, or from a Valkey or Redis server which many host processes
//! share; its operator chooses, and the plugin is the same file either way.
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
//! Build it with `cargo build --target wasm32-wasip2` and run it with `larder run`; `cargo test` tests its parts on the
//! machine at hand, with the host in memory of [`testing`].
//!
//! - [`Cache`] is an open cache; [`Cache::open`] takes a name, [`Cache::default`] the operator's default.
//! - [`Cache::get_or_set`] and its relatives compute what is missing, once for all who ask at the same time.
//! - [`Duration`] says how long a value may be served; a [`std::time::Duration`] does.
//! - [`Error`] is why a call failed; a match on it tells who can act:
//!
//! ```no_run
//! use larder::{Cache, Error};
//!
//! match Cache::open("valkey") {
//!     Ok(cache) => println!("{} keys cleared", cache.clear_all().unwrap_or(0)),
//!     Err(Error::NoSuchCache) => eprintln!("the operator has no cache of that name"),
//!     Err(Error::AccessDenied) => eprintln!("the operator did not grant it to this plugin"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! ```

// A panic here ends somebody else's plugin.
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
