//! Tests of what Larder does, from outside: as a library, as the program, and from plugins.
//!
//! - `backends`: not tests, but the caches that tests are repeated over: RAM, each server, and a cluster.
//! - `cache`: what a cache stores, limits and separates, alike on every backend.
//! - `get_or_set`: one computation per key, in one process and across processes.
//! - `servers`: connections to Valkey and Redis, clusters, Sentinel, TLS, outages and faults.
//! - `config`: `larder.toml`, its schema and its messages.
//! - `cli`: the program `larder` and its subcommands.
//! - `serve`: `larder serve`, its telemetry, and the sandbox that plugins run in.
//! - `foreign`: plugins that import interfaces of other projects.
//! - `sdk`: plugins written with the SDK, in Rust and other languages, and the SDK's own host for tests.
//!
//! `tests/project` has the tests of the repository itself. Each folder's `mod.rs` begins with an index.

#![allow(missing_docs, reason = "tests have no users")]

mod backends;
mod cache;
mod cli;
mod config;
mod foreign;
mod get_or_set;
mod sdk;
mod serve;
mod servers;
