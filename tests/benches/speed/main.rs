//! Benchmarks of Larder, with ratios between the compared candidates.
//!
//! The rounds of the candidates are interleaved, and the medians are printed with their ratios. On a machine whose
//! speed drifts, a framework that measures one candidate after the other would compare the drift. The benchmarks assert
//! that each call returned the expected result, but assert nothing about times.
//!
//! `make bench` runs all benchmarks, and `make bench PART=ram` a part. `docs/performance.md` explains the rows.
//! `LARDER_RESULTS` names the results file. The benchmarks start their own servers on loopback.

mod backend;
mod clearing;
mod hits;
mod keys;
mod large_values;
mod other_caches;
mod plugin;
mod ram;
mod results_file;
mod startup;
#[allow(dead_code, reason = "the benchmark `serve` uses the rest")]
mod table;
mod waiting;

use std::time::Duration;

use tokio::runtime::Builder;

use crate::backend::Backend;
use crate::keys::Order;

/// The deadline of each part, so that a benchmark that hangs fails.
const TIMEOUT: Duration = Duration::from_secs(1800);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`. `cargo test --all-targets` also runs this program, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: run the benchmarks with `cargo bench`");
        return;
    }
    if let Some((of, _)) = arguments.split_last().filter(|(_, before)| before.iter().any(|word| word == "--memory")) {
        return keys::print_memory(of);
    }
    let part = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.is_none_or(|part| part == name);
    // The `larder` program uses one thread. An embedder may use more.
    let one_thread = Builder::new_current_thread().enable_all().build().unwrap();
    let two_threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if is_wanted("ram") {
        one_thread.block_on(within(ram()));
    }
    if is_wanted("keys") {
        table::heading("A hit of 100 bytes among 100,000 keys, without a copy, by threads at once: time / all hits");
        one_thread.block_on(within(keys::threads(&[(Order::Uniform, "uniform"), (Order::Zipf, "Zipf")], &[1, 2], 15)));
        keys::hit_ratio();
        keys::memory();
    }
    if is_wanted("start") {
        one_thread.block_on(within(start()));
    }
    if is_wanted("server") {
        let servers = one_thread.block_on(within(Backend::servers()));
        one_thread.block_on(within(hits(&servers, "one call at a time", 1)));
        one_thread.block_on(within(hits(&servers, "64 calls at once on one thread", 64)));
        two_threads.block_on(within(hits(&servers, "64 calls at once on two threads", 64)));
        let columns = "median, 99th percentile, longest, large values moved";
        table::heading(&format!("100 bytes beside large values of the same cache, on one thread: {columns}"));
        one_thread.block_on(within(beside_large_values(&servers)));
        table::heading("The same on two threads, where the copying of the large values is not in the way");
        two_threads.block_on(within(beside_large_values(&servers)));
        one_thread.block_on(within(clears(&servers)));
        one_thread.block_on(within(waits(servers)));
    }
    results_file::write(table::results(), Vec::new());
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("the benchmark ends before the timeout")
}

async fn ram() {
    ram::Bench::new().await.run().await;
    clearing::in_ram().await;
}

async fn start() {
    startup::processes().await;
    startup::instances().await;
}

async fn hits(servers: &[Backend], concurrency: &str, callers: u32) {
    table::heading(&format!("100 bytes on a server, {concurrency}"));
    for backend in servers {
        hits::compare_with_bare_client(backend, callers).await;
    }
}

async fn beside_large_values(servers: &[Backend]) {
    for backend in servers {
        large_values::hits_beside_large_values(backend).await;
    }
}

async fn clears(servers: &[Backend]) {
    table::heading("Removing all of 10,000 values, against the SCAN of the same database by a bare client");
    for backend in servers {
        clearing::clear_all(backend).await;
    }
    table::heading("Removing 1,000 of 100,000 values by a pattern, against the SCAN of the same database");
    for backend in servers {
        clearing::clear_pattern_of_100_000(backend).await;
    }
    table::heading(
        "Removing 10,000 of 1,000,000 values on a server by a pattern, against the SCAN of the same database",
    );
    for backend in servers {
        clearing::clear_pattern_of_a_million(backend).await;
    }
    table::heading(
        "The server meanwhile: slowest SCAN, GETRANGE and UNLINK; another client's PING: median, 99th percentile, longest",
    );
    for backend in servers {
        clearing::impact_on_server(backend).await;
    }
}

async fn waits(servers: Vec<Backend>) {
    waiting::from_fill_to_return(&Backend::ram(), &servers).await;
    waiting::commands_while_waiting(servers).await;
}
