//! The memory that caches and vacancies add to their process.

#![cfg(target_os = "linux")]

use larder_tests::{Kind, Larder, LarderProcess, Server};

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

/// What the process may use on top of what it used before, for any number of vacancies that were held and are not. A
/// vacancy of which 100 bytes stayed would take 38 MiB after 400,000.
const AFTER_VACANCIES: u64 = 16 << 20;

const PATIENCE: &str = "[sandbox]\ntimeout = \"10m\"\nmax_cpu_time = \"10m\"\n";

/// Takes and drops a vacancy a number of times in one run, which must not add to the process's memory.
fn vacancies_leave_nothing(run: &mut LarderProcess, times: u32) {
    let mut churn = |times| {
        run.write_line(&format!("churn k {times}"));
        assert_eq!(run.read_line(), "churned");
        run.peak_memory()
    };
    let before = churn(1000);
    let added = churn(times).saturating_sub(before);
    assert!(added <= AFTER_VACANCIES, "{} KiB for {times} vacancies, one at a time", added >> 10);
}

#[test]
fn memory_is_in_proportion_to_vacancies_held_and_not_to_vacancies_ever_held() {
    let config = format!("[caches.ram]\ntype = \"ram\"\n{PATIENCE}");
    let mut run = Larder::run("session").config(&config).start();
    vacancies_leave_nothing(&mut run, 400_000);
    run.succeed();
}

#[test]
fn memory_is_in_proportion_to_vacancies_held_on_a_server_and_during_its_outage() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let mut run = Larder::run("session").config(&(server.cache("c") + PATIENCE)).start();
    vacancies_leave_nothing(&mut run, 20_000);
    server.kill();
    vacancies_leave_nothing(&mut run, 100_000);
    run.succeed();
}
