//! Leases on a server: one computation across processes, and what ends it.

mod elsewhere;
mod history;
mod processes;
