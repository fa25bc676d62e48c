//! `larder.toml`.
//!
//! - `bad_input`: each invalid configuration, command line and call has its own message.
//! - `schema`: the JSON Schema that `larder schema` prints accepts what the host accepts, and has every key.
//! - `specification`: the documented scenarios: defaults, storing, expiry, clearing, several caches, several workers.

mod bad_input;
mod schema;
mod specification;
