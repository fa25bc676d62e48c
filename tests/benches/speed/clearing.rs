//! Clears by pattern, compared with a `SCAN` of the same database. Both visit every key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use larder_host::cache::{Duration, Limits, ScopedCache};
use redis::aio::MultiplexedConnection;

use crate::backend::{Backend, view};
use crate::other_caches::QuickCache;
use crate::table;

/// Clears all of 10,000 values.
pub(crate) async fn clear_all(backend: &Backend) {
    against_scan(backend, 15, "", 10_000, 0, "*").await;
}

/// Clears 1,000 of 100,000 values by a pattern.
pub(crate) async fn clear_pattern_of_100_000(backend: &Backend) {
    against_scan(backend, 15, "found:", 1_000, 99_000, "found:*").await;
}

/// Clears 10,000 of 1,000,000 values by a pattern. [`impact_on_server`] uses the remaining values.
pub(crate) async fn clear_pattern_of_a_million(backend: &Backend) {
    against_scan(backend, 7, "found:", 10_000, 990_000, "found:*").await;
}

/// Repeatedly scans the database and clears the values under a prefix. Storing them again is not timed.
async fn against_scan(backend: &Backend, rounds: usize, prefix: &str, removed: u64, left: u64, pattern: &str) {
    let name = if pattern == "*" { "clear-all" } else { "clear-pattern" };
    let mut client = backend.client(None).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut client).await.unwrap();
    let cache = view(&backend.cache("").await);
    put(&cache, "other:", left).await;
    put(&cache, prefix, removed).await;
    let glob = format!("cache:{pattern}");
    let passes = table::interleave(3, rounds, async |candidate| {
        let start = Instant::now();
        let (found, expected) = match candidate {
            0 => (scan(&mut client, None).await, removed + left),
            1 => (scan(&mut client, Some(&glob)).await, removed),
            _ if pattern == "*" => (cache.clear_all().await.unwrap(), removed),
            _ => (cache.clear_pattern(pattern).await.unwrap(), removed),
        };
        let seconds = start.elapsed().as_secs_f64();
        // `SCAN` may return a key twice while the server resizes its table.
        assert!(found >= expected, "{found} keys of {expected}");
        if candidate == 2 {
            put(&cache, prefix, removed).await;
        }
        seconds
    });
    table::candidates(&backend.name, &["SCAN", "SCAN MATCH", name], &passes.await);
}

/// Measures the impact of a bare client's `SCAN` and of a clear on the server: the slowest command of each kind, from
/// the server's latency statistics, and the latency of another client's `PING`.
pub(crate) async fn impact_on_server(backend: &Backend) {
    let mut client = backend.client(None).await;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("latency-tracking-info-percentiles").arg("100");
    let () = set.query_async(&mut client).await.unwrap();
    let cache = view(&backend.cache("").await);
    for name in ["SCAN MATCH", "clear-pattern"] {
        let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut client).await.unwrap();
        let is_done = Arc::new(AtomicBool::new(false));
        let pings = tokio::spawn(ping(backend.client(None).await, Arc::clone(&is_done)));
        match name {
            "SCAN MATCH" => drop(scan(&mut client, Some("cache:found:*")).await),
            _ => drop(cache.clear_pattern("found:*").await.unwrap()),
        }
        is_done.store(true, Ordering::Relaxed);
        let pings = pings.await.unwrap();
        let statistics: String = redis::cmd("INFO").arg("latencystats").query_async(&mut client).await.unwrap();
        let slowest = ["scan", "getrange", "unlink"].map(|command| {
            let prefix = format!("latency_percentiles_usec_{command}:p100=");
            let slowest = statistics.lines().find_map(|line| line.strip_prefix(&prefix));
            slowest.map_or_else(|| "-".to_owned(), |microseconds| format!("{microseconds} µs"))
        });
        let pings = [0.5, 0.99, 1.0].map(|share| table::time(table::quantile(&pings, share)));
        table::row(if name == "SCAN MATCH" { &backend.name } else { "" }, name, &[slowest, pings].concat());
    }
    // A million keys would slow down the next measurements.
    let () = redis::cmd("FLUSHALL").query_async(&mut client).await.unwrap();
}

/// Sends `PING` until `is_done`, and returns the latencies.
async fn ping(mut client: MultiplexedConnection, is_done: Arc<AtomicBool>) -> Vec<f64> {
    let mut times = Vec::new();
    while !is_done.load(Ordering::Relaxed) {
        let start = Instant::now();
        let _pong: String = redis::cmd("PING").query_async(&mut client).await.unwrap();
        times.push(start.elapsed().as_secs_f64());
    }
    times
}

/// Stores values of 100 bytes under a prefix.
async fn put(cache: &ScopedCache, prefix: &str, count: u64) {
    let keys: Vec<u64> = (0..count).collect();
    for keys in keys.chunks(Limits::default().max_batch) {
        let entries = keys.iter().map(|key| (format!("{prefix}{key}"), vec![b'v'; 100])).collect();
        cache.set_many(entries, Duration::Unlimited).await.unwrap();
    }
}

/// Scans the database, and returns the number of keys in the replies.
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

/// Clears 10,000 of 1,000,000 values in RAM, compared with an iteration over all keys of quick_cache.
pub(crate) async fn in_ram() {
    table::heading("Removing 10,000 of 1,000,000 values in RAM by a pattern, beside a look at every key");
    const ALL: u64 = 1_000_000;
    const FOUND: u64 = 10_000;
    let cache = view(&Backend::ram().cache("max_bytes = \"1GiB\"\n").await);
    let other = QuickCache::new(1 << 30);
    put(&cache, "other:", ALL - FOUND).await;
    put(&cache, "found:", FOUND).await;
    (0..ALL - FOUND).for_each(|nth| other.set(&format!("other:{nth}"), vec![b'v'; 100].into()));
    (0..FOUND).for_each(|nth| other.set(&format!("found:{nth}"), vec![b'v'; 100].into()));
    let passes = table::interleave(2, 9, async |candidate| {
        let start = Instant::now();
        let found = match candidate {
            0 => other.keys().filter(|key| key.starts_with("found:")).count() as u64,
            _ => cache.clear_pattern("found:*").await.unwrap(),
        };
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(found, FOUND);
        if candidate == 1 {
            put(&cache, "found:", FOUND).await;
        }
        seconds
    });
    table::candidates("RAM", &["every key of quick_cache", "clear-pattern"], &passes.await);
}
