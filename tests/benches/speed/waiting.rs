//! The wait for a value that another caller computes.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Cache, Duration, Entry, ScopedCache, Vacancy};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::place::{POLLING, Place, view};
use crate::table;

/// Pairs of a holder and a waiter at the same time, how often each does it in a turn, and how many turns there are.
const PAIRS: u64 = 50;
const ROUNDS: u64 = 2;
const TURNS: usize = 4;

/// How many wait while the commands are counted.
const WAITERS: usize = 100;

/// How long the holders compute, in milliseconds. Who polls looks less often by the second time.
const SHORT: Range<u64> = 10..30;
const LONG: Range<u64> = 200..300;

/// How long a waiter takes to return, from the moment at which the holder begins to fill: the fill's own round trip is
/// within it.
pub(crate) async fn from_fill_to_return(ram: &Place, servers: &[Place]) {
    table::heading("From the start of the fill to the waiter's return, 400 times: median, 99th percentile, longest");
    let cache = ram.cache("").await;
    report(&ram.name, &cache, &[("same cache", &cache, LONG)]).await;
    for place in servers {
        // Two caches that were connected separately share nothing but the server, as two processes do.
        let (one, other, polling) = (place.cache("").await, place.cache("").await, place.cache(POLLING).await);
        assert!(other.check().await.unwrap().supports.contains(&"tracking"));
        assert!(!polling.check().await.unwrap().supports.contains(&"tracking"));
        let waiters = [
            ("same cache", &one, LONG),
            ("across processes, tracking", &other, LONG),
            ("polling, computed in 10-30 ms", &polling, SHORT),
            ("polling, in 200-300 ms", &polling, LONG),
        ];
        report(&place.name, &one, &waiters).await;
    }
}

async fn report(place: &str, holders: &Arc<Cache>, waiters: &[(&str, &Arc<Cache>, Range<u64>)]) {
    let mut times = vec![Vec::new(); waiters.len()];
    for _ in 0..TURNS {
        for ((_, waiters, computing), times) in waiters.iter().zip(&mut times) {
            times.extend(measure(holders, waiters, computing.clone()).await);
        }
    }
    for (nth, ((what, ..), times)) in waiters.iter().zip(&times).enumerate() {
        let numbers = [0.5, 0.99, 1.0].map(|share| table::time(table::quantile(times, share)));
        table::line(if nth == 0 { place } else { "" }, what, &numbers);
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
            for round in 0..ROUNDS {
                // A prime spreads the fills evenly over the time, whatever the pair and the round.
                let nth = (pair * ROUNDS + round) * 7919 % (PAIRS * ROUNDS);
                let pause = StdDuration::from_millis(shortest + nth * spread / (PAIRS * ROUNDS));
                times.push(fill_and_return(&holder, &waiter, &format!("{pair}:{round}"), pause).await);
            }
            times
        });
    }
    let times = pairs.join_all().await.concat();
    // On a machine that stalls, a fill may come before the waiter has asked.
    let waited = waiters.stats().waited - before;
    if waited < PAIRS * ROUNDS {
        eprintln!("only {waited} of {} have waited", PAIRS * ROUNDS);
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
    let begun = Instant::now();
    assert_eq!(holder.fill(vacancy, "value".into(), Duration::Default).await, Ok(true));
    let (answer, returned) = waiting.await.unwrap();
    assert!(matches!(answer, Ok(Entry::Occupied(_))), "{answer:?}");
    (returned - begun).as_secs_f64()
}

async fn vacancy(cache: &ScopedCache, key: &str) -> Vacancy {
    match cache.get_or_set(key).await {
        Ok(Entry::Vacant(vacancy)) => vacancy,
        other => panic!("no vacancy, but {other:?}"),
    }
}

/// What waiting costs a server. Commands are counted and not timed, so the servers have it at the same time.
pub(crate) async fn commands_while_waiting(servers: Vec<Place>) {
    table::heading(
        "Commands to the server from 100 waiters: first second, each of the next four (with a renewal), fill and return",
    );
    let counting: Vec<_> = servers.into_iter().map(|place| tokio::spawn(count_all(place))).collect();
    for counted in counting {
        let (place, counts) = counted.await.unwrap();
        for (nth, (what, [first, next, end])) in counts.iter().enumerate() {
            let numbers = [first.to_string(), format!("{:.1}", *next as f64 / 4.0), end.to_string()];
            table::line(if nth == 0 { &place.name } else { "" }, what, &numbers);
        }
    }
}

async fn count_all(place: Place) -> (Place, Vec<(&'static str, [u64; 3])>) {
    let ways = [
        ("1 process, tracking", 1, ""),
        ("4 processes, tracking", 4, ""),
        ("1 process, polling", 1, POLLING),
        ("4 processes, polling", 4, POLLING),
    ];
    let mut counts = Vec::new();
    for (what, processes, user) in ways {
        counts.push((what, count(&place, processes, user).await));
    }
    (place, counts)
}

/// The holder is another process, so nobody waits for it without asking the server.
async fn count(place: &Place, processes: usize, user: &str) -> [u64; 3] {
    let holder = view(&place.cache("").await);
    let mut caches = Vec::new();
    for _ in 0..processes {
        caches.push(place.cache(user).await);
    }
    let mut client = place.client(None).await;
    holder.clear("key").await.unwrap();
    let vacancy = vacancy(&holder, "key").await;

    let before = commands(&mut client).await;
    let begun = tokio::time::Instant::now();
    let own = commands(&mut client).await - before;
    let mut waiters = JoinSet::new();
    for nth in 0..WAITERS {
        let waiter = view(&caches[nth % processes]);
        waiters.spawn(async move { waiter.get_or_set("key").await });
    }
    tokio::time::sleep_until(begun + StdDuration::from_secs(1)).await;
    let waiting: u64 = caches.iter().map(|cache| cache.stats().waited).sum();
    assert_eq!(waiting, WAITERS as u64, "not all wait");
    let first = commands(&mut client).await;
    tokio::time::sleep_until(begun + StdDuration::from_secs(5)).await;
    let next = commands(&mut client).await;
    assert_eq!(holder.fill(vacancy, "value".into(), Duration::Default).await, Ok(true));
    while let Some(answer) = waiters.join_next().await {
        assert!(matches!(answer.unwrap(), Ok(Entry::Occupied(_))));
    }
    let end = commands(&mut client).await;
    // What each count adds to the next one is not theirs.
    [first - before - 2 * own, next - first - own, end - next - own]
}

/// How many commands the server has had.
async fn commands(client: &mut MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query_async(client).await.unwrap();
    let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.expect("`INFO stats` has it").trim().parse().unwrap()
}
