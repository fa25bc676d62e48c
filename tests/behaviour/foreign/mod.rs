//! Plugins that know nothing of Larder, and import interfaces of other projects.
//!
//! - `keyvalue`: `wasi:keyvalue` in its versions, and `fermyon:spin/key-value`, on RAM, servers and a cluster.
//! - `processes`: counters and compare-and-swap in four processes at the same time.
//! - `settings`: `wasi:config`, from the plugin's `config`.
//! - `wasmcloud`: what `wasmcloud:keyvalue` has beyond `wasi:keyvalue`: times, conditions, versions, prefixes, and concurrency.

mod keyvalue;
mod processes;
mod settings;
mod wasmcloud;
