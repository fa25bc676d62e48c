//! The harness of the end-to-end tests: real servers, the real `larder` program, real plugins.
//!
//! Every process that the harness starts listens on loopback on a separate port, and is killed when its handle is
//! dropped. The harness does not connect to servers that it has not started.

pub mod attack;
mod certificates;
mod cluster;
pub mod documents;
pub mod fuzz;
pub mod http2_frames;
pub mod imitation;
mod ports;
mod program;
mod relay;
pub mod repository;
mod sentinel;
mod server;
mod serving;
mod terminal;
mod upstream;

pub use certificates::{Authority, Certificate};
pub use cluster::{Cluster, SlotGuard};
pub use ports::free_port;
pub use program::{Larder, LarderOutput, LarderProcess, child_of, guest, language_plugin, program, template_plugin};
pub use relay::{Fault, Relay, Side};
pub use sentinel::Sentinels;
pub use server::{FrozenServer, Kind, Server};
pub use serving::{Client, HttpResponse, ServeProcess};
pub use terminal::Terminal;
pub use upstream::{ChannelBody, Upstream, UpstreamResponse, ok_response};

use std::time::{Duration, Instant};

/// The deadline of every wait in a test. It is far longer than any wait should take, so that a busy machine fails no
/// test.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Polls until `poll` returns a value, and returns it. Panics after [`TEST_TIMEOUT`], with the name of `event`.
pub fn wait_for<T>(event: &str, poll: impl FnMut() -> Option<T>) -> T {
    wait_at_most(TEST_TIMEOUT, event, poll)
}

/// As [`wait_for`], with another deadline: for an event that takes a core for tens of seconds, which the tests share.
pub fn wait_at_most<T>(timeout: Duration, event: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out after {timeout:?}: {event}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reports that a test or a part of it is skipped because `missing` is not available. Panics if the environment has
/// `CI=true`, where nothing may be skipped.
pub fn skip(missing: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}, and with CI=true no test may be skipped");
    eprintln!("skipped: {missing}");
}

/// Runs a check with the TOML of one cache named `cache`, once in RAM and once on a server of each installed kind.
pub fn on_every_backend(check: impl Fn(&str)) {
    check("[caches.cache]\ntype = \"ram\"\n");
    for kind in Kind::ALL {
        if let Some(server) = Server::start(kind) {
            check(&server.cache("cache"));
        }
    }
}
