//! The memory that a RAM cache adds to its process.

#![cfg(target_os = "linux")]

use larder_tests::Larder;

/// What the process may use on top of the cache's `max_bytes`. Measured: 18 MiB for a program with an idle plugin, 32
/// MiB where the plugin has to be compiled first, and 30 MiB beside a cache that is full. The rest is for other
/// machines and allocators.
const OVERHEAD: u64 = 48 << 20;

#[test]
fn a_million_sets_keep_the_process_within_max_bytes_and_a_stated_overhead() {
    let config =
        "[caches.ram]\ntype = \"ram\"\nmax_bytes = \"64MiB\"\n[sandbox]\ntimeout = \"10m\"\nmax_cpu_time = \"10m\"\n";
    let mut run = Larder::run("million").config(config).start();
    assert_eq!(run.read_line(), "done");
    let peak = run.peak_memory();
    run.write_line("end");
    run.succeed();
    let bound = (64 << 20) + OVERHEAD;
    assert!(peak <= bound, "{} MiB instead of {} MiB at most", peak >> 20, bound >> 20);
    // A cache without values would be small too.
    assert!(peak > 64 << 20, "{} MiB cannot hold 64 MiB of values", peak >> 20);
}
