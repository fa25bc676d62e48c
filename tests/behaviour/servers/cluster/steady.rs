//! Clusters whose nodes all run: keys on all nodes, and slots that move from node to node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_host::cache::{Duration, Entry, ScopedCache};
use larder_tests::{Cluster, Kind, SlotGuard, wait_for};
use tokio::sync::Mutex;

use super::{Keys, Shared, ask, assert_present};
use crate::backends::{bytes, namespaced, over_every_kind, put, view, within};

struct Steady {
    cluster: Cluster,
    /// Held while a slot moves: nodes that take over different slots at once may disagree about them for seconds.
    moving: Mutex<()>,
}

static CLUSTERS: [Shared<Steady>; 3] = [const { Shared::new() }; 3];

fn steady(kind: Kind) -> Option<Arc<Steady>> {
    CLUSTERS[kind as usize].get(|| Some(Steady { cluster: Cluster::start(kind)?, moving: Mutex::new(()) }))
}

impl Steady {
    fn keys(&self, prefix: &'static str) -> Keys<'_> {
        Keys { cluster: &self.cluster, prefix, options: "" }
    }
}

/// One slot of the first primary, on its way to the second.
struct MovingSlot<'a> {
    keys: &'a Keys<'a>,
    slot: u16,
    names: Vec<String>,
    _guard: SlotGuard<'a>,
}

const FROM: usize = 0;
const TO: usize = 1;

impl<'a> MovingSlot<'a> {
    /// A slot that does not move yet, and names for keys in it.
    fn new(keys: &'a Keys<'a>, count: usize) -> Self {
        let (slot, names) = keys.in_one_slot(count);
        Self { keys, slot, names, _guard: keys.cluster.guard_slot(slot) }
    }

    /// Sets 20 keys, and moves 10 of them.
    async fn begin(keys: &'a Keys<'a>, cache: &ScopedCache) -> Self {
        let moving = Self::new(keys, 20);
        keys.set_all(cache, &moving.names).await;
        keys.cluster.start_migration(moving.slot, FROM, TO);
        moving.move_keys(&moving.names[..10]);
        moving
    }

    fn move_keys(&self, names: &[String]) {
        let physical: Vec<String> = names.iter().map(|name| self.keys.physical(name)).collect();
        self.keys.cluster.migrate_keys(FROM, TO, &physical);
    }

    /// Another key of the slot.
    fn name(&self, suffix: &str) -> String {
        let (tag, _) = self.names[0].split_once('}').expect("a key of a slot has a tag");
        format!("{tag}}}{suffix}")
    }

    /// Moves the rest of the keys, and gives the slot to its new node.
    fn complete(&self) {
        let rest = self.keys.cluster.keys_in_slot(FROM, self.slot);
        if !rest.is_empty() {
            self.keys.cluster.migrate_keys(FROM, TO, &rest);
        }
        self.keys.cluster.finish_migration(self.slot, FROM, TO);
    }

    /// Gives the slot, which is empty, back to its first node.
    fn give_back(self) {
        self.keys.cluster.start_migration(self.slot, TO, FROM);
        self.keys.cluster.finish_migration(self.slot, TO, FROM);
    }

    /// Ends the move of a slot that is empty by now.
    async fn cancel(self, cache: &ScopedCache) {
        cache.clear_all().await.unwrap();
        for node in [FROM, TO] {
            let mut stable = ::redis::cmd("CLUSTER");
            stable.arg("SETSLOT").arg(self.slot).arg("STABLE");
            stable.exec(&mut self.keys.cluster.nodes[node].client()).unwrap();
        }
    }
}

async fn a_batch_is_stored_and_read_across_nodes(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let cache = view(&steady.keys("batch").cache().await);
    let names: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
    let entries = names.iter().map(|name| (name.clone(), name.clone().into_bytes())).collect();
    cache.set_many(entries, Duration::Default).await.unwrap();
    assert_present(&cache, &names).await;
}

async fn values_of_a_batch_have_the_order_of_its_keys(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let cache = view(&steady.keys("order").cache().await);
    put(&cache, &["key7", "key99"]).await;
    let asked: Vec<String> = ["key7", "none", "key99", "key7"].map(str::to_owned).into();
    let [first, last] = [cache.get("key7").await.unwrap(), cache.get("key99").await.unwrap()];
    assert!(first.is_some() && last.is_some());
    assert_eq!(cache.get_many(&asked).await.unwrap(), [first.clone(), None, last, first]);
}

async fn clears_reach_all_nodes_and_no_other_namespace(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let keys = steady.keys("clears");
    let cache = keys.cache().await;
    let (plain, shop) = (view(&cache), namespaced(&cache, "shop"));
    let names: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
    keys.set_all(&plain, &names).await;
    put(&shop, &["key1", "other"]).await;
    assert_eq!(plain.clear_pattern("key?").await, Ok(10));
    assert_eq!(plain.clear_all().await, Ok(90));
    assert_eq!(shop.clear_all().await, Ok(2));
}

async fn a_waiter_in_another_process_receives_the_computed_value(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let keys = steady.keys("waiter");
    let (one, two) = (keys.cache().await, keys.cache().await);
    // The keys are on different nodes.
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
}

pub(super) async fn assert_reads_and_writes_work_while_a_slot_moves(keys: &Keys<'_>) {
    let cache = view(&keys.cache().await);
    let moving = MovingSlot::begin(keys, &cache).await;
    assert_present(&cache, &moving.names).await;
    let new = moving.name("new");
    cache.set(&new, bytes("new"), Duration::Default).await.unwrap();
    assert_eq!(cache.get(&new).await, Ok(Some(bytes("new"))));
    moving.cancel(&cache).await;
}

async fn reads_and_writes_work_while_a_slot_moves(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    assert_reads_and_writes_work_while_a_slot_moves(&steady.keys("moving")).await;
}

pub(super) async fn assert_a_lease_moves_with_its_slot(keys: &Keys<'_>) {
    let cache = view(&keys.cache().await);
    let moving = MovingSlot::new(keys, 1);
    let held = &moving.names[0];
    let Ok(Entry::Vacant(vacancy)) = cache.get_or_set(held).await else { panic!("it has a value") };
    keys.cluster.start_migration(moving.slot, FROM, TO);
    moving.move_keys(&moving.names);
    assert_eq!(cache.fill(vacancy, bytes("filled"), Duration::Default).await, Ok(true));
    assert_eq!(cache.get(held).await, Ok(Some(bytes("filled"))));
    moving.cancel(&cache).await;
}

async fn a_lease_moves_with_its_slot(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    assert_a_lease_moves_with_its_slot(&steady.keys("lease")).await;
}

pub(super) async fn assert_a_value_is_computed_and_stored_in_a_slot_that_moves(keys: &Keys<'_>) {
    let cache = view(&keys.cache().await);
    let moving = MovingSlot::begin(keys, &cache).await;
    let key = moving.name("new");
    let Ok(Entry::Vacant(vacancy)) = cache.get_or_set(&key).await else { panic!("it has a value") };
    assert_eq!(cache.fill(vacancy, bytes("v"), Duration::Default).await, Ok(true));
    assert_eq!(cache.get(&key).await, Ok(Some(bytes("v"))));
    moving.cancel(&cache).await;
}

async fn a_value_is_computed_and_stored_in_a_slot_that_moves(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    assert_a_value_is_computed_and_stored_in_a_slot_that_moves(&steady.keys("computed")).await;
}

pub(super) async fn assert_clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once(keys: &Keys<'_>) {
    let cache = view(&keys.cache().await);
    let moving = MovingSlot::begin(keys, &cache).await;
    let [moved, remaining] = [&moving.names[0], &moving.names[19]];
    assert_eq!((cache.clear(moved).await, cache.clear(remaining).await), (Ok(true), Ok(true)));
    assert_eq!(cache.clear_pattern(&moving.name("*")).await, Ok(18));
    moving.cancel(&cache).await;
}

async fn clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    let keys = steady.keys("cleared");
    assert_clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once(&keys).await;
}

pub(super) async fn assert_a_slot_that_has_moved_is_served_by_its_new_node(keys: &Keys<'_>) {
    let cache = view(&keys.cache().await);
    let moving = MovingSlot::begin(keys, &cache).await;
    keys.set_all(&cache, &moving.names).await;
    moving.complete();
    assert_present(&cache, &moving.names).await;
    assert_eq!(cache.clear_all().await, Ok(20));
    moving.give_back();
}

async fn a_slot_that_has_moved_is_served_by_its_new_node(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    assert_a_slot_that_has_moved_is_served_by_its_new_node(&steady.keys("moved")).await;
}

/// Keys move from a node that the clear has not visited to one that it has.
async fn a_clear_finds_the_keys_that_move_during_it(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    let (keys, cluster) = (steady.keys("chased"), &steady.cluster);
    let cache = view(&keys.cache().await);
    let (slot, names) = keys.in_one_slot(300);
    let _guard = cluster.guard_slot(slot);
    for to in [1, 2] {
        keys.set_all(&cache, &names).await;
        cluster.start_migration(slot, 0, to);
        let clearing = tokio::spawn({
            let cache = cache.clone();
            async move { cache.clear_all().await }
        });
        // Some keys are cleared before they move; a key that does not exist is not an error to the servers.
        for few in names.chunks(10) {
            let physical: Vec<String> = few.iter().map(|name| keys.physical(name)).collect();
            cluster.migrate_keys(0, to, &physical);
            tokio::task::yield_now().await;
        }
        assert_eq!(within(clearing).await.unwrap(), Ok(300));
        assert_eq!(cache.clear_all().await, Ok(0));
        assert_eq!((cluster.keys_in_slot(0, slot).len(), cluster.keys_in_slot(to, slot).len()), (0, 0));
        cluster.finish_migration(slot, 0, to);
        cluster.start_migration(slot, to, 0);
        cluster.finish_migration(slot, to, 0);
    }
}

/// Ends the threads of a scope that run until the flag is set. The scope waits for them even if the test has failed.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Three hosts store and read keys of a slot that moves from node to node.
async fn no_call_of_a_plugin_fails_while_a_slot_moves(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let _moving = steady.moving.lock().await;
    let (keys, cluster) = (steady.keys("plugins"), &steady.cluster);
    let (slot, names) = keys.in_one_slot(1);
    let _guard = cluster.guard_slot(slot);
    let tag = names[0].strip_suffix('0').expect("the first key is the tag and 0");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = SetOnDrop(&is_over);
        for worker in 0..3 {
            let mut session = keys.session("timeout = \"20s\"\non_outage = \"error\"\n");
            let is_over = &is_over;
            scope.spawn(move || {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) || round == 0 {
                    for key in 0..10 {
                        let key = format!("{tag}{worker}:{key}");
                        assert_eq!(ask(&mut session, &format!("set {key} {round}")), "ok");
                        assert_eq!(ask(&mut session, &format!("get {key}")), format!("hit {round}"));
                    }
                    assert_eq!(ask(&mut session, &format!("clear {tag}{worker}:{}", round % 10)), "true");
                    round += 1;
                }
                session.succeed();
            });
        }
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
        drop(ends);
    });
    let mut session = keys.session("");
    assert_eq!(ask(&mut session, &format!("clear-pattern {tag}?:?")), "27");
    session.succeed();
}

/// Each value is within its limit, and together they are many times the limit of a batch.
#[cfg(target_os = "linux")]
async fn a_batch_above_the_limit_is_not_read_into_memory(kind: Kind) {
    let Some(steady) = steady(kind) else { return };
    let (keys, cluster) = (steady.keys("memory"), &steady.cluster);
    let mut session = keys.session("timeout = \"30s\"\n");
    let large = keys.physical("large");
    let owner = &cluster.nodes[cluster.initial_owner(cluster.slot(&large))];
    ::redis::cmd("SETRANGE").arg(large).arg(1_048_575).arg("x").exec(&mut owner.client()).unwrap();
    let answer = ask(&mut session, &format!("get-many{}", " large".repeat(1024)));
    assert_eq!(answer, "error ValueTooLarge(8388608)");
    assert_eq!(ask(&mut session, "clear-all"), "1");
    let peak = session.peak_memory();
    session.succeed();
    // Twice the limit, and the memory of the process itself.
    assert!(peak < 128 << 20, "{} MiB at its peak", peak >> 20);
}

over_every_kind! {
    a_batch_is_stored_and_read_across_nodes,
    values_of_a_batch_have_the_order_of_its_keys,
    clears_reach_all_nodes_and_no_other_namespace,
    a_waiter_in_another_process_receives_the_computed_value,
    reads_and_writes_work_while_a_slot_moves,
    a_lease_moves_with_its_slot,
    a_value_is_computed_and_stored_in_a_slot_that_moves,
    clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once,
    a_slot_that_has_moved_is_served_by_its_new_node,
    a_clear_finds_the_keys_that_move_during_it,
    no_call_of_a_plugin_fails_while_a_slot_moves,
    #[cfg(target_os = "linux")]
    a_batch_above_the_limit_is_not_read_into_memory,
}
