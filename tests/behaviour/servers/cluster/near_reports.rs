//! The near tier in situations in which users of other programs reported stale values, on clusters of their own.

use std::time::Instant;

use larder_host::cache::{Duration, ScopedCache};
use larder_tests::{Cluster, Kind, wait_for};

use super::Keys;
use super::near::{Host, MAX_STALENESS, ask, assert_seen, bring_near, keys, run};
use crate::backends::{bytes, over_every_kind, within};

/// The prefixes of the caches of one process.
const PREFIXES: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

/// Elsewhere most of many caches did not announce again (<https://github.com/redisson/redisson/issues/4731>).
async fn each_of_many_caches_sees_changes_after_a_failover(kind: Kind) {
    let Some(cluster) = Cluster::start(kind) else { return };
    let mut hosts = Vec::new();
    for prefix in PREFIXES {
        let keys = keys(&cluster, prefix);
        hosts.push((Host::new(&keys).await, keys));
    }
    let of = |keys: &Keys<'_>| {
        let (_, names) = keys.in_one_slot(1);
        (keys.physical(&names[0]), names)
    };
    let set = |key: &str, value: &str, node: usize| {
        wait_for("the primary to take writes", || ask::<()>(&cluster.nodes[node], &["SET", key, value]).ok());
    };
    for (host, keys) in &hosts {
        let (key, names) = of(keys);
        set(&key, "old", 0);
        bring_near(&cluster, &host.cache, &names).await;
    }
    cluster.fail_over(0);
    for (host, keys) in &hosts {
        let (key, names) = of(keys);
        within(async { while host.cache.get(&names[0]).await.unwrap() != Some(bytes("old")) {} }).await;
        bring_near(&cluster, &host.cache, &names).await;
        set(&key, "new", 3);
        assert_seen(&host.cache, &names[0], Some("new"), Instant::now()).await;
    }
}

/// As when a managed service replaces all primaries (<https://github.com/phpredis/phpredis/pull/2807>). The connections stay open,
/// and the epochs begin again.
async fn a_cluster_that_is_formed_anew_is_followed_and_leaves_nothing_stale(kind: Kind) {
    let Some(mut cluster) = Cluster::start(kind) else { return };
    let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    let host = {
        let keys = keys(&cluster, "anew");
        let host = Host::new(&keys).await;
        keys.set_all(&host.cache, &names).await;
        // Higher epochs than those of the new cluster.
        cluster.fail_over(0);
        cluster.fail_back(0);
        bring_near(&cluster, &host.cache, &names).await;
        host
    };
    cluster.form_anew();
    let formed = Instant::now();
    let cache = &host.cache;
    while formed.elapsed() < MAX_STALENESS {
        within(cache.get(&names[0])).await.unwrap();
    }
    for name in &names {
        assert_eq!(within(cache.get(name)).await.unwrap(), None, "{name}");
        set_when_possible(cache, name, "own").await;
    }
    bring_near(&cluster, cache, &names).await;
    for name in &names {
        let physical = format!("anew:{name}");
        let owner = 2 - cluster.initial_owner(cluster.slot(&physical));
        run(&cluster.nodes[owner], &["SET", &physical, "new"]);
        assert_seen(cache, name, Some("new"), Instant::now()).await;
    }
}

async fn set_when_possible(cache: &ScopedCache, key: &str, value: &str) {
    within(async { while cache.set(key, bytes(value), Duration::Default).await.is_err() {} }).await;
}

over_every_kind! {
    each_of_many_caches_sees_changes_after_a_failover,
    a_cluster_that_is_formed_anew_is_followed_and_leaves_nothing_stale,
}
