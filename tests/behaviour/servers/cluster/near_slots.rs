//! The near tier in front of a cluster whose slots move: a node loses them without announcing it.
//!
//! `docs/near.md` says what holds then. The tests share their clusters with those of `near`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::Duration;
use larder_tests::{Cluster, Kind, wait_for};
use tokio::sync::Mutex;

use super::Keys;
use super::near::{FROM, Host, MAX_STALENESS, TO, ask, assert_seen, bring_near, cluster, keys, refused_by, run};
use crate::backends::{bytes, over_every_kind_and_valkey_9, put, within};

over_every_kind_and_valkey_9! {
    a_slot_that_moves_leaves_nothing_stale,
    the_keys_of_a_node_stay_near_while_one_of_its_slots_moves,
    readers_never_go_back_while_a_slot_moves,
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
    /// With its keys in one step. Only Valkey 9 does that.
    AtOnce,
}

impl Move {
    fn is_possible(self, kind: Kind) -> bool {
        kind == Kind::Valkey9 || !matches!(self, Self::AtOnce)
    }
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
        Move::AtOnce => {
            let is_refused = || ask::<Option<String>>(from, &["GET", key]).is_err().then_some(());
            wait_for("the slot to move", || {
                cluster.ask_to_move(slot, FROM, TO);
                is_refused()
            });
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
    let moves =
        [Move::WithKeys, Move::Claimed, Move::GivenAway, Move::Claimed, Move::WithKeys, Move::AtOnce, Move::AtOnce];
    for how in moves.into_iter().filter(|how| how.is_possible(kind)) {
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

/// Gives a slot, whose keys are lost, to another node.
fn hand_over(cluster: &Cluster, slot: u16, from: usize, to: usize) {
    for key in cluster.keys_in_slot(from, slot) {
        run(&cluster.nodes[from], &["DEL", &key]);
    }
    cluster.start_migration(slot, from, to);
    cluster.finish_migration(slot, from, to);
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
        if kind == Kind::Valkey9 {
            cluster.move_at_once(slot, from, to);
            continue;
        }
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
