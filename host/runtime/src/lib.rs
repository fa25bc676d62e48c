//! The host side of Larder: one cache for all the WebAssembly plugins of a program.
//!
//! A plugin imports the interface `larder:cache/cache`. The operator selects the backend in a TOML file, read as a
//! [`Config`]: the memory of this process, or a Valkey or Redis server that many processes share. The plugin is the
//! same with each backend.
//!
//! An embedder with its own wasmtime program connects the [`Caches`] once, calls [`add_to_linker`] once for each
//! linker, and adds a [`LarderCtx`] for its plugin to each store:
//!
//! ```
//! use larder_host::{Caches, Config, LarderCtx, LarderView, add_to_linker};
//! use wasmtime::component::{Component, Linker, ResourceTable};
//! use wasmtime::{Engine, Store};
//!
//! struct State {
//!     larder: LarderCtx,
//!     table: ResourceTable,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = Config::from_toml(
//!         r#"
//!         [caches.ram]
//!         type = "ram"
//!         max_bytes = "16MiB"
//!         "#,
//!     )?;
//!     let caches = Caches::connect(config).await?;
//!
//!     let engine = Engine::default();
//!     let mut linker = Linker::<State>::new(&engine);
//!     add_to_linker(&mut linker, |state| LarderView { ctx: &mut state.larder, table: &mut state.table })?;
//!
//!     // Any component that imports the interface. This one reports whether the cache `ram` exists.
//!     # const PLUGIN: &str = include_str!("../doc/has-cache.wat");
//!     # let plugin = wat::parse_str(PLUGIN)?;
//!     let component = Component::new(&engine, plugin)?;
//!
//!     let state = State { larder: caches.plugin("greeter"), table: ResourceTable::new() };
//!     let mut store = Store::new(&engine, state);
//!     let instance = linker.instantiate_async(&mut store, &component).await?;
//!     let has_cache = instance.get_typed_func::<(), (bool,)>(&mut store, "has-cache")?;
//!     let (found,) = has_cache.call_async(&mut store, ()).await?;
//!     assert!(found);
//!
//!     // Before the program ends: wait until pending lease releases are finished.
//!     drop(store);
//!     caches.drain().await;
//!     Ok(())
//! }
//! ```
//!
//! A waiting call suspends the plugin and blocks no thread. Call plugins with wasmtime's async functions on a Tokio
//! runtime. A [`Runtime`] has an engine, a linker and a sandbox of its own; the program `larder` uses it.
//!
//! # Layout
//!
//! - [`cache`]: the crate `larder-cache`: the contract of a cache, its backends, and a plugin's view of a cache.
//! - [`config`]: the configuration in TOML.
//! - `linker`: the WIT interface on a wasmtime linker, and interfaces of other projects.
//! - `caches`: the caches of a configuration.
//! - `loading`, [`compiler`]: a plugin's file is read and compiled within limits.
//! - `engine`, `engines`, `plugin`, `sandbox`, [`runtime`]: plugins, each run in a sandbox of its own.
//! - `serve`, `outgoing`: the HTTP server and outgoing requests of plugins. They need the feature `serve`.
//! - [`inspection`]: what a plugin's file needs and offers.
//! - [`file_version`]: whether a file has changed. It needs the feature `serve`.
//! - [`console`]: the queues of stdout and stderr, shared by the output of plugins and the lines of the program.
//! - [`write_deadline`]: how long a client may take for what is written to it, on each port of the program.
//! - [`metrics`]: the metrics, through the facade of the `metrics` crate.
//! - [`error`]: errors outside of cache calls.

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Any value here may be controlled by a plugin, a file or a server.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod caches;
mod command;
pub mod compiler;
pub mod config;
pub mod console;
mod default_limits;
mod engine;
mod engines;
pub mod error;
#[cfg(feature = "serve")]
pub mod file_version;
mod host_calls;
pub mod inspection;
mod invoke;
mod linker;
mod loading;
pub mod metrics;
mod nearest;
#[cfg(feature = "serve")]
mod outgoing;
#[cfg(feature = "serve")]
mod pace;
mod plugin;
#[cfg(feature = "serve")]
mod plugin_body;
mod plugin_state;
mod run_metrics;
pub mod runtime;
mod sandbox;
#[cfg(feature = "serve")]
pub mod serve;
mod settings;
#[cfg(feature = "serve")]
mod trace;
#[cfg(feature = "serve")]
pub mod write_deadline;

pub use larder_cache as cache;

/// The version of wasmtime, and the interfaces of the caches for plugins of WASI 0.2 and of WASI 0.3, for reports of
/// defects.
///
/// wasmtime does not export its version. A test compares it with `Cargo.lock`.
pub const VERSIONS: [&str; 3] = ["48.0.8", linker::INTERFACE, linker::CONCURRENT_INTERFACE];

pub use caches::{Caches, connect_cache, connect_registered, operator_view};
pub use compiler::CompilerProcess;
pub use config::Config;
pub use error::Error;
pub use linker::{
    Bounds, CallLimit, LarderCtx, LarderView, Mistakes, add_concurrent_to_linker, add_foreign_to_linker, add_to_linker,
};
pub use runtime::Runtime;
pub use settings::Settings;
