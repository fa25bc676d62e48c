//! Clears by pattern, which look at every key as a `SCAN` does, and at what the found ones hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use larder_host::cache::{Duration, Limits, ScopedCache};
use redis::aio::MultiplexedConnection;

use crate::others::QuickCache;
use crate::place::{Place, view};
use crate::table;

/// Removes all of 10,000 values.
pub(crate) async fn everything(place: &Place) {
    against_scan(place, 15, "", 10_000, 0, "*").await;
}

/// Removes 1,000 of 100,000 values.
pub(crate) async fn a_hundredth(place: &Place) {
    against_scan(place, 15, "found:", 1_000, 99_000, "found:*").await;
}

/// Removes 10,000 of 1,000,000 values, and leaves the others for [`slowest`].
pub(crate) async fn of_a_million(place: &Place) {
    against_scan(place, 7, "found:", 10_000, 990_000, "found:*").await;
}

/// Removes the values under a prefix again and again, and puts them back untimed.
async fn against_scan(place: &Place, rounds: usize, prefix: &str, removed: u64, left: u64, pattern: &str) {
    let name = if pattern == "*" { "clear-all" } else { "clear-pattern" };
    let mut client = place.client(None).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut client).await.unwrap();
    let cache = view(&place.cache("").await);
    put(&cache, "other:", left).await;
    put(&cache, prefix, removed).await;
    let glob = format!("cache:{pattern}");
    let passes = table::in_turns(3, rounds, async |way| {
        let begun = Instant::now();
        let (found, expected) = match way {
            0 => (scan(&mut client, None).await, removed + left),
            1 => (scan(&mut client, Some(&glob)).await, removed),
            _ if pattern == "*" => (cache.clear_all().await.unwrap(), removed),
            _ => (cache.clear_pattern(pattern).await.unwrap(), removed),
        };
        let took = begun.elapsed().as_secs_f64();
        // A key may come twice where the server resizes its table meanwhile.
        assert!(found >= expected, "{found} keys of {expected}");
        if way == 2 {
            put(&cache, prefix, removed).await;
        }
        took
    });
    table::ways(&place.name, &["SCAN", "SCAN MATCH", name], &passes.await);
}

/// The slowest command of each kind, as the server has it, and how long another client's `PING` takes meanwhile, while a
/// bare client goes through the database and while a clear does.
pub(crate) async fn slowest(place: &Place) {
    let mut client = place.client(None).await;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("latency-tracking-info-percentiles").arg("100");
    let () = set.query_async(&mut client).await.unwrap();
    let cache = view(&place.cache("").await);
    for name in ["SCAN MATCH", "clear-pattern"] {
        let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut client).await.unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let pings = tokio::spawn(ping(place.client(None).await, Arc::clone(&is_over)));
        match name {
            "SCAN MATCH" => drop(scan(&mut client, Some("cache:found:*")).await),
            _ => drop(cache.clear_pattern("found:*").await.unwrap()),
        }
        is_over.store(true, Ordering::Relaxed);
        let pings = pings.await.unwrap();
        let statistics: String = redis::cmd("INFO").arg("latencystats").query_async(&mut client).await.unwrap();
        let longest = ["scan", "getrange", "unlink"].map(|command| {
            let start = format!("latency_percentiles_usec_{command}:p100=");
            let took = statistics.lines().find_map(|line| line.strip_prefix(&start));
            took.map_or_else(|| "-".to_owned(), |microseconds| format!("{microseconds} µs"))
        });
        let pings = [0.5, 0.99, 1.0].map(|share| table::time(table::quantile(&pings, share)));
        table::line(if name == "SCAN MATCH" { &place.name } else { "" }, name, &[longest, pings].concat());
    }
    // So many keys would be in the way of what is measured next.
    let () = redis::cmd("FLUSHALL").query_async(&mut client).await.unwrap();
}

/// Asks again and again; gives the time of each.
async fn ping(mut client: MultiplexedConnection, is_over: Arc<AtomicBool>) -> Vec<f64> {
    let mut times = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let _pong: String = redis::cmd("PING").query_async(&mut client).await.unwrap();
        times.push(begun.elapsed().as_secs_f64());
    }
    times
}

/// Values of 100 bytes.
async fn put(cache: &ScopedCache, prefix: &str, count: u64) {
    let keys: Vec<u64> = (0..count).collect();
    for keys in keys.chunks(Limits::default().max_batch) {
        let entries = keys.iter().map(|key| (format!("{prefix}{key}"), vec![b'v'; 100])).collect();
        cache.set_many(entries, Duration::Unlimited).await.unwrap();
    }
}

/// How many keys the server gives.
async fn scan(client: &mut MultiplexedConnection, glob: Option<&str>) -> u64 {
    let (mut cursor, mut count) = (0_u64, 0_u64);
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor);
        if let Some(glob) = glob {
            command.arg("MATCH").arg(glob);
        }
        let (next, found): (u64, Vec<Vec<u8>>) = command.arg("COUNT").arg(1000).query_async(client).await.unwrap();
        count += u64::try_from(found.len()).unwrap();
        if next == 0 {
            return count;
        }
        cursor = next;
    }
}

/// Removes 10,000 values of a million in RAM, beside a look at every key.
pub(crate) async fn in_ram() {
    table::heading("Removing 10,000 of 1,000,000 values in RAM by a pattern, beside a look at every key");
    const ALL: u64 = 1_000_000;
    const FOUND: u64 = 10_000;
    let cache = view(&Place::ram().cache("max_bytes = \"1GiB\"\n").await);
    let other = QuickCache::new(1 << 30);
    put(&cache, "other:", ALL - FOUND).await;
    put(&cache, "found:", FOUND).await;
    (0..ALL - FOUND).for_each(|nth| other.set(&format!("other:{nth}"), vec![b'v'; 100].into()));
    (0..FOUND).for_each(|nth| other.set(&format!("found:{nth}"), vec![b'v'; 100].into()));
    let passes = table::in_turns(2, 9, async |way| {
        let begun = Instant::now();
        let found = match way {
            0 => other.keys().filter(|key| key.starts_with("found:")).count() as u64,
            _ => cache.clear_pattern("found:*").await.unwrap(),
        };
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(found, FOUND);
        if way == 1 {
            put(&cache, "found:", FOUND).await;
        }
        took
    });
    table::ways("RAM", &["every key of quick_cache", "clear-pattern"], &passes.await);
}
