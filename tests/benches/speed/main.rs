//! What get-or-set costs: a hit, the wait for another's computation, and clears that must tell values from leases.
//!
//! Most of it is round trips and waits, not instructions, so the statistics of a micro-benchmark framework would add
//! nothing: what is compared is done in turns, a round of one and a round of the next, and the medians are printed with
//! their ratios. Times depend on the machine and its load, so nothing is asserted about any, and only the ratios say
//! much; what is asserted is that each call did what it is timed for.
//!
//! `make bench` runs it. All servers are its own, on loopback.

mod clearing;
mod hits;
mod place;
mod table;
mod waiting;

use std::time::Duration;

use tokio::runtime::Builder;

use crate::place::Place;

/// Far more than it takes; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    // `cargo bench` says so; `cargo test --all-targets` runs this as well, and has no use for it.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("skipped: this is for `cargo bench`");
        return;
    }
    // One thread, as the `larder` program has; an embedder may have more.
    let one_thread = Builder::new_current_thread().enable_all().build().unwrap();
    let two_threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let servers = one_thread.block_on(within(Place::servers()));
    one_thread.block_on(within(hits(&servers)));
    table::heading("A hit of 100 bytes, 64 calls at once on two threads, in native code");
    two_threads.block_on(within(hits_at_once(&servers)));
    one_thread.block_on(within(clears(&servers)));
    one_thread.block_on(within(waits(servers)));
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it hangs")
}

async fn hits(servers: &[Place]) {
    let ram = Place::ram();
    let everywhere = || std::iter::once(&ram).chain(servers);
    table::heading("A hit of 100 bytes, one call at a time, in native code");
    for place in everywhere() {
        hits::natively(place, 1).await;
    }
    table::heading("A hit of 100 bytes, one call at a time, in a plugin");
    for place in everywhere() {
        hits::in_a_plugin(place).await;
    }
    table::heading("A hit of 100 bytes, 64 calls at once on one thread, in native code");
    hits_at_once(servers).await;
}

async fn hits_at_once(servers: &[Place]) {
    for place in servers {
        hits::natively(place, 64).await;
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
}

async fn waits(servers: Vec<Place>) {
    waiting::from_fill_to_return(&Place::ram(), &servers).await;
    waiting::commands_while_waiting(servers).await;
}
