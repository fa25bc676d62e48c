//! Plugins that know nothing of Larder, and import interfaces of other projects.
//!
//! - `keyvalue`: `wasi:keyvalue` in its versions, and `fermyon:spin/key-value`, on RAM, servers and a cluster.
//! - `labels`: interfaces that are imported more than once, each for a cache of its own.
//! - `languages`: plugins that were built by the tools of Python and JavaScript.
//! - `lost_replies`: writes whose replies are lost, which are sent once.
//! - `processes`: counters and compare-and-swap in four processes at the same time.
//! - `served`: plugins that serve HTTP, whose instances answer many requests.
//! - `settings`: `wasi:config`, from the plugin's `config`.
//! - `wasmcloud`: what `wasmcloud:keyvalue` has beyond `wasi:keyvalue`: times, conditions, versions, prefixes, and concurrency.

mod keyvalue;
mod labels;
mod languages;
mod lost_replies;
mod processes;
mod served;
mod settings;
mod wasmcloud;
