//! `larder serve`: plugins that answer HTTP requests, and the sandbox that plugins run in.
//!
//! - `corpus`: the inputs in the corpus of each fuzz target are handled.
//! - `shutdown`: at shutdown, running requests are finished and new ones are refused.
//! - `host_memory`: what a plugin makes the host hold counts against its memory, and no call holds up others.
//! - `hostile`: random sequences of hostile calls neither panic the host nor make its memory grow.
//! - `limits`: requests above the concurrency limit are answered or refused; none is lost.
//! - `metrics`: the metrics, `/readyz` and `/healthz` of a host.
//! - `outgoing`: which hosts a plugin's requests may reach, and what the plugin receives.
//! - `reload`: a plugin's file is replaced while requests run.
//! - `requests`: what a plugin receives, what the client receives, and errors in between.
//! - `routes`: several plugins in one server, each with its path and grant, and the errors at the start.
//! - `sandbox`: what a plugin can see of the machine, and what it cannot do to the host.
//! - `shared`: two processes share a server.
//! - `telemetry`: the log on standard error, and W3C traces.

mod corpus;
mod host_memory;
mod hostile;
mod limits;
pub(crate) mod metrics;
mod outgoing;
mod reload;
mod requests;
mod routes;
mod sandbox;
mod shared;
mod shutdown;
mod telemetry;
