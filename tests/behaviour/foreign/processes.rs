//! Four processes at the same time: no increment and no swap is lost.

use larder_tests::{Cluster, Kind, Larder, Server};

const PROCESSES: usize = 4;

/// Runs an operation in four processes of `larder run` at the same time.
fn in_each_process(plugin: &str, config: &str, operation: &str) {
    let start = |_| Larder::run(plugin).config(config).arg(operation).start();
    let running: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in running {
        assert_eq!(process.succeed().stdout, "ok\n", "{plugin}: {operation}");
    }
}

/// The number of a key, as another plugin reads it.
fn number(config: &str, key: &str) -> String {
    Larder::run("spin_key_value").config(config).arg(format!("get {key}")).succeed().stdout
}

/// On a busy machine a call may take longer than the defaults allow.
fn patient(cache: &str) -> String {
    format!(
        "{cache}timeout = \"20s\"\ndefault_expire = \"unlimited\"\n[sandbox]\ntimeout = \"10m\"\nmax_cpu_time = \"10m\"\n"
    )
}

fn increments_are_not_lost(cache: &str) {
    let config = patient(cache);
    in_each_process("kv_draft2", &config, "increments n 10000");
    assert_eq!(number(&config, "n"), "`40000`\n", "{cache}");
    in_each_process("kv_draft", &config, "increments m 500");
    assert_eq!(number(&config, "m"), "`2000`\n", "{cache}");
}

/// Each process adds to the same number by compare-and-swap, and tries again until its swap is stored.
fn swaps_are_not_lost(cache: &str) {
    let config = patient(cache);
    in_each_process("kv_draft2", &config, "swaps n 10000");
    assert_eq!(number(&config, "n"), "`40000`\n", "{cache}");
}

#[test]
fn increments_are_not_lost_on_valkey() {
    if let Some(server) = Server::start(Kind::Valkey) {
        increments_are_not_lost(&server.cache("cache"));
    }
}

#[test]
fn increments_are_not_lost_on_redis() {
    if let Some(server) = Server::start(Kind::Redis) {
        increments_are_not_lost(&server.cache("cache"));
    }
}

#[test]
fn increments_are_not_lost_on_a_cluster() {
    if let Some(cluster) = Cluster::start(Kind::Valkey) {
        increments_are_not_lost(&cluster.cache("cache"));
    }
}

#[test]
fn swaps_are_not_lost_on_valkey() {
    if let Some(server) = Server::start(Kind::Valkey) {
        swaps_are_not_lost(&server.cache("cache"));
    }
}

#[test]
fn swaps_are_not_lost_on_redis() {
    if let Some(server) = Server::start(Kind::Redis) {
        swaps_are_not_lost(&server.cache("cache"));
    }
}

#[test]
fn swaps_are_not_lost_on_a_cluster() {
    if let Some(cluster) = Cluster::start(Kind::Valkey) {
        swaps_are_not_lost(&cluster.cache("cache"));
    }
}

/// By `wasmcloud:keyvalue`, in components of WASI 0.3.
fn nothing_is_lost_to_components_of_wasi_0_3(cache: &str) {
    let config = patient(cache);
    Larder::run("kv_wasmcloud").config(&config).arg("set n 0").succeed();
    in_each_process("kv_wasmcloud", &config, "swaps n 1000");
    assert_eq!(number(&config, "n"), "`4000`\n", "{cache}");
    in_each_process("kv_wasmcloud", &config, "increments m 10000");
    assert_eq!(number(&config, "m"), "`40000`\n", "{cache}");
    // Of those who set a key if it does not exist, one wins.
    let start = |_| Larder::run("kv_wasmcloud").config(&config).arg("claims key 2000").start();
    let running: Vec<_> = (0..PROCESSES).map(start).collect();
    let won = |process: larder_tests::LarderProcess| {
        let printed = process.succeed().stdout;
        printed.trim_end().trim_end_matches(" won").parse::<usize>().unwrap()
    };
    let won: Vec<usize> = running.into_iter().map(won).collect();
    assert_eq!(won.iter().sum::<usize>(), 2000, "{won:?}: {cache}");
}

#[test]
fn nothing_is_lost_to_components_of_wasi_0_3_on_valkey() {
    if let Some(server) = Server::start(Kind::Valkey) {
        nothing_is_lost_to_components_of_wasi_0_3(&server.cache("cache"));
    }
}

#[test]
fn nothing_is_lost_to_components_of_wasi_0_3_on_redis() {
    if let Some(server) = Server::start(Kind::Redis) {
        nothing_is_lost_to_components_of_wasi_0_3(&server.cache("cache"));
    }
}

#[test]
fn nothing_is_lost_to_components_of_wasi_0_3_on_a_cluster() {
    if let Some(cluster) = Cluster::start(Kind::Valkey) {
        nothing_is_lost_to_components_of_wasi_0_3(&cluster.cache("cache"));
    }
}

/// A near tier must not answer what the processes compare.
#[test]
fn swaps_are_not_lost_behind_a_near_tier() {
    if let Some(server) = Server::start(Kind::Valkey) {
        swaps_are_not_lost(&(server.cache("cache") + "near = {}\n"));
    }
}
