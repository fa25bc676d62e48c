//! Leases on a server: one computation across processes.
//!
//! - `two_caches`: two caches on one server that share no memory, and other programs that change a lease.
//! - `history`: random runs of several processes, checked against the guarantees in the guide.
//! - `processes`: several `larder` processes and one server.

mod history;
mod processes;
mod two_caches;
