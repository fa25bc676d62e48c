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
mod contract;
mod documents;
mod examples;
mod sharing;
