//! A plugin that was built for an earlier version of the interface runs unmodified on every backend.
//!
//! `tests/kept/script-0.1.0.wasm` is `tests/guests/src/bin/script.rs` as built for `larder:cache@0.1.0`. It stays as it is.

use larder_tests::repository::root;
use larder_tests::{Cluster, Kind, Larder, Server};

const OPERATIONS: &[&str] = &[
    "get k",
    "set k v",
    "get k",
    "set short v 60000",
    "get-many k missing short",
    "get-or-set k other",
    "get-or-set computed value",
    "get computed",
    "slow slow answer 1",
    "set  v",
    "set k v 0",
    "clear k",
    "clear k",
    "clear-pattern s*",
    "clear-all",
    "open none",
];

const EXPECTED: &str = "miss\nok\nhit v\nok\nhit v miss hit v\nhit v\nfilled true\nhit value\ncomputed answer\n\
    error InvalidArgument(\"key: must not be empty\")\nerror InvalidArgument(\"duration: must not be zero\")\n\
    true\nfalse\n2\n1\nerror NoSuchCache\n";

fn assert_runs(toml: &str) {
    let plugin = root().join("tests/kept/script-0.1.0.wasm");
    let run = Larder::new(["run"]).config(toml).arg(plugin);
    let run = OPERATIONS.iter().fold(run, Larder::arg);
    assert_eq!(run.succeed().stdout, EXPECTED, "{toml}");
}

#[test]
fn it_runs_in_ram() {
    assert_runs("[caches.c]\ntype = \"ram\"\n");
}

#[test]
fn it_runs_on_every_server_with_and_without_a_near_tier() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        assert_runs(&server.cache("c"));
        assert_runs(&format!("{}near = {{}}\n", server.cache("c")));
    }
}

#[test]
fn it_runs_on_a_cluster() {
    if let Some(cluster) = Cluster::start(Kind::Valkey) {
        assert_runs(&cluster.cache("c"));
    }
}
