//! The telemetry of a host.
//!
//! - `log`: the log on standard error, as text and as JSON.
//! - `traces`: W3C trace context through a host, and spans for a collector.

mod log;
mod traces;
