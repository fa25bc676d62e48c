//! The contract of a cache, which RAM, Valkey and Redis implement alike.
//!
//! - `access`: what a plugin with a read-only grant may do.
//! - `batches`: get-many and set-many.
//! - `clearing`: clear, clear-pattern and clear-all.
//! - `counters`: exists, increment, compare-and-swap and clear-many.
//! - `durations`: when an entry expires.
//! - `listing`: lists of keys, in pages.
//! - `namespaces`: separate keys for each plugin on a shared cache.
//! - `values`: set and get of one key.

mod access;
mod batches;
mod clearing;
mod counters;
mod durations;
mod listing;
mod namespaces;
mod values;
