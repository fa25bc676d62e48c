//! A cluster: keys on several nodes, slots that move, and primaries that fail.

mod secured;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use larder_host::cache::{Cache, Duration, Entry, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Cluster, Kind, Larder, LarderProcess, Server, wait_for};

use crate::backends::{bytes, namespaced, put, view, within};

async fn cache(cluster: &Cluster, more: &str) -> Arc<Cache> {
    let config = Config::from_toml(&format!("{}timeout = \"20s\"\n{more}", cluster.cache("c"))).unwrap();
    connect_cache("c", &config.caches["c"]).await.unwrap()
}

/// Keys that are in one slot, which is returned too.
fn in_one_slot(cluster: &Cluster, count: usize) -> (u16, Vec<String>) {
    ((cluster.slot("{slot}")), (0..count).map(|n| format!("{{slot}}{n}")).collect())
}

async fn set_all(cluster: &Cluster, cache: &ScopedCache, keys: &[String]) {
    for key in keys {
        let set = cache.set(key, bytes(key), Duration::Default).await;
        assert_eq!(set, Ok(()), "{key}: {}", cluster.cluster_nodes());
    }
}

async fn assert_present(cache: &ScopedCache, keys: &[String]) {
    for key in keys {
        assert_eq!(cache.get(key).await, Ok(Some(bytes(key))), "{key}");
    }
    let found = cache.get_many(keys).await.unwrap();
    assert_eq!(found, keys.iter().map(|key| Some(bytes(key))).collect::<Vec<_>>());
}

/// A session of a plugin, whose value for a key names the key.
fn session(cluster: &Cluster, more: &str) -> LarderProcess {
    Larder::run("session")
        .config(&format!("{}{more}[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n", cluster.cache("c")))
        .start()
}

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

/// What calls met until all was well.
#[derive(Debug, Default)]
struct Toll {
    calls: usize,
    failed: usize,
    /// From the beginning to the answer of the last call that failed.
    until: std::time::Duration,
    longest: std::time::Duration,
}

/// Sets and gets keys in all slots, and clears none of them, until all of that works. What is read is right or, if the
/// replica had not heard of it, not there. A clear needs all primaries, and so may fail for longer than each key does.
fn work_until_all_is_well(session: &mut LarderProcess) -> Toll {
    let mut toll = Toll::default();
    let began = Instant::now();
    wait_for("all keys to work again", || {
        let before = toll.failed;
        let mut work = |operation: &str, outcomes: &[&str]| {
            let called = Instant::now();
            let answer = ask(session, operation);
            toll.calls += 1;
            toll.longest = toll.longest.max(called.elapsed());
            if ["error Timeout", "error Unavailable"].contains(&answer.as_str()) {
                toll.failed += 1;
                toll.until = began.elapsed();
            } else {
                assert!(outcomes.contains(&answer.as_str()), "{operation}: {answer}");
            }
        };
        for n in 0..24 {
            let (get, hit) = (format!("get key{n}"), format!("hit value{n}"));
            work(&get, &["miss", &hit]);
            work(&format!("set key{n} value{n}"), &["ok"]);
            work(&get, &["miss", &hit]);
        }
        work("clear-pattern none*", &["0"]);
        (toll.failed == before).then_some(())
    });
    toll
}

fn assert_all_is_well(session: &mut LarderProcess) {
    let toll = work_until_all_is_well(session);
    assert_eq!(toll.failed, 0, "{toll:?}");
}

async fn keys_on_all_nodes_are_one_cache(cluster: &Cluster) {
    let cache = cache(cluster, "").await;
    let (plain, shop) = (view(&cache), namespaced(&cache, "shop"));
    let keys: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
    let entries = keys.iter().map(|key| (key.clone(), key.clone().into_bytes())).collect();
    plain.set_many(entries, Duration::Default).await.unwrap();
    put(&shop, &["key1", "other"]).await;
    assert_present(&plain, &keys).await;
    let asked: Vec<String> = ["key7", "none", "key99", "key7"].map(str::to_owned).into();
    let found = plain.get_many(&asked).await.unwrap();
    assert_eq!(found, [Some(bytes("key7")), None, Some(bytes("key99")), Some(bytes("key7"))]);
    assert_eq!(plain.clear_pattern("key?").await, Ok(10));
    assert_eq!(plain.clear_all().await, Ok(90));
    assert_eq!(shop.clear_all().await, Ok(2));
}

async fn one_caller_of_two_processes_computes(cluster: &Cluster) {
    let (one, two) = (cache(cluster, "").await, cache(cluster, "").await);
    for n in 0..8 {
        let key = format!("computed{n}");
        let Ok(Entry::Vacant(vacancy)) = view(&one).get_or_set(&key).await else { panic!("`{key}` has a value") };
        let waiter = tokio::spawn({
            let (two, key) = (view(&two), key.clone());
            async move { two.get_or_set(&key).await }
        });
        assert_eq!(view(&one).fill(vacancy, bytes(&key), Duration::Default).await, Ok(true));
        match within(waiter).await.unwrap().unwrap() {
            Entry::Occupied(value) => assert_eq!(value, bytes(&key)),
            Entry::Vacant(_) => panic!("`{key}` would be computed twice"),
        }
    }
    assert_eq!(view(&two).clear_all().await, Ok(8));
}

async fn a_slot_on_its_way_is_served_from_both_sides(cluster: &Cluster, more: &str) {
    let cache = cache(cluster, more).await;
    let view = view(&cache);
    let (slot, keys) = in_one_slot(cluster, 20);
    let from = cluster.initial_owner(slot);
    let to = (from + 1) % 3;
    set_all(cluster, &view, &keys).await;
    let Ok(Entry::Vacant(held)) = view.get_or_set("{slot}held").await else { panic!("it has a value") };
    let physical = |key: &String| format!("cache:{key}");
    cluster.start_migration(slot, from, to);
    let gone: Vec<String> = keys[..10].iter().map(physical).chain(["cache:{slot}held".to_owned()]).collect();
    cluster.migrate_keys(from, to, &gone);

    assert_present(&view, &keys).await;
    assert_eq!(view.fill(held, bytes("filled"), Duration::Default).await, Ok(true));
    assert_eq!(view.get("{slot}held").await, Ok(Some(bytes("filled"))));
    view.set("{slot}new", bytes("new"), Duration::Default).await.unwrap();
    assert_eq!(view.get("{slot}new").await, Ok(Some(bytes("new"))));
    let Ok(Entry::Vacant(vacancy)) = view.get_or_set("{slot}computed").await else { panic!("it has a value") };
    assert_eq!(view.fill(vacancy, bytes("v"), Duration::Default).await, Ok(true));
    assert_eq!((view.clear(&keys[0]).await, view.clear(&keys[19]).await), (Ok(true), Ok(true)));
    // Eighteen, and the three that came meanwhile.
    assert_eq!(view.clear_pattern("{slot}*").await, Ok(21));

    set_all(cluster, &view, &keys).await;
    let rest = cluster.keys_in_slot(from, slot);
    if !rest.is_empty() {
        cluster.migrate_keys(from, to, &rest);
    }
    cluster.finish_migration(slot, from, to);
    assert_present(&view, &keys).await;
    assert_eq!(view.clear_all().await, Ok(20));
    // And back, for the next fact.
    cluster.start_migration(slot, to, from);
    cluster.finish_migration(slot, to, from);
}

/// Keys move from a node that the clear has not come to, to one that it has been at.
async fn a_clear_misses_nothing_that_moves_meanwhile(cluster: &Cluster) {
    let cache = cache(cluster, "").await;
    let view = view(&cache);
    let (slot, keys) = in_one_slot(cluster, 300);
    let from = cluster.initial_owner(slot);
    for to in [(from + 1) % 3, (from + 2) % 3] {
        set_all(cluster, &view, &keys).await;
        cluster.start_migration(slot, from, to);
        let clearing = tokio::spawn({
            let view = view.clone();
            async move { view.clear_all().await }
        });
        // Some are cleared and some have moved; a key that is gone is not an error to the servers.
        for few in keys.chunks(10) {
            let physical: Vec<String> = few.iter().map(|key| format!("cache:{key}")).collect();
            cluster.migrate_keys(from, to, &physical);
            tokio::task::yield_now().await;
        }
        assert_eq!(within(clearing).await.unwrap(), Ok(300));
        assert_eq!(view.clear_all().await, Ok(0));
        assert_eq!((cluster.keys_in_slot(from, slot).len(), cluster.keys_in_slot(to, slot).len()), (0, 0));
        cluster.finish_migration(slot, from, to);
        cluster.start_migration(slot, to, from);
        cluster.finish_migration(slot, to, from);
    }
}

/// Three hosts store and read keys of a slot that goes from node to node under their hands.
fn plugins_that_work_do_not_notice_that_a_slot_moves(cluster: &Cluster) {
    let slot = cluster.slot("{slot}");
    let first = cluster.initial_owner(slot);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let mut session = session(cluster, "timeout = \"20s\"\non_outage = \"error\"\n");
            let is_over = &is_over;
            scope.spawn(move || {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) || round == 0 {
                    for key in 0..10 {
                        let key = format!("{{slot}}{worker}:{key}");
                        assert_eq!(ask(&mut session, &format!("set {key} {round}")), "ok");
                        assert_eq!(ask(&mut session, &format!("get {key}")), format!("hit {round}"));
                    }
                    assert_eq!(ask(&mut session, &format!("clear {{slot}}{worker}:{}", round % 10)), "true");
                    round += 1;
                }
                session.succeed();
            });
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0)].map(|(from, to)| ((first + from) % 3, (first + to) % 3)) {
            cluster.start_migration(slot, from, to);
            wait_for("all keys of the slot to have moved", || {
                let keys = cluster.keys_in_slot(from, slot);
                if !keys.is_empty() {
                    cluster.migrate_keys(from, to, &keys);
                }
                keys.is_empty().then_some(())
            });
            cluster.finish_migration(slot, from, to);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let mut session = session(cluster, "");
    assert_eq!(ask(&mut session, "clear-pattern {slot}?:?"), "27");
    session.succeed();
}

/// What is one line to the operator where the nodes are not what they should be.
fn a_node_that_is_none_stops_the_start(cluster: &Cluster) {
    let Some(server) = Server::start(cluster.nodes[0].kind()) else { return };
    let kind = server.kind().type_name();
    let alone = format!("[caches.c]\ntype = \"{kind}\"\ncluster = [\"127.0.0.1:{}\"]\n", server.port());
    let run = Larder::run("script").config(&alone).fail(1);
    assert!(run.error_line().ends_with("it is no node of a cluster"), "{}", run.stderr);
    // A node that is dead does no harm where another one is named.
    let (dead, live) = (1, cluster.nodes[2].port());
    let some = format!("[caches.c]\ntype = \"{kind}\"\ncluster = [\"127.0.0.1:{dead}\", \"127.0.0.1:{live}\"]\n");
    let check = Larder::new(["check"]).config(&some).succeed();
    assert!(check.stdout.contains(server.kind().name()) && check.stdout.contains("cluster 127.0.0.1:1,"), "{check:#?}");
    let none = format!("[caches.c]\ntype = \"{kind}\"\ncluster = [\"127.0.0.1:{dead}\"]\n");
    let run = Larder::run("script").config(&none).fail(1);
    assert!(
        run.error_line().contains("cache `c`: cannot reach") && run.stderr.contains("127.0.0.1:1"),
        "{}",
        run.stderr
    );
}

/// Values that are within their limit, and many times what a batch may bring.
#[cfg(target_os = "linux")]
fn a_batch_that_is_too_large_does_not_come_into_the_host(cluster: &Cluster) {
    let mut session = session(cluster, "timeout = \"30s\"\n");
    let owner = &cluster.nodes[cluster.initial_owner(cluster.slot("cache:large"))];
    redis::cmd("SETRANGE").arg(&["cache:large", "1048575", "x"]).exec(&mut owner.client()).unwrap();
    let answer = ask(&mut session, &format!("get-many{}", " large".repeat(1024)));
    assert_eq!(answer, "error ValueTooLarge(67108864)");
    assert_eq!(ask(&mut session, "clear-all"), "1");
    let peak = session.peak_memory();
    session.succeed();
    // Twice what may come, and what the process has by itself.
    assert!(peak < 240 << 20, "{} MiB at its peak", peak >> 20);
}

fn an_agreed_failover_costs_a_few_calls_at_most(cluster: &Cluster) {
    let mut session = session(cluster, "on_outage = \"error\"\n");
    assert_all_is_well(&mut session);
    cluster.fail_over(2);
    work_until_all_is_well(&mut session);
    for n in 0..24 {
        assert_eq!(ask(&mut session, &format!("get key{n}")), format!("hit value{n}"));
    }
    assert_eq!(ask(&mut session, "clear-all"), "24");
    session.succeed();
}

/// As when its machine hangs: the connections stay, and nobody answers.
fn a_primary_that_hangs_costs_calls_until_its_replica_has_taken_over(cluster: &Cluster) {
    let mut session = session(cluster, "on_outage = \"error\"\n");
    assert_all_is_well(&mut session);
    cluster.nodes[1].freeze();
    let toll = work_until_all_is_well(&mut session);
    println!("a primary hangs: {toll:?}");
    assert!(toll.failed > 0);
    cluster.nodes[1].thaw();
    cluster.wait_for_takeover(1);
    assert_eq!(ask(&mut session, "clear-all"), "24");
    session.succeed();
}

/// The last fact, as the cluster is another one after it.
fn a_primary_that_dies_costs_calls_until_its_replica_has_taken_over(mut cluster: Cluster) {
    let mut errors = session(&cluster, "on_outage = \"error\"\n");
    let mut misses = session(&cluster, "");
    assert_all_is_well(&mut errors);
    assert_all_is_well(&mut misses);
    cluster.nodes[0].kill();
    // Its keys fail, while those of the others need not wait for it.
    let toll = work_until_all_is_well(&mut errors);
    println!("a primary is killed: {toll:?}");
    assert!(toll.failed > 0);
    work_until_all_is_well(&mut misses);
    cluster.wait_for_takeover(0);
    assert_all_is_well(&mut errors);
    assert_all_is_well(&mut misses);
    // Back as a replica it does no harm.
    cluster.nodes[0].restart();
    cluster.wait_until_healthy();
    assert_all_is_well(&mut errors);
    assert_all_is_well(&mut misses);
    assert_eq!(ask(&mut errors, "clear-all"), "24");
    errors.succeed();
    misses.succeed();
}

/// All facts on one cluster of a kind, since six servers take their time to find each other.
async fn every_fact(kind: Kind) {
    let Some(cluster) = Cluster::start(kind) else { return };
    keys_on_all_nodes_are_one_cache(&cluster).await;
    one_caller_of_two_processes_computes(&cluster).await;
    a_slot_on_its_way_is_served_from_both_sides(&cluster, "").await;
    a_clear_misses_nothing_that_moves_meanwhile(&cluster).await;
    let others = tokio::task::spawn_blocking(move || {
        plugins_that_work_do_not_notice_that_a_slot_moves(&cluster);
        a_node_that_is_none_stops_the_start(&cluster);
        #[cfg(target_os = "linux")]
        a_batch_that_is_too_large_does_not_come_into_the_host(&cluster);
        an_agreed_failover_costs_a_few_calls_at_most(&cluster);
        a_primary_that_hangs_costs_calls_until_its_replica_has_taken_over(&cluster);
        a_primary_that_dies_costs_calls_until_its_replica_has_taken_over(cluster);
    });
    others.await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_valkey_is_one_cache() {
    every_fact(Kind::Valkey).await;
}

#[tokio::test]
async fn a_cluster_of_redis_is_one_cache() {
    every_fact(Kind::Redis).await;
}

#[tokio::test]
async fn a_cluster_of_a_newer_valkey_is_one_cache() {
    every_fact(Kind::ValkeyWithIfeq).await;
}
