//! Waiting for a value that another caller computes: latency, and the number of commands on the server.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Cache, Duration, Entry, ScopedCache, Vacancy};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::backend::{Backend, POLLING, view};
use crate::table;

/// The number of concurrent pairs of a holder and a waiter.
const PAIRS: u64 = 50;
/// The number of measurements of each pair in a round.
const REPEATS: u64 = 2;
/// The number of rounds, in which the kinds of waiters are interleaved.
const ROUNDS: usize = 4;

/// The number of waiters while commands are counted.
const WAITERS: usize = 100;

/// The duration of a computation in milliseconds. Polling slows down over time, so it is measured with both.
const SHORT: Range<u64> = 10..30;
const LONG: Range<u64> = 200..300;

/// Times the return of a waiter from the start of the holder's fill. The time includes the round trip of the fill.
pub(crate) async fn from_fill_to_return(ram: &Backend, servers: &[Backend]) {
    table::heading("From the start of the fill to the waiter's return, 400 times: median, 99th percentile, longest");
    let cache = ram.cache("").await;
    report(&ram.name, &cache, &[("same cache", &cache, LONG)]).await;
    for backend in servers {
        // Two separately connected caches share only the server, as in two processes.
        let (one, other, polling) = (backend.cache("").await, backend.cache("").await, backend.cache(POLLING).await);
        assert!(other.check().await.unwrap().supports.contains(&"tracking"));
        assert!(!polling.check().await.unwrap().supports.contains(&"tracking"));
        let waiters = [
            ("same cache", &one, LONG),
            ("across processes, tracking", &other, LONG),
            ("polling, computed in 10-30 ms", &polling, SHORT),
            ("polling, in 200-300 ms", &polling, LONG),
        ];
        report(&backend.name, &one, &waiters).await;
    }
}

async fn report(backend: &str, holders: &Arc<Cache>, waiters: &[(&str, &Arc<Cache>, Range<u64>)]) {
    let mut times = vec![Vec::new(); waiters.len()];
    for _ in 0..ROUNDS {
        for ((_, waiters, computing), times) in waiters.iter().zip(&mut times) {
            times.extend(measure(holders, waiters, computing.clone()).await);
        }
    }
    for (nth, ((label, ..), times)) in waiters.iter().zip(&times).enumerate() {
        let numbers = [0.5, 0.99, 1.0].map(|share| table::time(table::quantile(times, share)));
        table::row(if nth == 0 { backend } else { "" }, label, &numbers);
    }
}

async fn measure(holders: &Arc<Cache>, waiters: &Arc<Cache>, computing: Range<u64>) -> Vec<f64> {
    view(holders).clear_all().await.unwrap();
    let before = waiters.stats().waited;
    let mut pairs = JoinSet::new();
    for pair in 0..PAIRS {
        let (holder, waiter) = (view(holders), view(waiters));
        let (shortest, spread) = (computing.start, computing.end - computing.start);
        pairs.spawn(async move {
            let mut times = Vec::new();
            for repeat in 0..REPEATS {
                // A prime factor spreads the fills of all pairs and repeats evenly over the interval.
                let nth = (pair * REPEATS + repeat) * 7919 % (PAIRS * REPEATS);
                let pause = StdDuration::from_millis(shortest + nth * spread / (PAIRS * REPEATS));
                times.push(fill_and_return(&holder, &waiter, &format!("{pair}:{repeat}"), pause).await);
            }
            times
        });
    }
    let times = pairs.join_all().await.concat();
    // If the machine stalls, a fill can precede its waiter's call, which then does not wait.
    let waited = waiters.stats().waited - before;
    if waited < PAIRS * REPEATS {
        eprintln!("only {waited} of {} callers have waited", PAIRS * REPEATS);
    }
    times
}

async fn fill_and_return(holder: &ScopedCache, waiter: &ScopedCache, key: &str, pause: StdDuration) -> f64 {
    let vacancy = vacancy(holder, key).await;
    let waiting = {
        let (waiter, key) = (waiter.clone(), key.to_owned());
        tokio::spawn(async move { (waiter.get_or_set(&key).await, Instant::now()) })
    };
    tokio::time::sleep(pause).await;
    let start = Instant::now();
    assert_eq!(holder.fill(vacancy, "value".into(), Duration::Default).await, Ok(true));
    let (answer, returned) = waiting.await.unwrap();
    assert!(matches!(answer, Ok(Entry::Occupied(_))), "{answer:?}");
    (returned - start).as_secs_f64()
}

async fn vacancy(cache: &ScopedCache, key: &str) -> Vacancy {
    match cache.get_or_set(key).await {
        Ok(Entry::Vacant(vacancy)) => vacancy,
        other => panic!("expected a vacancy, not {other:?}"),
    }
}

/// Counts the commands that waiters send to a server. Nothing is timed, so the servers are measured concurrently.
pub(crate) async fn commands_while_waiting(servers: Vec<Backend>) {
    table::heading(
        "Commands to the server from 100 waiters: first second, each of the next four (with a renewal), fill and return",
    );
    let tasks: Vec<_> = servers.into_iter().map(|backend| tokio::spawn(count_all(backend))).collect();
    for task in tasks {
        let (backend, counts) = task.await.unwrap();
        for (nth, (label, [first, next, end])) in counts.iter().enumerate() {
            let numbers = [first.to_string(), format!("{:.1}", *next as f64 / 4.0), end.to_string()];
            table::row(if nth == 0 { &backend.name } else { "" }, label, &numbers);
        }
    }
}

async fn count_all(backend: Backend) -> (Backend, Vec<(&'static str, [u64; 3])>) {
    let cases = [
        ("1 process, tracking", 1, ""),
        ("4 processes, tracking", 4, ""),
        ("1 process, polling", 1, POLLING),
        ("4 processes, polling", 4, POLLING),
    ];
    let mut counts = Vec::new();
    for (label, processes, user) in cases {
        counts.push((label, count(&backend, processes, user).await));
    }
    (backend, counts)
}

/// Counts the commands of [`WAITERS`] waiters in a number of processes. The holder uses another cache, as in another
/// process, so all waiters depend on the server.
async fn count(backend: &Backend, processes: usize, user: &str) -> [u64; 3] {
    let holder = view(&backend.cache("").await);
    let mut caches = Vec::new();
    for _ in 0..processes {
        caches.push(backend.cache(user).await);
    }
    let mut client = backend.client(None).await;
    holder.clear("key").await.unwrap();
    let vacancy = vacancy(&holder, "key").await;

    let before = commands(&mut client).await;
    let start = tokio::time::Instant::now();
    let own = commands(&mut client).await - before;
    let mut waiters = JoinSet::new();
    for nth in 0..WAITERS {
        let waiter = view(&caches[nth % processes]);
        waiters.spawn(async move { waiter.get_or_set("key").await });
    }
    tokio::time::sleep_until(start + StdDuration::from_secs(1)).await;
    let waiting: u64 = caches.iter().map(|cache| cache.stats().waited).sum();
    assert_eq!(waiting, WAITERS as u64, "not all callers wait");
    let first = commands(&mut client).await;
    tokio::time::sleep_until(start + StdDuration::from_secs(5)).await;
    let next = commands(&mut client).await;
    assert_eq!(holder.fill(vacancy, "value".into(), Duration::Default).await, Ok(true));
    while let Some(answer) = waiters.join_next().await {
        assert!(matches!(answer.unwrap(), Ok(Entry::Occupied(_))));
    }
    let end = commands(&mut client).await;
    // Subtract the commands of the counting itself.
    [first - before - 2 * own, next - first - own, end - next - own]
}

/// The number of commands that the server has processed.
async fn commands(client: &mut MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query_async(client).await.unwrap();
    let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.expect("`INFO stats` has this field").trim().parse().unwrap()
}
