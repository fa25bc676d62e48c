//! Sixty-four plugin instances in one host, whose server dies or falls silent: how long their calls take, and what
//! comes of what they stored.
//!
//! The figures are printed: `cargo test -p larder-tests --test behaviour -- servers::faults::load --nocapture`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_host::cache::ScopedCache;
use larder_host::runtime::RunOptions;
use larder_host::{Config, Runtime, operator_view};
use larder_tests::{Fault, Kind, Relay, Server, TEST_TIMEOUT, guest};
use tokio::task::JoinSet;

const INSTANCES: u64 = 64;

/// The deadline of a call.
const TIMEOUT: Duration = Duration::from_millis(500);

/// When the calls begin, the fault, its end, and the end of it all.
const BEFORE: Duration = Duration::from_secs(2);
const FAULT: Duration = Duration::from_secs(4);
const SECONDS: u64 = 10;

/// What a busy machine may add before a test gives up on it. What it really took is printed.
const PATIENT: Duration = Duration::from_secs(3);

/// One call of a plugin.
#[derive(Debug, Clone, Copy)]
struct Call {
    began: u64,
    took: Duration,
    outcome: u8,
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What all instances did.
async fn calls(reports: &ScopedCache) -> Vec<Call> {
    let mut calls = Vec::new();
    for instance in 0..INSTANCES {
        let report = reports.get(&format!("load{instance}")).await.unwrap().expect("each leaves a report");
        calls.extend(report.chunks_exact(13).map(|record| Call {
            began: u64::from_le_bytes(record[..8].try_into().unwrap()),
            took: Duration::from_micros(u32::from_le_bytes(record[8..12].try_into().unwrap()).into()),
            outcome: record[12],
        }));
    }
    calls.sort_by_key(|call| call.began);
    calls
}

/// Runs the instances, does the fault and undoes it, and looks at every call there was.
async fn survives(
    what: &str,
    cache: &str,
    fault: impl FnOnce() + Send + 'static,
    heal: impl FnOnce() + Send + 'static,
) {
    let timeout = TIMEOUT.as_millis();
    let config = format!(
        "default = \"c\"\n{cache}on_outage = \"error\"\ntimeout = \"{timeout}ms\"\n\
         [caches.reports]\ntype = \"ram\"\nmax_bytes = \"256MiB\"\n[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n"
    );
    let runtime = Arc::new(Runtime::new(Config::from_toml(&config).unwrap()).await.unwrap());
    let plugin = Arc::new(runtime.load(&guest("load"), None).unwrap());
    let mut instances = JoinSet::new();
    for instance in 0..INSTANCES {
        let (runtime, plugin) = (Arc::clone(&runtime), Arc::clone(&plugin));
        let options = RunOptions { args: vec![instance.to_string(), SECONDS.to_string()], ..RunOptions::default() };
        instances.spawn(async move { runtime.run(&plugin, &options).await });
    }
    tokio::time::sleep(BEFORE).await;
    let began = now();
    tokio::task::spawn_blocking(fault).await.unwrap();
    tokio::time::sleep(FAULT).await;
    tokio::task::spawn_blocking(heal).await.unwrap();
    let healed = now();
    while let Some(ended) = tokio::time::timeout(TEST_TIMEOUT, instances.join_next()).await.expect("a call hangs") {
        assert_eq!(ended.unwrap().unwrap(), 0);
    }
    let calls = calls(&operator_view(Arc::clone(runtime.caches().get("reports").unwrap()), None)).await;

    let count = |outcome: u8| calls.iter().filter(|call| call.outcome == outcome).count();
    let longest = calls.iter().map(|call| call.took).max().unwrap();
    // By then each instance has waited for its three calls at most.
    let mut at_once: Vec<Duration> = calls
        .iter()
        .filter(|call| call.began > began + 2000 && call.began < healed - 1000)
        .map(|call| call.took)
        .collect();
    at_once.sort();
    let median = at_once[at_once.len() / 2];
    let back =
        calls.iter().find(|call| call.began + 1000 > healed && call.outcome == b'k').expect("the server is back");
    let after = (back.began + u64::try_from(back.took.as_millis()).unwrap()).saturating_sub(healed);
    println!(
        "{what}: {} calls of {INSTANCES} instances, {} of them errors; longest {longest:?} at a deadline of {TIMEOUT:?}; \
         during the outage median {median:?} of {}; first success {after} ms after the end of the fault; \
         wrong {}, lost {}",
        calls.len(),
        count(b'e'),
        at_once.len(),
        count(b'w'),
        count(b'l'),
    );
    assert_eq!((count(b'w'), count(b'l'), count(b'x')), (0, 0, 0), "wrong, lost, other errors");
    assert!(count(b'e') > 0 && count(b'k') > usize::try_from(INSTANCES).unwrap());
    assert!(longest < TIMEOUT + PATIENT, "{longest:?}");
    assert!(median < TIMEOUT / 10, "{median:?}");
    assert!(Duration::from_millis(after) < PATIENT, "{after} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_costs_timeouts_and_no_values() {
    // What it has acknowledged it has on disk.
    let Some(server) = Server::start_with(Kind::Valkey, &["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let cache = server.cache("c");
    let server = Arc::new(std::sync::Mutex::new(server));
    let (killed, back) = (Arc::clone(&server), Arc::clone(&server));
    let kill = move || killed.lock().unwrap().kill();
    survives("killed", &cache, kill, move || back.lock().unwrap().restart()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_under_load_costs_timeouts_and_no_values() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let relay = Arc::new(Relay::to(server.port()));
    let cache = server.cache("c").replace(&server.port().to_string(), &relay.port().to_string());
    let (silent, whole) = (Arc::clone(&relay), Arc::clone(&relay));
    let silence = move || silent.set_fault(Fault::Blackhole);
    survives("partition", &cache, silence, move || whole.set_fault(Fault::None)).await;
}
