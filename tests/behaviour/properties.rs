//! Random calls and random patterns: RAM answers as the servers do, and the SDK's host for tests as RAM does.
//!
//! A failure prints the least input that fails, which makes a test of its own; so no file of seeds is kept.

mod calls;
mod fake;
mod globs;
mod namespaces;

use proptest::test_runner::Config;

/// So many cases of each property.
fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}
