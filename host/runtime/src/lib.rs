//! The host side of Larder: one cache for all the WebAssembly plugins of a program.
//!
//! A plugin imports the interface `larder:cache/cache` and never learns what answers it: this process's memory, or a
//! Valkey or Redis server that many processes share. The operator chooses in a TOML file, read as a [`Config`].
//!
//! An embedder with its own wasmtime program connects the [`Caches`] once, calls [`add_to_linker`] once for each
//! linker, and gives every store a [`LarderCtx`] for its plugin:
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
//!     // Any component that imports the interface; this one opens the cache `ram` and says whether there is one.
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
//!     // Before the program ends: what the plugin was computing, others may compute now.
//!     drop(store);
//!     caches.drain().await;
//!     Ok(())
//! }
//! ```
//!
//! CallLimit suspend the plugin while they wait, never a thread, so stores are used through wasmtime's async functions on a
//! Tokio runtime. A program that wants nothing but to run plugins takes a [`Runtime`], which is what the `larder`
//! program does.
//!
//! # Layout
//!
//! - [`cache`]: the crate `larder-cache`: the contract of a cache, its backends, and what one plugin may see.
//! - [`config`]: TOML into valid values.
//! - `linker`: the WIT interface over [`cache`].
//! - `caches`: backends made from a configuration.
//! - `engine`, `sandbox`, [`runtime`]: wasmtime, and plugins run in a sandbox.
//! - `serve`: plugins that answer HTTP requests, a sandbox for each, and `outgoing`: what they ask of other hosts. Need
//!   the feature `serve`.
//! - [`metrics`]: what an operator watches, through the facade of the `metrics` crate.
//! - [`error`]: what can go wrong outside a cache call.

// On docs.rs, whose compiler can, an item says which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// A plugin, a file or a server may control any value here.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[cfg(feature = "serve")]
mod body;
mod caches;
pub mod config;
mod engine;
pub mod error;
#[cfg(feature = "serve")]
mod file_version;
mod invoke;
mod linker;
pub mod metrics;
#[cfg(feature = "serve")]
mod outgoing;
mod runs;
pub mod runtime;
mod sandbox;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "serve")]
mod trace;

pub use larder_cache as cache;

pub use caches::{Caches, connect_cache, operator_view};
pub use config::Config;
pub use error::Error;
pub use linker::{Bounds, CallLimit, LarderCtx, LarderView, add_to_linker};
pub use runtime::Runtime;
