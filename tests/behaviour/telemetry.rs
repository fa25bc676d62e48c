//! What a host tells of its requests: a log that programs can read, and traces.

mod log;
mod traces;
