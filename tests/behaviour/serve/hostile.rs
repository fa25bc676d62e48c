//! Random sequences of hostile calls through a real component: the host neither panics nor grows.
//!
//! `LARDER_HOSTILE_SEED` repeats a run; `LARDER_HOSTILE_SEQUENCES` makes it longer or shorter.

use std::hash::{BuildHasher, RandomState};
use std::process::Command;
use std::sync::Arc;

use larder_host::Runtime;
use larder_tests::attack::{
    AttackOutcome, HOSTILE_PLUGINS, HOSTILE_RAM, assert_no_lease_is_left, attack, hostile_host,
};
use larder_tests::{Kind, Server, guest};

/// The number of concurrent sequences, which wait for each other's leases.
const AT_ONCE: u64 = 4;
/// What the process may grow by from the first half of a run to its end. Measured: below 1 MiB.
#[cfg(target_os = "linux")]
const GROWTH: u64 = 8 << 20;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{name}` is not a number: `{text}`")))
}

/// Random numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.next() % 96;
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Bytes of memory that the process has.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// What came of the sequences.
#[derive(Debug, Default)]
struct Tally {
    results: u64,
    errors: u64,
    traps: u64,
}

/// Sequences `from..to` of a seed.
async fn attacks(host: &Arc<Runtime>, seed: u64, from: u64, to: u64) -> Tally {
    let plugins: Arc<Vec<_>> =
        Arc::new(HOSTILE_PLUGINS.map(|name| host.load(&guest("attack"), Some(name)).unwrap()).into());
    let workers = (0..AT_ONCE).map(|worker| {
        let (host, plugins) = (Arc::clone(host), Arc::clone(&plugins));
        tokio::spawn(async move {
            let mut tally = Tally::default();
            for n in (from..to).filter(|n| n % AT_ONCE == worker) {
                let calls = Random(seed ^ n.wrapping_mul(0x2545_f491_4f6c_dd1d)).bytes();
                let plugin = &plugins[usize::try_from(n / AT_ONCE % 3).unwrap()];
                match attack(&host, plugin, &calls).await {
                    AttackOutcome::Finished(results, errors) => {
                        tally.results += u64::from(results);
                        tally.errors += u64::from(errors);
                    }
                    AttackOutcome::Trapped => tally.traps += 1,
                }
            }
            tally
        })
    });
    let mut sum = Tally::default();
    for worker in workers.collect::<Vec<_>>() {
        let tally = worker.await.expect("the host panics");
        sum.results += tally.results;
        sum.errors += tally.errors;
        sum.traps += tally.traps;
    }
    sum
}

fn seed() -> u64 {
    let seed = setting("LARDER_HOSTILE_SEED").unwrap_or_else(|| RandomState::new().hash_one("hostile"));
    // In case that something fails.
    eprintln!("LARDER_HOSTILE_SEED={seed}");
    seed
}

fn assert_all_kinds(tally: &Tally) {
    assert!(tally.results > 0 && tally.errors > 0 && tally.traps > 0, "{tally:?}");
}

const ALONE: &str = "LARDER_HOSTILE_ALONE";

/// In a process of its own, because other tests add to the memory of this one.
#[test]
fn hostile_sequences_leave_neither_memory_nor_leases_behind() {
    if std::env::var_os(ALONE).is_none() {
        let path = concat!(module_path!(), "::hostile_sequences_leave_neither_memory_nor_leases_behind");
        let (_crate, test) = path.split_once("::").unwrap();
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{said}");
        eprintln!("{said}");
        return;
    }
    let (seed, sequences) = (seed(), setting("LARDER_HOSTILE_SEQUENCES").unwrap_or(10_000));
    let began = std::time::Instant::now();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let host = Arc::new(hostile_host(HOSTILE_RAM).await);
        assert_all_kinds(&attacks(&host, seed, 0, sequences / 2).await);
        #[cfg(target_os = "linux")]
        let half = resident();
        let tally = attacks(&host, seed, sequences / 2, sequences).await;
        assert_all_kinds(&tally);
        #[cfg(target_os = "linux")]
        {
            let end = resident();
            eprintln!("{sequences} sequences in {:?}: {} KiB, then {} KiB", began.elapsed(), half >> 10, end >> 10);
            assert!(end <= half + GROWTH, "grew from {} to {} KiB", half >> 10, end >> 10);
        }
        eprintln!("second half, by {:?}: {tally:?}", began.elapsed());
        assert_no_lease_is_left(&host).await;
    });
}

fn on_server(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let seed = seed();
    let sequences = setting("LARDER_HOSTILE_SEQUENCES").unwrap_or(10_000) / 10;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let host = Arc::new(hostile_host(&format!("{}timeout = \"20s\"\n", server.cache("c"))).await);
        assert_all_kinds(&attacks(&host, seed, 0, sequences).await);
        assert_no_lease_is_left(&host).await;
    });
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.client()).unwrap();
    let outside: Vec<&String> = keys.iter().filter(|key| !key.starts_with("cache:")).collect();
    assert!(!keys.is_empty() && outside.is_empty(), "outside of the prefix: {outside:?}");
}

#[test]
fn hostile_sequences_leave_no_lease_on_valkey() {
    on_server(Kind::Valkey);
}

#[test]
fn hostile_sequences_leave_no_lease_on_new_valkey() {
    on_server(Kind::ValkeyWithIfeq);
}

#[test]
fn hostile_sequences_leave_no_lease_on_redis() {
    on_server(Kind::Redis);
}
