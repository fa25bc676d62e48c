//! The memory of `larder serve`: over many requests, and after many at once.

use std::time::Duration;

use crate::cores::Cores;
use crate::hosts::{self, Host};
use crate::load::{Load, Stop};
use crate::table;
use crate::usage::resident;

const CONNECTIONS: usize = 64;

/// After these numbers of requests at once the memory is read.
const BURSTS: [usize; 2] = [250, 1_000];

pub(crate) fn memory() {
    let requests: usize =
        std::env::var("REQUESTS").map_or(100_000, |requests| requests.parse().expect("`REQUESTS` is a number"));
    let cores = Cores::all();
    table::heading("Resident memory of larder serve");
    table::columns(&["memory"]);
    let send = |host: &Host, path: &str, connections, stop, check| {
        let addresses = &[host.address()];
        Load { addresses, path, connections, stop, cores: &cores.generator, check }.run()
    };
    let host = Host::larder(hosts::larder(), "", "http_hello", &cores, None);
    table::row("hello, 64 connections", "idle", &megabytes(&host));
    for tenth in 1..=10 {
        let stop = Stop::Requests(requests / 10 / CONNECTIONS);
        send(&host, "/", CONNECTIONS, stop, |body| assert_eq!(body, b"hello\n"));
        if [1, 5, 10].contains(&tenth) {
            table::row("", &format!("after {} requests", requests / 10 * tenth), &megabytes(&host));
        }
    }
    let config = "[serve]\nmax_concurrent_requests = 1000\n";
    let host = Host::larder(hosts::larder(), config, "http", &cores, None);
    table::row("max_concurrent_requests = 1000", "idle", &megabytes(&host));
    for burst in BURSTS {
        // Long enough for all of them to run at once.
        let asleep = Duration::from_secs(2).as_millis();
        let path = format!("/sleep/{asleep}");
        send(&host, &path, burst, Stop::Requests(1), |body| assert_eq!(body, b"slept"));
        table::row("", &format!("after {burst} at once"), &megabytes(&host));
    }
}

fn megabytes(host: &Host) -> [String; 1] {
    [format!("{:.1} MB", resident(host.id()) / 1e6)]
}
