//! Behaviour, one file for each kind; one binary, so that it links once.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests fail by panicking"
)]

mod architecture;
mod backends;
mod bad_input;
mod compiled;
mod components;
mod connection;
mod contract;
mod documents;
mod examples;
mod get_or_set;
mod instances;
mod invoke;
mod isolation;
mod memory;
mod migration;
mod outage;
mod program;
mod properties;
mod sandbox;
mod sharing;
mod specification;
