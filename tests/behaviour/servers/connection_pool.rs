//! The connections to one server: which call uses which connection, what the loss of one affects, and that no large
//! value delays a small one.

use std::collections::BTreeMap;
use std::time::Duration as StdDuration;

use bytes::Bytes;
use larder_host::cache::{CacheError, Duration, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Cluster, Fault, Kind, Relay, Server, wait_for};

use crate::backends::{bytes, over_every_server, view, within};
use crate::serve::metrics::{values, watched};

/// One byte more than what is small.
const LARGE: usize = (64 << 10) + 1;

mod spread {
    use super::*;

    over_every_server! {
        one_connection_is_opened_by_default,
        calls_are_spread_over_all_connections_by_their_keys,
    }

    use crate::backends::Backend;

    async fn one_connection_is_opened_by_default(mut backend: Backend) {
        let cache = backend.view().await;
        for key in 0..50 {
            cache.set(&key.to_string(), bytes("v"), Duration::Default).await.unwrap();
            assert_eq!(cache.get(&key.to_string()).await, Ok(Some(bytes("v"))));
        }
        assert_eq!(connections(backend.behind()).len(), 1);
    }

    async fn calls_are_spread_over_all_connections_by_their_keys(mut backend: Backend) {
        let cache = view(&backend.cache("connections = 4").await);
        let server = backend.behind();
        let ids: Vec<u64> = connections(server).into_keys().collect();
        assert_eq!(ids.len(), 4);
        for key in 0..100 {
            cache.set(&key.to_string(), bytes("v"), Duration::Default).await.unwrap();
        }
        for key in 0..100 {
            assert_eq!(cache.get(&key.to_string()).await, Ok(Some(bytes("v"))));
        }
        assert_eq!(connections(server).into_values().collect::<Vec<_>>(), ["get"; 4]);
        // One key's calls stay on one connection.
        for _ in 0..20 {
            assert_eq!(cache.clear("k").await, Ok(false));
        }
        let cleared = connections(server).into_values().filter(|last| last == "unlink").count();
        assert_eq!(cleared, 1);
        assert_eq!(connections(server).into_keys().collect::<Vec<_>>(), ids);
    }
}

mod loss {
    use super::*;

    #[tokio::test]
    async fn a_lost_connection_is_replaced_and_the_others_serve_meanwhile() {
        for kind in Kind::ALL {
            let Some(server) = Server::start(kind) else { continue };
            let (caches, handle, _guard) = watched(&(server.cache("c") + "connections = 4\n")).await;
            let view = view(caches.get("c").unwrap());
            for key in 0..100 {
                view.set(&key.to_string(), bytes("v"), Duration::Default).await.unwrap();
            }
            let metric = |name: &str| {
                caches.publish();
                values(&handle.render())[format!("{name}{{cache=\"c\"}}").as_str()]
            };
            let before = connections(&server);
            assert_eq!((metric("larder_up"), metric("larder_reconnects_total")), (1.0, 0.0));
            let lost = *before.keys().next().unwrap();
            let _: i64 = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(lost).query(&mut server.client()).unwrap();
            // A call that is being sent over that connection at this moment may fail.
            let mut served = 0;
            for key in 0..100 {
                served += usize::from(view.get(&key.to_string()).await == Ok(Some(bytes("v"))));
            }
            assert!(served >= 99, "only {served} of 100 keys were served");
            let back = async {
                while metric("larder_up") == 0.0 || metric("larder_reconnects_total") == 0.0 {
                    tokio::time::sleep(StdDuration::from_millis(5)).await;
                }
            };
            within(back).await;
            assert_eq!(metric("larder_reconnects_total"), 1.0);
            let after = connections(&server);
            assert_eq!(after.len(), 4);
            assert_eq!(after.keys().filter(|id| before.contains_key(id)).count(), 3);
        }
    }

    /// A primary that became a replica keeps its connections, and its address may lead to another server by now.
    #[tokio::test]
    async fn a_write_that_a_replica_refuses_makes_the_host_reconnect() {
        for kind in Kind::ALL {
            let Some(server) = Server::start(kind) else { continue };
            let (caches, handle, _guard) = watched(&server.cache("c")).await;
            let view = view(caches.get("c").unwrap());
            view.set("k", bytes("v"), Duration::Default).await.unwrap();
            let () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query(&mut server.client()).unwrap();
            let reconnects = || {
                caches.publish();
                values(&handle.render())["larder_reconnects_total{cache=\"c\"}"]
            };
            for write in ["set", "set-many", "clear", "clear-pattern"] {
                let before = reconnects();
                let reconnected = async {
                    // A connection of less than a second is kept.
                    while reconnects() == before {
                        let refused = match write {
                            "set" => view.set("k", bytes("v"), Duration::Default).await.err(),
                            "set-many" => {
                                let entries = vec![("k".to_owned(), bytes("v"))];
                                view.set_many(entries, Duration::Default).await.err()
                            }
                            "clear" => view.clear("k").await.err(),
                            _ => view.clear_pattern("*").await.err(),
                        };
                        assert!(refused.as_ref().is_some_and(CacheError::is_outage), "{kind:?} {write}: {refused:?}");
                        tokio::time::sleep(StdDuration::from_millis(20)).await;
                    }
                };
                within(reconnected).await;
            }
        }
    }

    #[tokio::test]
    async fn a_bulk_connection_that_cannot_open_fails_no_call() {
        for kind in Kind::ALL {
            let Some(server) = Server::start(kind) else { continue };
            let cache = view(&connect(&server, "").await);
            // No connection more is let in: there are ours, which is kept, and the test's.
            let mut client = server.client();
            let () = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(2).query(&mut client).unwrap();
            let value = Bytes::from(vec![b'v'; LARGE]);
            for key in ["a", "b", "c"] {
                cache.set(key, value.clone(), Duration::Default).await.unwrap();
                assert_eq!(cache.get(key).await, Ok(Some(value.clone())));
            }
            assert_eq!(cache.clear_all().await, Ok(3));
        }
    }
}

mod large {
    use super::*;

    over_every_server! {
        large_values_use_the_bulk_connection,
        a_value_is_known_to_be_large_once_it_was_read,
    }

    use crate::backends::Backend;

    async fn large_values_use_the_bulk_connection(mut backend: Backend) {
        let large = Bytes::from(vec![b'v'; LARGE]);
        let many = |count: usize| (0..count).map(|nth| nth.to_string()).collect::<Vec<_>>();
        let entries = |count: usize| many(count).into_iter().map(|key| (key, vec![b'v'])).collect::<Vec<_>>();
        let small = view(&backend.cache("").await);
        small.set("k", large.slice(1..), Duration::Default).await.unwrap();
        small.set_many(entries(16), Duration::Default).await.unwrap();
        assert!(small.get_many(&many(16)).await.unwrap().iter().all(Option::is_some));
        assert_eq!(connections(backend.behind()).len(), 1);
        // Each call is made by a new cache. The caches are kept, so that the server counts no connection less meanwhile.
        let mut caches = Vec::new();
        for deed in ["set", "fill", "set-many", "get-many", "clear-pattern"] {
            let cache = view(&backend.cache("").await);
            let before = connections(backend.behind()).len();
            match deed {
                "set" => cache.set("l", large.clone(), Duration::Default).await.unwrap(),
                "fill" => {
                    let vacancy = crate::get_or_set::vacancy(&cache, "f").await;
                    assert_eq!(cache.fill(vacancy, large.clone(), Duration::Default).await, Ok(true));
                }
                "set-many" => cache.set_many(entries(17), Duration::Default).await.unwrap(),
                "get-many" => drop(cache.get_many(&many(17)).await.unwrap()),
                _ => assert_eq!(cache.clear_pattern("none:*").await, Ok(0)),
            }
            wait_for("a connection more", || (connections(backend.behind()).len() == before + 1).then_some(()));
            caches.push(cache);
        }
    }

    async fn a_value_is_known_to_be_large_once_it_was_read(mut backend: Backend) {
        let cache = backend.view().await;
        let large = vec![b'v'; LARGE];
        let () = ::redis::cmd("SET").arg("cache:k").arg(&large).query(&mut backend.behind().client()).unwrap();
        assert_eq!(cache.get("k").await, Ok(Some(large.clone().into())));
        assert_eq!(connections(backend.behind()).len(), 1);
        let last = |backend: &mut Backend| connections(backend.behind()).into_values().collect::<Vec<_>>();
        until_aside(backend.behind(), "get", async || drop(cache.get("k").await.unwrap())).await;
        // Until it is small again.
        cache.set("k", bytes("v"), Duration::Default).await.unwrap();
        assert_eq!(last(&mut backend), ["get", "set"]);
        assert_eq!(cache.get("k").await, Ok(Some(bytes("v"))));
        assert_eq!(last(&mut backend), ["get", "get"]);
        assert_eq!(cache.clear("k").await, Ok(true));
        assert_eq!(last(&mut backend), ["unlink", "get"]);
    }

    /// What a line lets through is little, on each connection.
    #[tokio::test]
    async fn a_slow_large_value_does_not_delay_a_small_one() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        let relay = Relay::to(server.port());
        let cache = view(&connect_by(&server, relay.port(), "timeout = \"60s\"\n").await);
        let large = Bytes::from(vec![b'v'; 1 << 20]);
        cache.set("small", bytes("v"), Duration::Default).await.unwrap();
        cache.set("large", large.clone(), Duration::Default).await.unwrap();
        until_aside(&server, "get", async || drop(cache.get("large").await.unwrap())).await;
        for is_set in [true, false] {
            relay.set_fault(Fault::Throttle(200 << 10));
            let moving = tokio::spawn(move_value(cache.clone(), large.clone(), is_set));
            // From here on it is on its way.
            tokio::task::yield_now().await;
            assert_eq!(within(cache.get("small")).await, Ok(Some(bytes("v"))));
            assert!(!moving.is_finished(), "the small value waited for the large one");
            relay.set_fault(Fault::None);
            within(moving).await.unwrap();
        }
    }

    async fn move_value(cache: ScopedCache, large: Bytes, is_set: bool) {
        if is_set {
            cache.set("large", large, Duration::Default).await.unwrap();
        } else {
            assert_eq!(cache.get("large").await, Ok(Some(large)));
        }
    }

    /// The set and the clear go over different connections.
    #[tokio::test]
    async fn a_clear_also_removes_the_value_of_a_set_that_timed_out() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        let relay = Relay::to(server.port());
        let cache = view(&connect_by(&server, relay.port(), "timeout = \"60s\"\n").await);
        until_aside(&server, "scan", async || assert_eq!(cache.clear_pattern("none:*").await, Ok(0))).await;
        // The longest that is small, and takes longer than the steps of a clear.
        relay.set_fault(Fault::Throttle(30 << 10));
        let value = Bytes::from(vec![b'v'; LARGE - 1]);
        let set = cache.set("k", value, Duration::Default);
        assert!(tokio::time::timeout(StdDuration::from_millis(50), set).await.is_err());
        assert_eq!(within(cache.clear_all()).await, Ok(1));
        relay.set_fault(Fault::None);
        assert_eq!(cache.get("k").await, Ok(None));
    }

    /// The set goes over one connection, and the batch, which is large, over the other.
    #[tokio::test]
    async fn a_batch_is_sent_after_a_set_of_its_keys_that_timed_out() {
        let Some(server) = Server::start(Kind::Valkey) else { return };
        let relay = Relay::to(server.port());
        let cache = view(&connect_by(&server, relay.port(), "timeout = \"60s\"\n").await);
        until_aside(&server, "scan", async || assert_eq!(cache.clear_pattern("none:*").await, Ok(0))).await;
        relay.set_fault(Fault::Throttle(60 << 10));
        let value = Bytes::from(vec![b'v'; LARGE - 1]);
        let set = cache.set("0", value.clone(), Duration::Default);
        assert!(tokio::time::timeout(StdDuration::from_millis(50), set).await.is_err());
        let keys: Vec<String> = (0..17).map(|key| key.to_string()).collect();
        let found = within(cache.get_many(&keys)).await.unwrap();
        assert_eq!(found.first(), Some(&Some(value)));
        relay.set_fault(Fault::None);
    }
}

/// Each node has as many connections as one server has.
#[tokio::test]
async fn a_cluster_serves_over_several_connections_to_each_node() {
    let Some(cluster) = Cluster::start(Kind::Valkey) else { return };
    let table = cluster.cache("c") + "connections = 2\ntimeout = \"20s\"\n";
    let cache = view(&connect_cache("c", &Config::from_toml(&table).unwrap().caches["c"]).await.unwrap());
    let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
    for key in &keys {
        cache.set(key, bytes(key), Duration::Default).await.unwrap();
        assert_eq!(cache.get(key).await, Ok(Some(bytes(key))));
    }
    let large = Bytes::from(vec![b'v'; LARGE]);
    for key in ["l1", "l2", "l3", "l4"] {
        cache.set(key, large.clone(), Duration::Default).await.unwrap();
        assert_eq!(cache.get(key).await, Ok(Some(large.clone())));
    }
    let found = cache.get_many(&keys).await.unwrap();
    assert!(found.iter().zip(&keys).all(|(found, key)| found.as_ref() == Some(&bytes(key))));
    assert_eq!(cache.clear_all().await, Ok(104));
    for slot in [0, 8_000, 16_383] {
        let node = &cluster.nodes[cluster.initial_owner(slot)];
        wait_for("two regular connections and the bulk connection", || (connections(node).len() == 3).then_some(()));
    }
}

async fn connect(server: &Server, more: &str) -> std::sync::Arc<larder_host::cache::Cache> {
    connect_by(server, server.port(), more).await
}

async fn connect_by(server: &Server, port: u16, more: &str) -> std::sync::Arc<larder_host::cache::Cache> {
    let table = server.cache("c").replace(&server.port().to_string(), &port.to_string());
    connect_cache("c", &Config::from_toml(&format!("{table}{more}")).unwrap().caches["c"]).await.unwrap()
}

/// Makes a call again and again until its command comes over the second connection, which is being made meanwhile.
async fn until_aside(server: &Server, command: &str, mut call: impl AsyncFnMut()) {
    let calls = async {
        while connections(server).into_values().nth(1).as_deref() != Some(command) {
            call().await;
        }
    };
    within(calls).await;
}

/// The TCP connections of a server without those of replicas, and the last command of each. The test itself connects
/// through a Unix socket.
fn connections(server: &Server) -> BTreeMap<u64, String> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.client()).unwrap();
    let of = |line: &str, field: &str| line.split(' ').find_map(|word| word.strip_prefix(field).map(str::to_owned));
    let by_tcp = list.lines().filter(|line| of(line, "addr=").is_some_and(|from| from.starts_with("127.0.0.1:")));
    let by_tcp = by_tcp.filter(|line| !of(line, "flags=").unwrap().contains(['S', 'M']));
    by_tcp.map(|line| (of(line, "id=").unwrap().parse().unwrap(), of(line, "cmd=").unwrap())).collect()
}
