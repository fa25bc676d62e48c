//! The near tier while nodes of a cluster are away: what was near is the last value that is known, for those who accept a
//! stale one.
//!
//! `docs/stale.md` says what holds then. Each test has a cluster of its own, whose nodes end.

use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Duration, Freshness, ScopedCache};
use larder_tests::{Cluster, Kind, wait_for};

use super::near::{FROM, Host, MAX_STALENESS, REPLICA, ask, bring_near, keys, run};
use crate::backends::{bytes, over_every_kind, within};

/// The nodes go on without those that are away.
const PARTIAL: [&str; 2] = ["--cluster-require-full-coverage", "no"];

/// A cluster, and a host that has keys of all nodes near.
struct Setup {
    cluster: Cluster,
    host: Host,
    /// Those of the node that ends, and those of the others.
    lost: Vec<String>,
    kept: Vec<String>,
}

impl Setup {
    async fn new(kind: Kind, of_nodes: &[&str], options: &str) -> Option<Self> {
        let cluster = Cluster::start_with(kind, of_nodes)?;
        let keys = keys(&cluster, "outage");
        let host = Host::with(&keys, options).await;
        let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
        for name in &names {
            set(&cluster, name, "old");
        }
        bring_near(&cluster, &host.cache, &names).await;
        let (lost, kept): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| owner(&cluster, name) == FROM);
        assert!(lost.len() > 1 && kept.len() > 1, "{lost:?} {kept:?}");
        Some(Self { cluster, host, lost, kept })
    }

    /// Ends a primary and its replica, and waits until the host knows.
    async fn lose(&mut self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.cluster.nodes[*node].kill());
        self.until_read(&self.lost[0], None).await;
    }

    /// Waits until a plain read returns this.
    async fn until_read(&self, key: &str, expected: Option<&str>) {
        let is_read = async {
            while self.host.cache.get(key).await.unwrap() != expected.map(bytes) {
                tokio::time::sleep(StdDuration::from_millis(5)).await;
            }
        };
        within(is_read).await;
    }

    async fn assert_stale(&self, keys: &[String]) {
        for key in keys {
            assert_eq!(look(&self.host.cache, key).await, Seen::Stale("old".to_owned()), "{key}");
        }
    }
}

fn physical(name: &str) -> String {
    format!("outage:{name}")
}

fn owner(cluster: &Cluster, name: &str) -> usize {
    cluster.initial_owner(cluster.slot(&physical(name)))
}

/// Another program sets a key.
fn set(cluster: &Cluster, name: &str, value: &str) {
    run(&cluster.nodes[owner(cluster, name)], &["SET", &physical(name), value]);
}

/// What get-or-refresh returns for a key. The values have no expiry, so only an outage makes them stale.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Fresh(String),
    Stale(String),
    Nothing,
}

async fn look(cache: &ScopedCache, key: &str) -> Seen {
    let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).unwrap();
    match within(cache.get_or_refresh(key, Duration::Milliseconds(1_000))).await.unwrap() {
        Freshness::Fresh(value) => Seen::Fresh(text(value)),
        Freshness::Stale { value, refresh: None } => Seen::Stale(text(value)),
        Freshness::Vacant(_) => Seen::Nothing,
        other @ Freshness::Stale { .. } => panic!("a refresh without a node: {other:?}"),
    }
}

async fn what_was_near_is_served_stale_while_all_nodes_are_gone(kind: Kind) {
    let Some(mut setup) = Setup::new(kind, &[], "").await else { return };
    setup.lose(&[0, 1, 2, 3, 4, 5]).await;
    for key in [&setup.lost[0], &setup.kept[0]] {
        setup.until_read(key, None).await;
    }
    setup.assert_stale(&setup.lost).await;
    setup.assert_stale(&setup.kept).await;
    // What this process removes it does not return, on whichever node it was.
    for cleared in [&setup.lost[0], &setup.kept[0]] {
        assert!(setup.host.cache.clear(cleared).await.is_err());
        assert_eq!(look(&setup.host.cache, cleared).await, Seen::Nothing, "{cleared}");
    }
    assert!(setup.host.cache.clear_all().await.is_err());
    for key in setup.lost.iter().chain(&setup.kept) {
        assert_eq!(look(&setup.host.cache, key).await, Seen::Nothing, "{key}");
    }
}

/// The others serve their keys, and their connections come and go.
async fn what_was_near_on_a_lost_node_is_served_stale_while_the_others_serve(kind: Kind) {
    let Some(mut setup) = Setup::new(kind, &PARTIAL, "").await else { return };
    setup.cluster.wait_until_restartable(FROM);
    setup.lose(&[FROM, REPLICA]).await;
    setup.assert_stale(&setup.lost).await;
    let cache = setup.host.cache.clone();
    let kept = setup.kept[0].clone();
    assert_eq!(look(&cache, &kept).await, Seen::Fresh("old".to_owned()));
    set(&setup.cluster, &kept, "new");
    setup.until_read(&kept, Some("new")).await;
    assert_eq!(look(&cache, &kept).await, Seen::Fresh("new".to_owned()));
    // A bulk connection to each of the others is opened.
    let of_others = (0..).map(|n| format!("none{n}")).filter(|name| owner(&setup.cluster, name) != FROM);
    let batch: Vec<String> = of_others.take(60).collect();
    for _ in 0..3 {
        assert_eq!(cache.get_many(&batch).await.unwrap(), vec![None; batch.len()]);
    }
    for node in [1, 2] {
        run(&setup.cluster.nodes[node], &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    setup.until_read(&kept, Some("new")).await;
    setup.assert_stale(&setup.lost).await;
    // It comes back without its keys.
    setup.cluster.nodes[FROM].restart();
    let is_served = async {
        while look(&cache, &setup.lost[0]).await != Seen::Nothing {
            tokio::time::sleep(StdDuration::from_millis(5)).await;
        }
    };
    within(is_served).await;
    for key in &setup.lost {
        assert_eq!(look(&cache, key).await, Seen::Nothing, "{key}");
    }
}

/// The others are there, and refuse all keys, as most clusters do then.
async fn a_cluster_that_refuses_keys_is_an_outage(kind: Kind) {
    let Some(mut setup) = Setup::new(kind, &[], "").await else { return };
    setup.lose(&[FROM, REPLICA]).await;
    setup.assert_stale(&setup.lost).await;
    for node in [1, 2] {
        let refused = || ask::<String>(&setup.cluster.nodes[node], &["GET", &physical(&setup.kept[0])]);
        wait_for("the cluster to be down", || {
            refused().is_err_and(|error| error.code() == Some("CLUSTERDOWN")).then_some(())
        });
    }
    let refused = Instant::now();
    for key in &setup.kept {
        setup.until_read(key, None).await;
    }
    assert!(refused.elapsed() < 10 * MAX_STALENESS, "a horizon goes on although the node refuses keys");
    setup.assert_stale(&setup.kept).await;
    setup.assert_stale(&setup.lost).await;
}

/// Its connections stay open, and nothing arrives over them.
async fn what_was_near_is_served_stale_while_a_node_is_silent_and_fresh_once_its_replica_has_taken_over(kind: Kind) {
    let Some(setup) = Setup::new(kind, &[], "timeout = \"500ms\"\n").await else { return };
    let [old, new] = [&setup.cluster.nodes[FROM], &setup.cluster.nodes[REPLICA]];
    let frozen = old.freeze_until_drop();
    let key = &setup.lost[0];
    setup.until_read(key, None).await;
    setup.assert_stale(&setup.lost).await;
    run(new, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    wait_for("the replica to take writes", || ask::<()>(new, &["SET", &physical(key), "new"]).ok());
    setup.until_read(key, Some("new")).await;
    // The old value does not come back, also when the old primary goes on, and learns that it is a replica.
    assert_eq!(look(&setup.host.cache, key).await, Seen::Fresh("new".to_owned()));
    drop(frozen);
    wait_for("the old primary to learn that it was replaced", || {
        ask::<String>(old, &["GET", &physical(key)]).is_err().then_some(())
    });
    let learned = Instant::now();
    while learned.elapsed() < 2 * MAX_STALENESS {
        assert_eq!(look(&setup.host.cache, key).await, Seen::Fresh("new".to_owned()));
    }
}

over_every_kind! {
    what_was_near_is_served_stale_while_all_nodes_are_gone,
    what_was_near_on_a_lost_node_is_served_stale_while_the_others_serve,
    a_cluster_that_refuses_keys_is_an_outage,
    what_was_near_is_served_stale_while_a_node_is_silent_and_fresh_once_its_replica_has_taken_over,
}
