//! Behaviour, one file for each kind; one binary, so that it links once.

#![allow(missing_docs, reason = "nobody uses a test as a library")]

mod architecture;
mod backends;
mod bad_input;
mod bounds;
mod cluster;
mod compiled;
mod components;
mod connection;
mod contract;
mod corpus;
mod dependencies;
mod deploy;
mod documents;
mod examples;
mod faults;
mod figures;
mod get_or_set;
mod hostile;
mod instances;
mod invoke;
mod isolation;
mod languages;
mod large_values;
mod leases;
mod man;
mod memory;
mod migration;
mod new;
mod outage;
mod program;
mod properties;
mod ready;
mod sandbox;
mod schema;
mod sentinel;
mod serve;
mod sharing;
mod specification;
mod telemetry;
mod tls;
mod top;
