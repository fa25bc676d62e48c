//! The near tier in front of a cluster: what is kept and what removes it, failovers, and nodes that do not know that they
//! were replaced.
//!
//! The tests of a kind that share a cluster run one after the other, also with those of `near_slots`, because they count the
//! commands of all nodes and move slots.

use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Duration, Entry, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Cluster, Kind, Server, wait_for};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{Keys, Shared};
use crate::backends::{bytes, over_every_kind_and_valkey_9, put, view, within};

pub(super) const MAX_STALENESS: StdDuration = StdDuration::from_millis(400);
const NEAR: &str = "near = { max_staleness = \"400ms\" }\n";

/// The nodes between which slots move: the first primary has the slot of a test.
pub(super) const FROM: usize = 0;
pub(super) const TO: usize = 1;
/// The replica of the first primary.
pub(super) const REPLICA: usize = 3;

/// How often a primary is cut off until it stays so: on a busy machine a message of the others may be under way for long.
const CUTS: usize = 5;

static CLUSTERS: [Shared<Mutex<Cluster>>; 4] = [const { Shared::new() }; 4];

pub(super) fn cluster(kind: Kind) -> Option<Arc<Mutex<Cluster>>> {
    CLUSTERS[kind as usize].get(|| Cluster::start(kind).map(Mutex::new))
}

pub(super) fn keys<'a>(cluster: &'a Cluster, prefix: &'static str) -> Keys<'a> {
    cluster.flush();
    Keys { cluster, prefix, options: NEAR }
}

pub(super) fn ask<T: ::redis::FromRedisValue>(node: &Server, command: &[&str]) -> ::redis::RedisResult<T> {
    ::redis::cmd(command[0]).arg(&command[1..]).query(&mut node.client())
}

/// Runs a command of another program.
pub(super) fn run(node: &Server, command: &[&str]) {
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
pub(super) struct Host {
    pub(super) cache: ScopedCache,
    runtime: Option<Runtime>,
}

impl Host {
    pub(super) async fn new(keys: &Keys<'_>) -> Self {
        Self::with(keys, "timeout = \"20s\"\n").await
    }

    pub(super) async fn with(keys: &Keys<'_>, options: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = Config::from_toml(&keys.toml(options)).unwrap();
        let connected = runtime.spawn(async move { connect_cache("c", &config.caches["c"]).await.unwrap() });
        Self { cache: view(&connected.await.unwrap()), runtime: Some(runtime) }
    }

    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
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
pub(super) async fn bring_near(cluster: &Cluster, cache: &ScopedCache, keys: &[impl AsRef<str>]) {
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
pub(super) async fn assert_seen(cache: &ScopedCache, key: &str, expected: Option<&str>, since: Instant) {
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
pub(super) fn refused_by(node: &Server, key: &str) -> Instant {
    wait_for("the node to refuse the key", || ask::<Option<String>>(node, &["GET", key]).is_err().then(Instant::now))
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
            // Another node has named the replica.
            Ok(Ok(Some(found))) if found == bytes("new") => break,
            Ok(Ok(Some(found))) => assert_eq!(found, bytes("old")),
            Ok(other) => panic!("{other:?}"),
            Err(_a_read_of_the_paused_node) => break,
        }
        assert!(begun < paused + MAX_STALENESS, "served {:?} after the pause", begun - paused);
    }
    drop(frozen);
    let refused = refused_by(old, &key);
    let is_seen = async {
        loop {
            let begun = Instant::now();
            match get(cache, &names[0]).await.as_deref() {
                Some("new") => return,
                Some(_) => assert!(begun < refused + MAX_STALENESS, "served {:?} later", begun - refused),
                // An outage: the old primary loads the keys of its successor.
                None => {}
            }
        }
    };
    within(is_seen).await;
}

/// A primary that is cut off from the others and was replaced, and a host that has a value of it near. `None` if a message
/// that was under way has told the primary of the others, or they have greeted it again.
///
/// The primary forgets all other nodes, which is as if it was cut off from them. It answers keys and pings as before, until
/// the cluster's own rules make it refuse keys.
async fn cut_off(cluster: &Cluster, keys: &Keys<'_>) -> Option<(Host, String)> {
    let host = Host::new(keys).await;
    let (_, mut names) = keys.in_one_slot(1);
    let key = keys.physical(&names[0]);
    let [old, new] = [&cluster.nodes[FROM], &cluster.nodes[REPLICA]];
    run(old, &["SET", &key, "old"]);
    bring_near(cluster, &host.cache, &names).await;
    // Half of this after the link is gone, the others would greet it again.
    for node in &cluster.nodes {
        run(node, &["CONFIG", "SET", "cluster-node-timeout", "60000"]);
    }
    let others: Vec<String> = cluster.nodes[1..].iter().map(|node| ask(node, &["CLUSTER", "MYID"]).unwrap()).collect();
    for id in &others {
        run(old, &["CLUSTER", "FORGET", id]);
    }
    run(new, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    wait_for("the replica to take writes", || ask::<()>(new, &["SET", &key, "new"]).ok());
    (ask::<String>(old, &["GET", &key]).as_deref() == Ok("old")).then(|| (host, names.remove(0)))
}

async fn a_primary_that_is_cut_off_from_the_others_is_not_believed_after_it_refuses_keys(kind: Kind) {
    let options = ["--cluster-require-full-coverage", "no"];
    for _ in 0..CUTS {
        let Some(cluster) = Cluster::start_with(kind, &options) else { return };
        let keys = keys(&cluster, "isolated");
        let Some((host, name)) = cut_off(&cluster, &keys).await else { continue };
        let (cache, key, old) = (&host.cache, keys.physical(&name), &cluster.nodes[FROM]);
        run(old, &["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
        // Makes it look at its state.
        run(old, &["CLUSTER", "SETSLOT", "0", "STABLE"]);
        let refused = refused_by(old, &key);
        while refused.elapsed() < 2 * MAX_STALENESS {
            let begun = Instant::now();
            match cache.get(&name).await {
                Ok(Some(found)) if found == bytes("old") => {
                    assert!(begun < refused + MAX_STALENESS, "served {:?} after it was refused", begun - refused);
                }
                // An outage, until the process asks another node.
                Ok(found) => assert!(found.is_none() || found == Some(bytes("new"))),
                Err(error) => panic!("{error}"),
            }
        }
        return;
    }
    panic!("no primary stayed cut off from the others, of {CUTS}");
}

/// Although it answers keys and pings as before.
async fn a_primary_that_is_cut_off_is_left_when_the_others_name_its_successor(kind: Kind) {
    for _ in 0..CUTS {
        let Some(cluster) = Cluster::start_with(kind, &["--cluster-require-full-coverage", "no"]) else { return };
        let keys = keys(&cluster, "left");
        let Some((host, name)) = cut_off(&cluster, &keys).await else { continue };
        within(async { while get(&host.cache, &name).await.as_deref() != Some("new") {} }).await;
        let answered = ask::<String>(&cluster.nodes[FROM], &["GET", &keys.physical(&name)]);
        let left = Instant::now();
        while left.elapsed() < 2 * MAX_STALENESS {
            assert_eq!(get(&host.cache, &name).await.as_deref(), Some("new"));
        }
        // Otherwise the primary has learned that it was replaced.
        if answered.as_deref() == Ok("old") {
            return;
        }
    }
    panic!("no primary stayed cut off from the others, of {CUTS}");
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

over_every_kind_and_valkey_9! {
    a_near_hit_sends_no_command,
    a_change_by_anyone_on_any_node_removes_what_is_near,
    what_is_near_goes_when_all_keys_of_its_node_are_removed,
    a_batch_reads_each_key_once_and_only_what_is_not_near,
    a_large_batch_and_a_large_value_are_kept_too,
    concurrent_misses_are_one_read,
    get_or_set_is_answered_near_and_never_with_a_lease,
    a_failover_leaves_nothing_stale,
    a_primary_that_was_replaced_while_it_was_paused_leaves_nothing_stale,
    a_primary_that_is_cut_off_from_the_others_is_not_believed_after_it_refuses_keys,
    a_primary_that_is_cut_off_is_left_when_the_others_name_its_successor,
    a_node_that_refuses_to_track_leaves_the_cache_working,
}
