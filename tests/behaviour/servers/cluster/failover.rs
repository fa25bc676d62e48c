//! Replicas that take over. Each test has a primary of its own, and no two tests of a kind run at the same time.

use std::sync::Arc;

use larder_tests::{Cluster, Kind};
use tokio::sync::Mutex;

use super::{Keys, Shared, ask, assert_a_failover_keeps_all_keys, assert_no_call_fails, call_until_all_succeed};
use crate::backends::over_every_kind;

static CLUSTERS: [Shared<Mutex<Cluster>>; 3] = [const { Shared::new() }; 3];

fn cluster(kind: Kind) -> Option<Arc<Mutex<Cluster>>> {
    CLUSTERS[kind as usize].get(|| Cluster::start(kind).map(Mutex::new))
}

async fn an_agreed_failover_keeps_all_keys(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    assert_a_failover_keeps_all_keys(&Keys { cluster: &cluster, prefix: "agreed", options: "" });
}

/// As when its machine hangs: the connections stay open, and no reply arrives.
async fn calls_fail_until_the_replica_of_a_frozen_primary_has_taken_over(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let cluster = cluster.lock().await;
    let keys = Keys { cluster: &cluster, prefix: "frozen", options: "" };
    let mut session = keys.session("on_outage = \"error\"\n");
    assert_no_call_fails(&mut session);
    let frozen = cluster.nodes[1].freeze_until_drop();
    let recovery = call_until_all_succeed(&mut session);
    println!("a primary is frozen: {recovery:?}");
    assert!(recovery.failed > 0);
    drop(frozen);
    cluster.wait_for_takeover(1);
    assert_eq!(ask(&mut session, "clear-all"), "24");
    session.succeed();
}

/// Also if it returns, as a replica.
async fn calls_fail_until_the_replica_of_a_killed_primary_has_taken_over(kind: Kind) {
    let Some(cluster) = cluster(kind) else { return };
    let mut cluster = cluster.lock().await;
    let keys = Keys { cluster: &cluster, prefix: "killed", options: "" };
    let mut errors = keys.session("on_outage = \"error\"\n");
    let mut misses = keys.session("");
    assert_no_call_fails(&mut errors);
    assert_no_call_fails(&mut misses);
    cluster.nodes[0].kill();
    // Calls of its keys fail, and those of other keys do not wait for it.
    let recovery = call_until_all_succeed(&mut errors);
    println!("a primary is killed: {recovery:?}");
    assert!(recovery.failed > 0);
    call_until_all_succeed(&mut misses);
    cluster.wait_for_takeover(0);
    assert_no_call_fails(&mut errors);
    assert_no_call_fails(&mut misses);
    cluster.nodes[0].restart();
    cluster.wait_until_healthy();
    assert_no_call_fails(&mut errors);
    assert_no_call_fails(&mut misses);
    assert_eq!(ask(&mut errors, "clear-all"), "24");
    errors.succeed();
    misses.succeed();
}

over_every_kind! {
    an_agreed_failover_keeps_all_keys,
    calls_fail_until_the_replica_of_a_frozen_primary_has_taken_over,
    calls_fail_until_the_replica_of_a_killed_primary_has_taken_over,
}
