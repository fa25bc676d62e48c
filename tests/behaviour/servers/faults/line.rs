//! Networks that delay, throttle, drop, cut and reset connections.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_host::cache::{CacheError, Duration as Expire, Entry, ScopedCache};
use larder_host::{Config, connect_cache, operator_view};
use larder_tests::{Fault, Kind, Relay, Server, TEST_TIMEOUT};
use tokio::task::JoinSet;

use crate::backends::over_every_kind;

/// The deadline of a call, short so that the test need not wait long.
const TIMEOUT: Duration = Duration::from_millis(300);

/// The delay that a busy machine may add.
const PATIENT: Duration = Duration::from_secs(3);

/// A cache whose connections to the server go through a relay.
async fn behind_a_relay(kind: Kind, more: &str) -> Option<(Server, Relay, ScopedCache)> {
    let server = Server::start(kind)?;
    let relay = Relay::to(server.port());
    let table = server.cache("c").replace(&server.port().to_string(), &relay.port().to_string());
    let timeouts = "timeout = \"300ms\"\nconnect_timeout = \"1s\"\nwait = \"300ms\"\n";
    let config = Config::from_toml(&format!("{table}{timeouts}{more}")).unwrap();
    let cache = connect_cache("c", &config.caches["c"]).await.unwrap();
    Some((server, relay, operator_view(cache, None)))
}

fn value(key: &str) -> bytes::Bytes {
    format!("the value of {key}").into()
}

async fn set(cache: &ScopedCache, key: &str) -> Result<(), CacheError> {
    cache.set(key, value(key), Expire::Default).await
}

/// Asks until the answer is no outage: a busy machine may keep one call beyond its short deadline.
async fn in_the_end<T>(mut call: impl AsyncFnMut() -> Result<T, CacheError>) -> T {
    let served = async {
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) => assert!(error.is_outage(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, served).await.expect("the cache serves again")
}

/// Waits until the cache serves again. The key is one that nobody has set before, because a clear that was cut off may
/// arrive on its old connection yet, and remove the keys that it found.
async fn recovers(cache: &ScopedCache) {
    static RECOVERIES: AtomicU64 = AtomicU64::new(0);
    let key = format!("back-{}", RECOVERIES.fetch_add(1, Ordering::Relaxed));
    in_the_end(async || set(cache, &key).await).await;
    assert_eq!(in_the_end(async || cache.get(&key).await).await, Some(value(&key)));
}

/// One call of each kind, each of which ends in time: well, or with the error of an outage.
async fn each_ends_in_time(cache: &ScopedCache, fault: Fault) {
    let many = || vec!["a".to_owned(), "b".to_owned()];
    let entries = || many().into_iter().map(|key| (key.clone(), value(&key).to_vec())).collect();
    for operation in 0..8 {
        let started = Instant::now();
        let outcome = match operation {
            0 => cache.get("a").await.map(|found| assert!(found.is_none_or(|found| found == value("a")))),
            1 => cache.get_many(&many()).await.map(drop),
            2 => set(cache, "a").await,
            3 => cache.set_many(entries(), Expire::Default).await,
            4 => match cache.get_or_set("c").await {
                Ok(Entry::Vacant(vacancy)) => cache.fill(vacancy, value("c"), Expire::Default).await.map(drop),
                found => found.map(drop),
            },
            5 => cache.clear("a").await.map(drop),
            6 => cache.clear_pattern("c*").await.map(drop),
            _ => cache.clear_all().await.map(drop),
        };
        assert!(outcome.as_ref().err().is_none_or(CacheError::is_outage), "{fault:?} {operation}: {outcome:?}");
        // A get-or-set and its fill, or the steps of a clear, have a deadline each.
        assert!(started.elapsed() < TIMEOUT * 4 + PATIENT, "{fault:?} {operation}: {:?}", started.elapsed());
    }
}

async fn every_call_ends_in_time_on_any_line(kind: Kind) {
    let Some((server, relay, cache)) = behind_a_relay(kind, "on_outage = \"error\"\n").await else { return };
    for fault in [
        Fault::Delay(Duration::from_millis(100)),
        Fault::Delay(Duration::from_secs(1)),
        Fault::Throttle(100),
        Fault::Blackhole,
        Fault::ResetAfter(0),
        Fault::ResetAfter(1500),
    ] {
        relay.set_fault(fault);
        each_ends_in_time(&cache, fault).await;
        relay.set_fault(Fault::None);
        recovers(&cache).await;
    }
    // What was given up is closed: there are our two connections, one of which clears, and the one that asks.
    let mut client = server.client();
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let list = ::redis::cmd("CLIENT").arg("LIST").query::<String>(&mut client).unwrap();
        if list.lines().count() <= 3 {
            break;
        }
        assert!(Instant::now() < deadline, "connections are left behind:\n{list}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The addresses from which connections to a port on loopback are open.
fn open_connections(port: u16) -> BTreeSet<String> {
    let (table, remote) = (std::fs::read_to_string("/proc/net/tcp").unwrap(), format!(":{port:04X}"));
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The local and the remote address, and the state.
    lines.filter(|line| line[2].ends_with(&remote) && line[3] == "01").map(|line| line[1].to_owned()).collect()
}

/// The values are never received, so the connection is abandoned and closed. Linux lists the open connections.
async fn assert_closed_while_the_network_is_silent(kind: Kind, len: usize) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let Some((_server, relay, cache)) = behind_a_relay(kind, "on_outage = \"error\"\n").await else { return };
    set(&cache, "k").await.unwrap();
    let given_up = open_connections(relay.port());
    assert_eq!(given_up.len(), 1);
    relay.set_fault(Fault::Blackhole);
    let mut calls = JoinSet::new();
    for n in 0..8 {
        let (cache, value) = (cache.clone(), vec![0; len].into());
        calls.spawn(async move { cache.set(&format!("k{n}"), value, Expire::Default).await.unwrap_err() });
    }
    calls.join_all().await;
    let closed = async {
        while !open_connections(relay.port()).is_disjoint(&given_up) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, closed).await.expect("it is closed");
    relay.set_fault(Fault::None);
    recovers(&cache).await;
}

async fn an_abandoned_connection_is_closed_although_its_replies_never_arrive(kind: Kind) {
    assert_closed_while_the_network_is_silent(kind, 1).await;
}

/// The values exceed the send buffer, and the client would write all of them before it closes. So the system ends the
/// connection, when its data stay unacknowledged for too long.
async fn an_abandoned_connection_is_closed_although_its_writes_are_never_received(kind: Kind) {
    assert_closed_while_the_network_is_silent(kind, 1 << 20).await;
}

/// Late or partial replies belong to calls that have ended. The next calls must not receive them.
async fn a_reply_never_reaches_another_call(kind: Kind) {
    let Some((_server, relay, cache)) = behind_a_relay(kind, "on_outage = \"error\"\n").await else { return };
    let keys: Vec<String> = (0..32).map(|n| format!("key-{}-{n}", "x".repeat(n))).collect();
    for key in &keys {
        set(&cache, key).await.unwrap();
    }
    let mut callers = JoinSet::new();
    for key in keys.clone() {
        let cache = cache.clone();
        callers.spawn(async move {
            let (mut hits, until) = (0_u64, Instant::now() + Duration::from_secs(4));
            while Instant::now() < until {
                match cache.get(&key).await {
                    Ok(found) => {
                        assert_eq!(found, Some(value(&key)));
                        hits += 1;
                    }
                    Err(error) => assert!(error.is_outage(), "{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            hits
        });
    }
    let faults = async {
        for round in 0..12_usize {
            tokio::time::sleep(Duration::from_millis(150)).await;
            match round % 4 {
                0 => relay.set_fault(Fault::ResetAfter(2000 + round * 777)),
                1 => relay.set_fault(Fault::Delay(Duration::from_millis(400))),
                2 => relay.reset(),
                _ => relay.set_fault(Fault::Blackhole),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            relay.set_fault(Fault::None);
        }
    };
    faults.await;
    while let Some(caller) = tokio::time::timeout(TEST_TIMEOUT, callers.join_next()).await.expect("a call hangs") {
        assert!(caller.unwrap() > 0, "a key was never read");
    }
    recovers(&cache).await;
    let found = in_the_end(async || cache.get_many(&keys).await).await;
    assert_eq!(found, keys.iter().map(|key| Some(value(key))).collect::<Vec<_>>());
}

/// The server executes the write, and its reply is lost.
async fn a_write_that_was_cut_off_says_that_it_may_have_happened(kind: Kind) {
    let Some((server, relay, cache)) = behind_a_relay(kind, "").await else { return };
    set(&cache, "before").await.unwrap();
    // No more bytes of the server arrive on the open connection.
    relay.set_fault(Fault::ResetAfter(0));
    let cut = set(&cache, "k").await.unwrap_err();
    assert!(matches!(cut, CacheError::Lost(_) | CacheError::Timeout(_)), "{cut:?}");
    let stored: Option<String> = ::redis::cmd("GET").arg("cache:k").query(&mut server.client()).unwrap();
    assert_eq!(stored.as_deref(), Some("the value of k"));
    relay.set_fault(Fault::None);
    recovers(&cache).await;
    assert_eq!(in_the_end(async || cache.get("k").await).await, Some(value("k")));
}

async fn on_a_silent_network_reads_are_misses_and_writes_time_out(kind: Kind) {
    let Some((_server, relay, cache)) = behind_a_relay(kind, "").await else { return };
    set(&cache, "k").await.unwrap();
    relay.set_fault(Fault::Blackhole);
    assert_eq!(cache.get("k").await, Ok(None));
    assert_eq!(set(&cache, "k").await, Err(CacheError::Timeout(TIMEOUT)));
    assert_eq!(cache.get_many(&["k".to_owned()]).await, Ok(vec![None]));
    // By now the connection is abandoned, or will be after one more timeout.
    let errors = [set(&cache, "k").await.unwrap_err(), set(&cache, "k").await.unwrap_err()];
    assert!(matches!(errors[1], CacheError::Unavailable(_)), "{errors:?}");
    relay.set_fault(Fault::None);
    recovers(&cache).await;
    assert_eq!(in_the_end(async || cache.get("k").await).await, Some(value("k")));
}

over_every_kind! {
    every_call_ends_in_time_on_any_line,
    a_reply_never_reaches_another_call,
    a_write_that_was_cut_off_says_that_it_may_have_happened,
    on_a_silent_network_reads_are_misses_and_writes_time_out,
    an_abandoned_connection_is_closed_although_its_replies_never_arrive,
    an_abandoned_connection_is_closed_although_its_writes_are_never_received,
}
