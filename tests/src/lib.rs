//! The harness of the end-to-end tests: real servers, the real `larder` program, real plugins.
//!
//! Everything started here listens on loopback, on a port of its own, and ends with the value that holds it. A server
//! that was there before is never touched.

pub mod attack;
mod certificates;
mod cluster;
pub mod documents;
pub mod fuzz;
mod program;
mod relay;
pub mod repository;
mod sentinel;
mod server;
mod serving;
mod terminal;
mod upstream;

pub use certificates::{Authority, Certificate};
pub use cluster::Cluster;
pub use program::{Finished, Larder, Running, guest, language, program, template};
pub use relay::{Fault, Relay};
pub use sentinel::Sentinels;
pub use server::{Kind, Server, free_port};
pub use serving::{Answer, Client, Serving};
pub use terminal::Terminal;
pub use upstream::{Pieces, Reply, Upstream, reply};

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it: far more than it ever should.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is there; panics when [`PATIENCE`] runs out.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does a check with a configuration of one cache, named `cache`: in RAM, on Valkey and on Redis.
pub fn on_every_cache(check: impl Fn(&str)) {
    check("[caches.cache]\ntype = \"ram\"\n");
    for kind in Kind::ALL {
        if let Some(server) = Server::start(kind) {
            check(&server.cache("cache"));
        }
    }
}
