#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[path = "../behaviour/bad_input.rs"]
mod bad_input;
#[path = "../behaviour/compiled.rs"]
mod compiled;
#[path = "../behaviour/components.rs"]
mod components;
#[path = "../behaviour/connection.rs"]
mod connection;
#[path = "../behaviour/invoke.rs"]
mod invoke;
#[path = "../behaviour/isolation.rs"]
mod isolation;
#[path = "../behaviour/memory.rs"]
mod memory;
#[path = "../behaviour/migration.rs"]
mod migration;
#[path = "../behaviour/outage.rs"]
mod outage;
#[path = "../behaviour/program.rs"]
mod program;
#[path = "../behaviour/sandbox.rs"]
mod sandbox;
#[path = "../behaviour/specification.rs"]
mod specification;
