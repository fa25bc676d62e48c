//! Hits and computations of a value that two processes cache for a second on one Valkey server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_tests::{Kind, Server};

use crate::cores::Cores;
use crate::hosts::{self, Host};
use crate::load::{Load, Stop};
use crate::table;

const CONNECTIONS: usize = 64;
const DURATION: Duration = Duration::from_secs(8);

pub(crate) fn cached() {
    static COMPUTED: AtomicUsize = AtomicUsize::new(0);
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = format!("{}default_expire = 1\n", server.cache("c"));
    let cores = Cores::all();
    let hosts = [(); 2].map(|()| Host::larder(hosts::larder(), &config, "http", &cores, None));
    let check = |body: &[u8]| match body {
        b"key true" => _ = COMPUTED.fetch_add(1, Ordering::Relaxed),
        b"key false" => {}
        _ => panic!("{}", String::from_utf8_lossy(body)),
    };
    let (addresses, stop) = (&hosts.each_ref().map(Host::address), Stop::After(DURATION));
    let load = Load { addresses, path: "/compute/key", connections: CONNECTIONS, stop, cores: &cores.generator, check };
    let round = load.run();
    let computed = COMPUTED.load(Ordering::Relaxed);
    table::heading("A value computed in 200 ms and cached for 1 s, by two processes on one Valkey server");
    table::columns(&["hits/s", "p50", "p99", "computed"]);
    let numbers = [
        format!("{:.0}", (round.requests() - computed) as f64 / round.elapsed.as_secs_f64()),
        format!("{:.2} ms", round.percentile(50)),
        format!("{:.2} ms", round.percentile(99)),
        format!("{computed} times in {:.1} s", round.elapsed.as_secs_f64()),
    ];
    table::row(&cores.name(), &format!("{CONNECTIONS} connections"), &numbers);
    // A computation of 200 ms and an expiry after 1 s are at least 1.2 s per computation.
    assert!(computed as f64 <= round.elapsed.as_secs_f64() / 1.2 + 1.0, "the value was computed too often");
}
