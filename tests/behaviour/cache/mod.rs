//! What a cache stores, limits and separates.
//!
//! - `bounds`: each limit on a plugin, named after its key: a call at the limit succeeds, and one above it fails.
//! - `contract`: values, batches, durations, clearing, namespaces and read-only grants, alike on every backend.
//! - `instructions`: the instructions of the hot paths, counted by Valgrind, stay below a limit.
//! - `isolation`: a plugin cannot read or change what its grant and namespace exclude.
//! - `memory`: the memory of the process stays near the configured size of a RAM cache.
//! - `properties`: for random calls and patterns, RAM answers as the servers do.
//! - `sleep`: durations go on while the machine sleeps.

mod bounds;
mod contract;
mod instructions;
mod isolation;
mod memory;
pub(crate) mod properties;
mod sleep;
