//! What the near tier sends to a server: for batches, for calls that wait, and while it is idle.

use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Entry, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Kind, Server};

use super::near::{MAX_STALENESS, calls, near_cache};
use crate::backends::{bytes, over_every_kind, view, within};

over_every_kind! {
    a_batch_asks_for_the_keys_that_are_not_near,
    a_wait_takes_as_many_round_trips_as_without_a_near_tier,
    an_idle_connection_sends_four_pings_within_max_staleness,
}

/// What is near stays so until it changes.
const LONG: &str = "near = { max_staleness = \"60s\" }\ntimeout = \"20s\"";

fn run(server: &Server, command: &[&str]) {
    ::redis::cmd(command[0]).arg(&command[1..]).exec(&mut server.client()).unwrap();
}

async fn a_batch_asks_for_the_keys_that_are_not_near(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let cache = view(&near_cache(&server.cache("c"), LONG).await);
    for name in ["a", "b", "c"] {
        run(&server, &["SET", &format!("cache:{name}"), name]);
    }
    cache.get("a").await.unwrap();
    // Each key that is fetched is asked for its remaining life.
    let fetched = async |keys: &[&str]| {
        let before = calls(&server, "pttl");
        let values = cache.get_many(keys).await.unwrap();
        let expected: Vec<_> = keys.iter().map(|key| (*key != "none").then(|| bytes(key))).collect();
        assert_eq!(values, expected);
        calls(&server, "pttl") - before
    };
    assert_eq!(fetched(&["b", "a", "none", "b", "a"]).await, 2);
    assert_eq!(fetched(&["b", "a", "c"]).await, 1);
    assert_eq!(fetched(&["a", "b", "c"]).await, 0);
}

/// The commands of a get-or-set that waits for the lease of another program, and for its value.
async fn commands_of_a_wait(server: &Server, cache: ScopedCache) -> [u64; 4] {
    run(server, &["SET", "cache:k", "\0larder-lease:of a test", "PX", "600000"]);
    run(server, &["CONFIG", "RESETSTAT"]);
    let waits = tokio::spawn(async move { cache.get_or_set("k").await });
    let is_watched = async {
        while calls(server, "getrange") == 0 {
            tokio::time::sleep(StdDuration::from_millis(1)).await;
        }
    };
    within(is_watched).await;
    run(server, &["SET", "cache:k", "v"]);
    assert!(matches!(within(waits).await.unwrap(), Ok(Entry::Occupied(value)) if value == "v"));
    let watched = calls(server, "getrange");
    let per_watch = |name: &str| calls(server, name) - watched;
    // Without the `SET` of this test.
    [calls(server, "set") - 1, calls(server, "get"), per_watch("pttl"), per_watch("client|caching")]
}

/// Before the wait and after it the call claims the key, in one round trip each.
async fn a_wait_takes_as_many_round_trips_as_without_a_near_tier(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let near = view(&near_cache(&server.cache("c"), &format!("{LONG}\nwait = \"10m\"")).await);
    assert_eq!(commands_of_a_wait(&server, near).await, [2, 2, 2, 2]);
    let config = Config::from_toml(&format!("{}timeout = \"20s\"\nwait = \"10m\"", server.cache("c"))).unwrap();
    let far = view(&connect_cache("c", &config.caches["c"]).await.unwrap());
    assert_eq!(commands_of_a_wait(&server, far).await, [2, 0, 0, 0]);
}

async fn an_idle_connection_sends_four_pings_within_max_staleness(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let cache = view(&near_cache(&server.cache("c"), "timeout = \"20s\"").await);
    let interval = MAX_STALENESS / 4;
    for (connections, is_bulk_open) in [(1, false), (2, true)] {
        if is_bulk_open {
            // A large batch opens the bulk connection.
            let keys: Vec<String> = (0..64).map(|n| format!("k{n}")).collect();
            cache.get_many(&keys).await.unwrap();
        }
        let begun = Instant::now();
        let before = calls(&server, "ping");
        let sent = async {
            loop {
                match calls(&server, "ping") - before {
                    sent if sent >= 8 => return u32::try_from(sent).unwrap(),
                    _ => tokio::time::sleep(StdDuration::from_millis(10)).await,
                }
            }
        };
        let sent = within(sent).await;
        // One more for each connection than there are intervals in between.
        let least = interval * (sent - connections) / connections;
        assert!(begun.elapsed() >= least, "{sent} pings within {:?}", begun.elapsed());
    }
}
