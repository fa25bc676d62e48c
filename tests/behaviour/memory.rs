//! What a RAM cache costs the process it lives in.

use std::time::Instant;

use larder_tests::{Larder, PATIENCE};

/// What the process may use on top of the cache's `max_bytes`. The program's own pages, wasmtime and the plugin come to 32 MiB at
/// most, which is reached while a plugin is compiled; the allocator's slack and the cache's tables made 7 MiB when it was full.
/// Half as much again is left for other machines.
const OVERHEAD: u64 = 56 << 20;

#[cfg(target_os = "linux")]
#[test]
fn a_million_sets_keep_the_process_within_max_bytes_and_a_stated_overhead() {
    let config = "[caches.ram]\ntype = \"ram\"\nmax_bytes = \"64MiB\"\n[sandbox]\ntimeout = \"10m\"\n";
    let started = Instant::now();
    let mut run = Larder::run("million").config(config).start();
    assert_eq!(run.line(), "done", "after {:?} of {PATIENCE:?}", started.elapsed());
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    let peak = peak.parse::<u64>().unwrap() << 10;
    run.say("end");
    run.succeed();
    let bound = (64 << 20) + OVERHEAD;
    assert!(peak <= bound, "{} MiB instead of {} MiB at most", peak >> 20, bound >> 20);
    // A cache that keeps nothing would be small too.
    assert!(peak > 64 << 20, "{} MiB can not hold 64 MiB of values", peak >> 20);
}
