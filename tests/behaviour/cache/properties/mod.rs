//! Properties that hold for random calls and random patterns.
//!
//! - `calls`: RAM and a server give the same answer to the same calls.
//! - `globs`: our glob matcher and the servers' agree on every key.
//! - `namespaces`: plugins with namespaces on one cache each get the answers of a cache of their own.
//!
//! A failure prints the smallest input that fails, which can be added as a test; so no file of seeds is kept.

pub(crate) mod calls;
pub(crate) mod globs;
mod namespaces;

use proptest::test_runner::Config;

/// The number of cases of each property.
pub(crate) fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}
