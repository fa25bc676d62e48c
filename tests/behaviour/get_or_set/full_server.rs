//! A full server evicts leases, or refuses to store any. It costs computations, and no caller gets a wrong value.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration as StdDuration, Instant};

use ::redis::{Connection, cmd};
use larder_host::cache::{CacheError, Duration, Entry, Freshness};
use larder_tests::{Larder, TEST_TIMEOUT, wait_for};
use tokio::task::{JoinHandle, JoinSet};

use super::{LONG_WAIT, answer, fill, many_waiting, occupied, take_over, vacancy};
use crate::backends::{Backend, bytes, over_every_server, put, view, within};

over_every_server! {
    a_full_server_still_serves_hits,
    on_a_full_server_one_caller_computes_for_all_waiters,
    a_full_server_takes_a_lease_back,
    a_full_server_can_be_connected_to,
    on_a_full_server_stale_values_are_served_and_the_refreshes_count_as_failed,
    a_plugin_whose_stale_values_are_not_refreshed_is_warned_of_once,
    an_evicted_lease_costs_one_more_computation_and_the_first_value_is_not_stored,
    an_evicted_lease_without_other_processes_costs_one_more_computation,
    lru_evicts_values_before_leases_and_the_other_policies_evict_leases_first,
    every_caller_gets_a_value_of_its_key_while_the_server_evicts,
}

fn configure(client: &mut Connection, name: &str, value: &str) {
    cmd("CONFIG").arg("SET").arg(name).arg(value).exec(client).unwrap();
}

fn exists(client: &mut Connection, key: &str) -> bool {
    cmd("EXISTS").arg(key).query(client).unwrap()
}

/// From now on the server refuses commands that need memory.
fn fill_up(backend: &mut Backend) {
    configure(&mut backend.behind().client(), "maxmemory", "1");
}

async fn a_full_server_still_serves_hits(mut backend: Backend) {
    let cache = view(&backend.cache("").await);
    put(&cache, &["k"]).await;
    fill_up(&mut backend);
    assert!(cache.set("other", bytes("v"), Duration::Default).await.unwrap_err().is_outage());
    assert_eq!(occupied(cache.get_or_set("k").await), bytes("k"));
}

async fn on_a_full_server_one_caller_computes_for_all_waiters(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    fill_up(&mut backend);
    let held = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    assert!(fill(&view(&cache), held, "computed").await.unwrap_err().is_outage());
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("computed"));
    }
}

async fn a_full_server_takes_a_lease_back(mut backend: Backend) {
    let cache = backend.cache("lease = \"10m\"").await;
    let held = vacancy(&view(&cache), "k").await;
    fill_up(&mut backend);
    drop(held);
    within(cache.drain()).await;
    // A server without scripts would keep it; all servers of the tests have scripts.
    assert!(!exists(&mut backend.behind().client(), "cache:k"));
}

async fn a_full_server_can_be_connected_to(mut backend: Backend) {
    let cache = view(&backend.cache("").await);
    put(&cache, &["k"]).await;
    let supports = backend.cache("").await.check().await.unwrap().supports;
    fill_up(&mut backend);
    let late = backend.cache("").await;
    assert_eq!(late.check().await.unwrap().supports, supports);
    assert_eq!(occupied(view(&late).get_or_set("k").await), bytes("k"));
}

/// Longer than any value of these tests lives.
const ANY_LIFE: Duration = Duration::Milliseconds(3_600_000);

async fn on_a_full_server_stale_values_are_served_and_the_refreshes_count_as_failed(mut backend: Backend) {
    let cache = backend.cache("").await;
    let plugin = view(&cache);
    plugin.set("k", bytes("old"), Duration::Default).await.unwrap();
    fill_up(&mut backend);
    let stale = async |count: u64| {
        let found = within(plugin.get_or_refresh("k", ANY_LIFE)).await.unwrap();
        assert!(matches!(found, Freshness::Stale { value, refresh: None } if value == "old"));
        assert_eq!(cache.refresh_stats().stale, count);
    };
    stale(1).await;
    assert_eq!(cache.refresh_stats().failed, 1);
    // During the pause no other caller tries.
    stale(2).await;
    configure(&mut backend.behind().client(), "maxmemory", "0");
    let refreshed = async {
        loop {
            if let Freshness::Stale { refresh: Some(refresh), .. } = plugin.get_or_refresh("k", ANY_LIFE).await.unwrap()
            {
                return fill(&plugin, refresh, "new").await;
            }
            tokio::time::sleep(StdDuration::from_millis(10)).await;
        }
    };
    assert_eq!(within(refreshed).await, Ok(true));
    assert_eq!(cache.refresh_stats().stored, 1);
}

async fn a_plugin_whose_stale_values_are_not_refreshed_is_warned_of_once(mut backend: Backend) {
    let config = format!("{}timeout = \"20s\"\n", backend.behind().cache("c"));
    let mut session = Larder::run("session").config(&config).start();
    let mut say = |line: &str, answer: &str| {
        session.write_line(line);
        assert_eq!(session.read_line(), answer, "{line}");
    };
    say("set k v", "ok");
    say("set l w", "ok");
    fill_up(&mut backend);
    // The refresh of each key is tried once.
    say("refresh k", "hit v");
    say("refresh l", "hit w");
    let stderr = session.succeed().stderr;
    assert_eq!(stderr.matches("stale values are not refreshed: ").count(), 1, "{stderr}");
}

/// Makes the server evict all its keys, and then gives it room again. The caches of the test share its thread, so none of
/// them finds the server full.
fn evict_everything(backend: &mut Backend) {
    let mut client = backend.behind().client();
    configure(&mut client, "maxmemory-policy", "allkeys-lru");
    configure(&mut client, "maxmemory", "1");
    wait_for("the lease to be evicted", || (!exists(&mut client, "cache:k")).then_some(()));
    configure(&mut client, "maxmemory", "0");
}

async fn an_evicted_lease_costs_one_more_computation_and_the_first_value_is_not_stored(mut backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let held = vacancy(&view(&cache), "k").await;
    let (here, there) = (many_waiting(&cache, "k", 4).await, many_waiting(&remote, "k", 4).await);
    evict_everything(&mut backend);
    let (heir, there) = take_over(there).await;
    assert_eq!(fill(&view(&cache), held, "first").await, Ok(false));
    assert_eq!(fill(&view(&remote), heir, "second").await, Ok(true));
    for caller in here.into_iter().chain(there) {
        assert_eq!(occupied(answer(caller).await), bytes("second"));
    }
    let (here, there) = (cache.stats(), remote.stats());
    assert_eq!((here.computed, here.superseded, there.computed, there.superseded), (1, 1, 1, 0));
}

async fn an_evicted_lease_without_other_processes_costs_one_more_computation(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let held = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 8).await;
    evict_everything(&mut backend);
    assert_eq!(fill(&view(&cache), held, "first").await, Ok(false));
    let (heir, callers) = take_over(callers).await;
    assert_eq!(fill(&view(&cache), heir, "second").await, Ok(true));
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("second"));
    }
    assert_eq!((cache.stats().computed, cache.stats().superseded), (2, 1));
}

/// Whether the server at its limit evicts a new lease before older values, most of which are read often.
fn evicts_the_lease(client: &mut Connection, policy: &str) -> bool {
    const VALUES: usize = 40;
    let value = vec![b'v'; 16 << 10];
    let store = |client: &mut Connection, key: &str| {
        cmd("SET").arg(key).arg(&value).arg("EX").arg(300).exec(client).unwrap();
    };
    let used = |client: &mut Connection| -> u64 {
        let info: String = cmd("INFO").arg("memory").query(client).unwrap();
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
    };
    cmd("FLUSHALL").exec(client).unwrap();
    configure(client, "maxmemory-policy", policy);
    // More than there are keys, so that the server considers each of them.
    configure(client, "maxmemory-samples", "64");
    (0..VALUES).for_each(|n| store(client, &format!("value:{n}")));
    for n in 0..VALUES * 2 {
        cmd("GET").arg(format!("value:{}", n % VALUES)).exec(client).unwrap();
    }
    // The server counts the time since the last use in seconds, and not at all for some policies.
    if policy.ends_with("lru") {
        wait_for("the values to be older than the lease", || {
            let idle: u64 = cmd("OBJECT").arg("IDLETIME").arg("value:0").query(client).unwrap();
            (idle >= 2).then_some(())
        });
    }
    cmd("SET").arg("cache:k").arg(b"\0larder-lease:of a test").arg("PX").arg(4000).exec(client).unwrap();
    let room = used(client);
    configure(client, "maxmemory", &room.to_string());
    (0..VALUES / 2).for_each(|n| store(client, &format!("more:{n}")));
    let is_evicted = !exists(client, "cache:k");
    configure(client, "maxmemory", "0");
    let kept = (0..VALUES).filter(|n| exists(client, &format!("value:{n}"))).count();
    assert!((1..VALUES).contains(&kept), "{policy}: {kept} values are left");
    is_evicted
}

async fn lru_evicts_values_before_leases_and_the_other_policies_evict_leases_first(mut backend: Backend) {
    let mut client = backend.behind().client();
    for policy in ["allkeys-lru", "volatile-lru"] {
        assert!(!evicts_the_lease(&mut client, policy), "{policy}");
    }
    for policy in ["allkeys-lfu", "volatile-lfu", "volatile-ttl"] {
        assert!(evicts_the_lease(&mut client, policy), "{policy}");
    }
}

/// Callers of four caches ask for a key while another program stores more than the server has room for.
async fn every_caller_gets_a_value_of_its_key_while_the_server_evicts(mut backend: Backend) {
    const CALLERS: usize = 8;
    for policy in ["allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-ttl"] {
        let mut client = backend.behind().client();
        cmd("FLUSHALL").exec(&mut client).unwrap();
        configure(&mut client, "maxmemory-policy", policy);
        configure(&mut client, "maxmemory", "8mb");
        let is_over = Arc::new(AtomicBool::default());
        let flood = flood(client, Arc::clone(&is_over));
        let mut caches = Vec::new();
        for _ in 0..4 {
            caches.push(backend.cache(LONG_WAIT).await);
        }
        for key in ["a", "b"] {
            let mut callers = JoinSet::new();
            for caller in 0..CALLERS {
                let cache = view(&caches[caller % caches.len()]);
                // A server that finds nothing to evict at the moment refuses a write: the caller asks again, or has its
                // own value.
                let asking = async move {
                    loop {
                        match cache.get_or_set(key).await {
                            Ok(Entry::Occupied(value)) => break value,
                            Ok(Entry::Vacant(vacancy)) => {
                                tokio::time::sleep(StdDuration::from_millis(50)).await;
                                let value = format!("{policy} {key} {caller}");
                                let _refused_by_a_full_server = fill(&cache, vacancy, &value).await;
                                break bytes(&value);
                            }
                            Err(CacheError::Unavailable(_)) => tokio::time::sleep(StdDuration::from_millis(20)).await,
                            Err(error) => panic!("{error}"),
                        }
                    }
                };
                callers.spawn(within(asking));
            }
            let expected = format!("{policy} {key} ");
            for value in within(callers.join_all()).await {
                assert!(value.starts_with(expected.as_bytes()), "{expected}: {value:?}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
        within(flood).await.unwrap();
        let computed: u64 = caches.iter().map(|cache| cache.stats().computed).sum();
        assert!((2..=2 * CALLERS as u64).contains(&computed), "{policy}: {computed}");
    }
}

/// Stores values of 16 KiB until it is over and the server has evicted some of them.
fn flood(mut client: Connection, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    let began = Instant::now();
    tokio::task::spawn_blocking(move || {
        let value = vec![b'v'; 16 << 10];
        let mut n = 0_u64;
        while (!is_over.load(Ordering::Relaxed) || n < 1000) && began.elapsed() < TEST_TIMEOUT {
            match cmd("SET").arg(format!("noise:{n}")).arg(&value).arg("EX").arg(300).exec(&mut client) {
                Ok(()) => n += 1,
                Err(error) => assert_eq!(error.code(), Some("OOM"), "{error}"),
            }
        }
        assert!(n >= 1000, "{n} values of 16 KiB fit into 8 MiB");
    })
}
