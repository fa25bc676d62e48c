//! How fast Larder is, in ratios.
//!
//! What is compared is done in turns, a round of one and a round of the next, and the medians are printed with their
//! ratios: on a machine whose speed drifts, what is measured one after the other compares the drift. So this is no
//! framework for micro-benchmarks. Nothing is asserted about any time; what is asserted is that each call did what it is
//! timed for.
//!
//! `make bench` runs it, `make bench PART=ram` a part of it; docs/performance.md explains the rows. `LARDER_RESULTS`
//! names a file for the results. All servers are its own, on loopback.

mod beside;
mod clearing;
mod hits;
mod keys;
mod machine;
mod others;
mod place;
mod plugin;
mod ram;
mod starting;
mod table;
mod waiting;

use std::time::Duration;

use tokio::runtime::Builder;

use crate::place::Place;

/// Far more than it takes; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1800);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --all-targets` runs this as well, and has no use for it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: this is for `cargo bench`");
        return;
    }
    if let Some((of, _)) = arguments.split_last().filter(|(_, before)| before.iter().any(|word| word == "--memory")) {
        return keys::tell_memory(of);
    }
    let part = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.is_none_or(|part| part == name);
    // One thread, as the `larder` program has; an embedder may have more.
    let one_thread = Builder::new_current_thread().enable_all().build().unwrap();
    let two_threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if is_wanted("ram") {
        one_thread.block_on(within(ram()));
    }
    if is_wanted("keys") {
        one_thread.block_on(within(keys::threads()));
        keys::hit_ratio();
        keys::memory();
    }
    if is_wanted("start") {
        one_thread.block_on(within(start()));
    }
    if is_wanted("server") {
        let servers = one_thread.block_on(within(Place::servers()));
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
    machine::write_results(table::results());
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it hangs")
}

async fn ram() {
    ram::Bench::new().await.all().await;
    clearing::in_ram().await;
}

async fn start() {
    starting::programs().await;
    starting::instances().await;
}

async fn hits(servers: &[Place], how: &str, callers: u32) {
    table::heading(&format!("100 bytes on a server, {how}"));
    for place in servers {
        hits::against_a_bare_client(place, callers).await;
    }
}

async fn beside_large_values(servers: &[Place]) {
    for place in servers {
        beside::large_values(place).await;
    }
}

async fn clears(servers: &[Place]) {
    table::heading("Removing all of 10,000 values, against the SCAN of the same database by a bare client");
    for place in servers {
        clearing::everything(place).await;
    }
    table::heading("Removing 1,000 of 100,000 values by a pattern, against the SCAN of the same database");
    for place in servers {
        clearing::a_hundredth(place).await;
    }
    table::heading(
        "Removing 10,000 of 1,000,000 values on a server by a pattern, against the SCAN of the same database",
    );
    for place in servers {
        clearing::of_a_million(place).await;
    }
    table::heading(
        "The server meanwhile: slowest SCAN, GETRANGE and UNLINK; another client's PING: median, 99th percentile, longest",
    );
    for place in servers {
        clearing::slowest(place).await;
    }
}

async fn waits(servers: Vec<Place>) {
    waiting::from_fill_to_return(&Place::ram(), &servers).await;
    waiting::commands_while_waiting(servers).await;
}
