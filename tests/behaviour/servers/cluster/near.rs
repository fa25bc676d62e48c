//! The near tier in front of a cluster: nodes that lose slots without announcing it, and nodes that do not know that they
//! were replaced.
//!
//! The tests of a kind that share a cluster run one after the other, because they count the commands of all nodes and move
//! slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Duration, Entry, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Cluster, Kind, Server, wait_for};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{Keys, Shared};
use crate::backends::{bytes, over_every_kind, put, view, within};

const MAX_STALENESS: StdDuration = StdDuration::from_millis(400);
const NEAR: &str = "near = { max_staleness = \"400ms\" }\n";

/// The nodes between which slots move: the first primary has the slot of a test.
const FROM: usize = 0;
const TO: usize = 1;
/// The replica of the first primary.
const REPLICA: usize = 3;

static CLUSTERS: [Shared<Mutex<Cluster>>; 3] = [const { Shared::new() }; 3];

fn cluster(kind: Kind) -> Option<Arc<Mutex<Cluster>>> {
    CLUSTERS[kind as usize].get(|| Cluster::start(kind).map(Mutex::new))
}

fn keys<'a>(cluster: &'a Cluster, prefix: &'static str) -> Keys<'a> {
    cluster.flush();
    Keys { cluster, prefix, options: NEAR }
}

fn ask<T: ::redis::FromRedisValue>(node: &Server, command: &[&str]) -> ::redis::RedisResult<T> {
    ::redis::cmd(command[0]).arg(&command[1..]).query(&mut node.client())
}

/// Runs a command of another program.
fn run(node: &Server, command: &[&str]) {
    ask::<()>(node, command).unwrap();
}

/// How many reads of values the nodes have executed.
fn reads(cluster: &Cluster) -> u64 {
    let of_node = |node: &Server| {
        let stats: String = ask(node, &["INFO", "commandstats"]).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    cluster.nodes.iter().map(of_node).sum()
}

/// A host with a near tier, whose connections go on while a test waits for nodes.
struct Host {
    cache: ScopedCache,
    runtime: Option<Runtime>,
}

impl Host {
    async fn new(keys: &Keys<'_>) -> Self {
        Self::with(keys, "timeout = \"20s\"\n").await
    }

    async fn with(keys: &Keys<'_>, options: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = Config::from_toml(&keys.toml(options)).unwrap();
        let connected = runtime.spawn(async move { connect_cache("c", &config.caches["c"]).await.unwrap() });
        Self { cache: view(&connected.await.unwrap()), runtime: Some(runtime) }
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.as_ref().unwrap().spawn(task)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

async fn get(cache: &ScopedCache, key: &str) -> Option<String> {
    let value = cache.get(key).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Reads keys until all of them are near: a hit sends no read.
async fn bring_near(cluster: &Cluster, cache: &ScopedCache, keys: &[impl AsRef<str>]) {
    let are_near = async {
        loop {
            for key in keys {
                assert!(get(cache, key.as_ref()).await.is_some());
            }
            let before = reads(cluster);
            for key in keys {
                assert!(get(cache, key.as_ref()).await.is_some());
            }
            if reads(cluster) == before {
                return;
            }
        }
    };
    within(are_near).await;
}

/// Asserts that no call which begins `max_staleness` after this time, or later, returns another value.
async fn assert_seen(cache: &ScopedCache, key: &str, expected: Option<&str>, since: Instant) {
    loop {
        let begun = Instant::now();
        let found = get(cache, key).await;
        if found.as_deref() == expected {
            return;
        }
        assert!(begun < since + MAX_STALENESS, "{found:?} was served {:?} after the change", begun - since);
    }
}

/// Waits until a node refuses a key, and returns when that was seen. Until then it would answer a read without a near
/// tier too.
fn refused_by(node: &Server, key: &str) -> Instant {
    wait_for("the node to refuse the key", || ask::<Option<String>>(node, &["GET", key]).is_err().then(Instant::now))
}

/// Gives a slot, whose keys are lost, to another node.
fn hand_over(cluster: &Cluster, slot: u16, from: usize, to: usize) {
    for key in cluster.keys_in_slot(from, slot) {
        run(&cluster.nodes[from], &["DEL", &key]);
    }
    cluster.start_migration(slot, from, to);
    cluster.finish_migration(slot, from, to);
}

async fn a_near_hit_sends_no_command(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let host = Host::new(&keys(&cluster, "hit")).await;
    let cache = &host.cache;
    let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    keys(&cluster, "hit").set_all(cache, &names).await;
    bring_near(&cluster, cache, &names).await;
    let before = reads(&cluster);
    for name in names.iter().cycle().take(100) {
        assert_eq!(get(cache, name).await.as_ref(), Some(name));
    }
    // A horizon may be late on a busy machine.
    assert!(reads(&cluster) <= before + 12, "{} reads", reads(&cluster) - before);
}

async fn a_change_by_anyone_on_any_node_removes_what_is_near(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = keys(&cluster, "change");
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    for name in (0..6).map(|n| format!("{{{n}}}k")) {
        let (key, other) = (keys.physical(&name), keys.physical(&format!("{name}2")));
        let owner = &cluster.nodes[cluster.initial_owner(cluster.slot(&key))];
        let changes: [(&[&str], Option<&str>); 6] = [
            (&["SET", &key, "new"], Some("new")),
            (&["UNLINK", &key], None),
            (&["PEXPIRE", &key, "1"], None),
            (&["RENAME", &key, &other], None),
            (&["EVAL", "return redis.call('SET', KEYS[1], 'new')", "1", &key], Some("new")),
            (&["FLUSHALL"], None),
        ];
        for (change, expected) in changes {
            run(owner, &["SET", &key, "old"]);
            within(async { while get(cache, &name).await.as_deref() != Some("old") {} }).await;
            bring_near(&cluster, cache, &[&name]).await;
            run(owner, change);
            assert_seen(cache, &name, expected, Instant::now()).await;
        }
    }
}

async fn what_is_near_goes_when_all_keys_of_its_node_are_removed(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = keys(&cluster, "flush");
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    let names: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    keys.set_all(cache, &names).await;
    bring_near(&cluster, cache, &names).await;
    run(&cluster.nodes[FROM], &["FLUSHALL"]);
    let flushed = Instant::now();
    for name in &names {
        let is_removed = cluster.initial_owner(cluster.slot(&keys.physical(name))) == FROM;
        assert_seen(cache, name, (!is_removed).then_some(name), flushed).await;
    }
}

async fn a_batch_reads_each_key_once_and_only_what_is_not_near(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = keys(&cluster, "batch");
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    keys.set_all(cache, &names).await;
    run(&cluster.nodes[cluster.initial_owner(cluster.slot(&keys.physical("list")))], &["LPUSH", "batch:list", "e"]);
    let mut asked: Vec<&str> = names.iter().map(String::as_str).collect();
    asked.extend(["none", "list", "k3"]);
    let expected: Vec<_> = asked.iter().map(|name| (!["none", "list"].contains(name)).then(|| bytes(name))).collect();
    let before = reads(&cluster);
    assert_eq!(cache.get_many(&asked).await.unwrap(), expected);
    assert!(reads(&cluster) <= before + 15);
    bring_near(&cluster, cache, &names).await;
    let before = reads(&cluster);
    assert_eq!(cache.get_many(&asked).await.unwrap(), expected);
    assert!(reads(&cluster) <= before + 2, "{} reads", reads(&cluster) - before);
}

/// Over the bulk connections.
async fn a_large_batch_and_a_large_value_are_kept_too(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let options = "near = { max_staleness = \"400ms\", max_value_bytes = \"256KiB\" }\n";
    let keys = Keys { options, ..keys(&cluster, "large") };
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    let owner = |name: &str| &cluster.nodes[cluster.initial_owner(cluster.slot(&keys.physical(name)))];
    let names: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    keys.set_all(cache, &names).await;
    let mut expected: Vec<_> = names.iter().map(|name| Some(bytes(name))).collect();
    let is_near = async {
        loop {
            let before = reads(&cluster);
            assert_eq!(cache.get_many(&names).await.unwrap(), expected);
            if reads(&cluster) == before {
                return;
            }
        }
    };
    within(is_near).await;
    run(owner("k7"), &["SET", "large:k7", "new"]);
    assert_seen(cache, "k7", Some("new"), Instant::now()).await;
    expected[7] = Some(bytes("new"));
    assert_eq!(cache.get_many(&names).await.unwrap(), expected);

    run(owner("long"), &["SET", "large:long", &"x".repeat(100 << 10)]);
    bring_near(&cluster, cache, &["long"]).await;
    run(owner("long"), &["UNLINK", "large:long"]);
    assert_seen(cache, "long", None, Instant::now()).await;
}

async fn concurrent_misses_are_one_read(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let host = Host::new(&keys(&cluster, "misses")).await;
    let cache = &host.cache;
    put(cache, &["k"]).await;
    let before = reads(&cluster);
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get("k").await.unwrap() })
        })
        .collect();
    for reader in readers {
        assert_eq!(within(reader).await.unwrap(), Some(bytes("k")));
    }
    // The first of them may be poisoned by the announcement of the write.
    assert!(reads(&cluster) <= before + 2, "{} reads", reads(&cluster) - before);
}

async fn get_or_set_is_answered_near_and_never_with_a_lease(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let host = Host::new(&keys(&cluster, "compute")).await;
    let cache = &host.cache;
    let names: Vec<String> = (0..6).map(|n| format!("k{n}")).collect();
    for name in &names {
        let Entry::Vacant(vacancy) = cache.get_or_set(name).await.unwrap() else { panic!("`{name}` has no value") };
        assert_eq!((get(cache, name).await, cache.get_many(&[name]).await.unwrap()), (None, vec![None]));
        assert!(cache.fill(vacancy, bytes(name), Duration::Default).await.unwrap());
    }
    bring_near(&cluster, cache, &names).await;
    let before = reads(&cluster);
    for name in &names {
        assert!(matches!(cache.get_or_set(name).await.unwrap(), Entry::Occupied(value) if value == bytes(name)));
    }
    assert!(reads(&cluster) <= before + 1);
}

/// How a slot leaves the first node.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// With its keys, as operators do.
    WithKeys,
    /// Another node claims it, and the first one deletes the keys. Redis before 7.2 does not announce that.
    Claimed,
    /// The first node gives it away and keeps the keys for itself.
    GivenAway,
}

/// Moves a slot to another node, and writes a key of it there. Returns when the first node was seen without the slot.
fn move_away(cluster: &Cluster, slot: u16, key: &str, how: Move) -> Instant {
    let [from, to] = [&cluster.nodes[FROM], &cluster.nodes[TO]];
    let (number, id): (String, String) = (slot.to_string(), ask(to, &["CLUSTER", "MYID"]).unwrap());
    let claim = ["CLUSTER", "SETSLOT", &number, "NODE", &id];
    match how {
        Move::WithKeys => {
            cluster.start_migration(slot, FROM, TO);
            cluster.migrate_keys(FROM, TO, &cluster.keys_in_slot(FROM, slot));
            cluster.finish_migration(slot, FROM, TO);
        }
        Move::Claimed => {
            cluster.start_migration(slot, FROM, TO);
            run(to, &claim);
        }
        Move::GivenAway => {
            run(from, &["CLUSTER", "DELSLOTS", &number]);
            run(from, &claim);
            cluster.start_claim(slot, TO);
        }
    }
    let refused = refused_by(from, key);
    run(to, &["SET", key, "new"]);
    refused
}

/// The process reads nothing but the key itself, which is near.
async fn a_slot_that_moves_leaves_nothing_stale(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    // More than once: a node whose epoch is the highest takes further slots without a new one.
    for how in [Move::WithKeys, Move::Claimed, Move::GivenAway, Move::Claimed, Move::WithKeys] {
        let keys = keys(&cluster, "moved");
        let host = Host::new(&keys).await;
        let cache = &host.cache;
        let (slot, names) = keys.in_one_slot(1);
        let _guard = cluster.guard_slot(slot);
        let key = keys.physical(&names[0]);
        run(&cluster.nodes[FROM], &["SET", &key, "old"]);
        bring_near(&cluster, cache, &names).await;
        let moved = move_away(&cluster, slot, &key, how);
        println!("{how:?}");
        assert_seen(cache, &names[0], Some("new"), moved).await;
        bring_near(&cluster, cache, &names).await;
        // The new node announces.
        run(&cluster.nodes[TO], &["SET", &key, "newer"]);
        assert_seen(cache, &names[0], Some("newer"), Instant::now()).await;
        cluster.finish_migration(slot, FROM, TO);
        hand_over(&cluster, slot, TO, FROM);
    }
}

/// Also if the slot is the one by which the node is asked whether it serves keys.
async fn the_keys_of_a_node_stay_near_while_one_of_its_slots_moves(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = keys(&cluster, "moving");
    let host = Host::new(&keys).await;
    let (slot, names) = keys.in_one_slot(1);
    let mut probes = (0..).map(|n| cluster.slot(&keys.physical(&format!("\u{1f}probe{{{n}}}"))));
    let asked = probes.find(|probe| cluster.initial_owner(*probe) == FROM && *probe != slot).unwrap();
    let _guard = cluster.guard_slot(asked);
    put(&host.cache, &[&names[0]]).await;
    cluster.start_migration(asked, FROM, TO);
    let started = Instant::now();
    // Until the horizon has moved on.
    while started.elapsed() < 2 * MAX_STALENESS {
        bring_near(&cluster, &host.cache, &names).await;
    }
    for node in [FROM, TO] {
        run(&cluster.nodes[node], &["CLUSTER", "SETSLOT", &asked.to_string(), "STABLE"]);
    }
}

async fn a_failover_leaves_nothing_stale(kind: Kind) {
    let Some(cluster) = Cluster::start(kind) else { return };
    let keys = keys(&cluster, "failover");
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    let (_, names) = keys.in_one_slot(1);
    let key = keys.physical(&names[0]);
    run(&cluster.nodes[FROM], &["SET", &key, "old"]);
    bring_near(&cluster, cache, &names).await;
    let [old, new] = [&cluster.nodes[FROM], &cluster.nodes[REPLICA]];
    run(new, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    let refused = refused_by(old, &key);
    wait_for("the replica to take writes", || ask::<()>(new, &["SET", &key, "new"]).ok());
    assert_seen(cache, &names[0], Some("new"), refused).await;
}

/// It answers the pings that came meanwhile when it goes on, before or after it learns that it was replaced.
async fn a_primary_that_was_replaced_while_it_was_paused_leaves_nothing_stale(kind: Kind) {
    let Some(cluster) = Cluster::start(kind) else { return };
    let keys = keys(&cluster, "paused");
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    let (_, names) = keys.in_one_slot(1);
    let key = keys.physical(&names[0]);
    run(&cluster.nodes[FROM], &["SET", &key, "old"]);
    bring_near(&cluster, cache, &names).await;
    let [old, new] = [&cluster.nodes[FROM], &cluster.nodes[REPLICA]];
    let frozen = old.freeze_until_drop();
    let paused = Instant::now();
    run(new, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    wait_for("the replica to take writes", || ask::<()>(new, &["SET", &key, "new"]).ok());
    // No answer moves the horizon.
    loop {
        let begun = Instant::now();
        match tokio::time::timeout(StdDuration::from_millis(1), cache.get(&names[0])).await {
            Ok(Ok(Some(found))) => assert_eq!(found, bytes("old")),
            Ok(other) => panic!("{other:?}"),
            Err(_a_read_of_the_paused_node) => break,
        }
        assert!(begun < paused + MAX_STALENESS, "served {:?} after the pause", begun - paused);
    }
    drop(frozen);
    let refused = refused_by(old, &key);
    assert_seen(cache, &names[0], Some("new"), refused).await;
}

/// The primary forgets all other nodes, which is as if it was cut off from them. It answers keys and pings as before, until
/// the cluster's own rules make it refuse keys.
async fn a_primary_that_is_cut_off_from_the_others_is_not_believed_after_it_refuses_keys(kind: Kind) {
    let options = ["--cluster-require-full-coverage", "no"];
    let Some(cluster) = Cluster::start_with(kind, &options) else { return };
    let keys = keys(&cluster, "isolated");
    let host = Host::new(&keys).await;
    let cache = &host.cache;
    let (_, names) = keys.in_one_slot(1);
    let key = keys.physical(&names[0]);
    let [old, new] = [&cluster.nodes[FROM], &cluster.nodes[REPLICA]];
    run(old, &["SET", &key, "old"]);
    bring_near(&cluster, cache, &names).await;
    for node in &cluster.nodes[1..] {
        run(old, &["CLUSTER", "FORGET", &ask::<String>(node, &["CLUSTER", "MYID"]).unwrap()]);
    }
    run(new, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    wait_for("the replica to take writes", || ask::<()>(new, &["SET", &key, "new"]).ok());
    let is_unaware = ask::<String>(old, &["GET", &key]);
    if is_unaware.as_deref() != Ok("old") {
        println!("a message that was under way has told the primary of the others, so it is not cut off");
        return;
    }
    run(old, &["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    // Makes it look at its state.
    run(old, &["CLUSTER", "SETSLOT", "0", "STABLE"]);
    let refused = refused_by(old, &key);
    while refused.elapsed() < 2 * MAX_STALENESS {
        let begun = Instant::now();
        match cache.get(&names[0]).await {
            Ok(Some(found)) if found == bytes("old") => {
                assert!(begun < refused + MAX_STALENESS, "served {:?} after it was refused", begun - refused);
            }
            // An outage, until the process asks another node.
            Ok(found) => assert!(found.is_none() || found == Some(bytes("new"))),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn a_node_that_refuses_to_track_leaves_the_cache_working(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = keys(&cluster, "rights");
    for (index, node) in cluster.nodes.iter().enumerate() {
        let missing = if index == FROM { "-client|tracking" } else { "+@all" };
        run(node, &["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", missing]);
    }
    let host = Host::with(&keys, "timeout = \"20s\"\nusername = \"u\"\npassword = \"p\"\n").await;
    let cache = &host.cache;
    let names: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    keys.set_all(cache, &names).await;
    let (far, near): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| cluster.initial_owner(cluster.slot(&keys.physical(name))) == FROM);
    bring_near(&cluster, cache, &near).await;
    for name in far {
        let before = reads(&cluster);
        assert_eq!(get(cache, name).await.as_ref(), Some(name));
        assert_eq!(reads(&cluster), before + 1);
    }
    cluster.nodes.iter().for_each(|node| run(node, &["ACL", "DELUSER", "u"]));
}

/// Versions of a key are written by the process itself and by another one, while its slot moves from node to node.
async fn readers_never_go_back_while_a_slot_moves(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = keys(&cluster, "readers");
    let (own, other) = (Host::new(&keys).await, Host::new(&Keys { options: "", ..keys }).await);
    let (slot, names) = keys.in_one_slot(1);
    let _guard = cluster.guard_slot(slot);
    let key = &names[0];
    // Writers take turns, so that the order of the versions is that of the cluster.
    let (next, newest) = (Arc::new(Mutex::new(0_u64)), Arc::new(AtomicU64::new(0)));
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (cache, key) = (own.cache.clone(), key.clone());
            let (newest, is_over) = (Arc::clone(&newest), Arc::clone(&is_over));
            own.spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let floor = newest.load(Ordering::SeqCst);
                    let found = if reader == 0 {
                        cache.get_many(&[&key]).await.unwrap().remove(0)
                    } else {
                        cache.get(&key).await.unwrap()
                    };
                    if let Some(found) = found {
                        let version: u64 = std::str::from_utf8(&found).unwrap().parse().unwrap();
                        assert!(version >= floor, "version {version} was read after {floor}");
                        newest.fetch_max(version, Ordering::SeqCst);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let writers: Vec<_> = [&own, &other]
        .into_iter()
        .map(|host| {
            let (cache, key) = (host.cache.clone(), key.clone());
            let (next, newest) = (Arc::clone(&next), Arc::clone(&newest));
            let is_over = Arc::clone(&is_over);
            host.spawn(async move {
                let is_own = cache.near_path().is_some();
                while !is_over.load(Ordering::SeqCst) {
                    let mut next = next.lock().await;
                    *next += 1;
                    cache.set(&key, bytes(&next.to_string()), Duration::Default).await.unwrap();
                    if is_own {
                        newest.fetch_max(*next, Ordering::SeqCst);
                    }
                    drop(next);
                    tokio::time::sleep(StdDuration::from_millis(2)).await;
                }
            })
        })
        .collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
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
    is_over.store(true, Ordering::SeqCst);
    for task in readers.into_iter().chain(writers) {
        within(task).await.unwrap();
    }
}

over_every_kind! {
    a_near_hit_sends_no_command,
    a_change_by_anyone_on_any_node_removes_what_is_near,
    what_is_near_goes_when_all_keys_of_its_node_are_removed,
    a_batch_reads_each_key_once_and_only_what_is_not_near,
    a_large_batch_and_a_large_value_are_kept_too,
    concurrent_misses_are_one_read,
    get_or_set_is_answered_near_and_never_with_a_lease,
    a_slot_that_moves_leaves_nothing_stale,
    the_keys_of_a_node_stay_near_while_one_of_its_slots_moves,
    a_failover_leaves_nothing_stale,
    a_primary_that_was_replaced_while_it_was_paused_leaves_nothing_stale,
    a_primary_that_is_cut_off_from_the_others_is_not_believed_after_it_refuses_keys,
    a_node_that_refuses_to_track_leaves_the_cache_working,
    readers_never_go_back_while_a_slot_moves,
}
