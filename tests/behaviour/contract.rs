//! The contract of a cache, which RAM, Valkey and Redis keep alike.

mod access;
mod batches;
mod clearing;
mod durations;
mod namespaces;
mod values;
