//! The near tier on the primary that sentinels name: in a failover, after it, and beside a primary that was replaced.
//!
//! `docs/near.md` says what holds then.

use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{CacheError, Duration, ScopedCache};
use larder_tests::{Kind, Sentinels, Server};

use super::near::{MAX_STALENESS, near_cache, reads};
use crate::backends::{bytes, over_every_kind, view, within};

over_every_kind! {
    after_a_failover_nothing_that_the_old_primary_held_is_served,
    a_frozen_primary_serves_nothing_older_than_max_staleness,
    a_primary_that_was_replaced_is_left_although_it_answers,
    an_old_primary_that_comes_back_is_not_trusted,
}

/// A deployment whose servers have a user for the cache.
async fn start(kind: Kind) -> Option<(Sentinels, ScopedCache)> {
    let watched = Sentinels::start(kind)?;
    for server in &watched.servers {
        run(server, &["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all"]);
    }
    let more = "username = \"u\"\npassword = \"p\"\ntimeout = \"1s\"\non_outage = \"error\"";
    let cache = view(&near_cache(&watched.cache("c"), more).await);
    Some((watched, cache))
}

fn run(server: &Server, command: &[&str]) {
    ::redis::cmd(command[0]).arg(&command[1..]).exec(&mut server.client()).unwrap();
}

/// Does something that blocks, beside the connections of the cache.
async fn beside(mut watched: Sentinels, blocks: impl FnOnce(&mut Sentinels) + Send + 'static) -> Sentinels {
    let done = tokio::task::spawn_blocking(move || {
        blocks(&mut watched);
        watched
    });
    done.await.unwrap()
}

/// The value, or `None` in an outage.
async fn get(cache: &ScopedCache) -> Option<String> {
    tokio::task::yield_now().await;
    match cache.get("k").await {
        Ok(value) => value.map(|value| String::from_utf8(value.to_vec()).unwrap()),
        Err(CacheError::Timeout(_) | CacheError::Unavailable(_) | CacheError::Lost(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Reads until the value is near: a hit sends no read to the server.
async fn bring_near(cache: &ScopedCache, server: &Server, value: &str) {
    let is_near = async {
        loop {
            let found = get(cache).await;
            let before = reads(server);
            if found.as_deref() == Some(value) && get(cache).await == found && reads(server) == before {
                return;
            }
            pause().await;
        }
    };
    within(is_near).await;
}

async fn pause() {
    tokio::time::sleep(StdDuration::from_millis(5)).await;
}

/// Reads until the old value is not served any more, and asserts that no call that begins `max_staleness` after this time
/// returns it.
async fn assert_gone(cache: &ScopedCache, since: Instant) {
    loop {
        let begun = Instant::now();
        if get(cache).await.as_deref() != Some("old") {
            return;
        }
        assert!(begun < since + MAX_STALENESS, "served {:?} after the end", begun - since);
    }
}

/// Reads until there is a value, which is the new one.
async fn assert_new(cache: &ScopedCache) {
    let found = async {
        loop {
            match get(cache).await {
                Some(found) => return assert_eq!(found, "new"),
                None => pause().await,
            }
        }
    };
    within(found).await;
}

async fn after_a_failover_nothing_that_the_old_primary_held_is_served(kind: Kind) {
    let Some((mut watched, cache)) = start(kind).await else { return };
    run(&watched.servers[0], &["SET", "cache:k", "old"]);
    bring_near(&cache, &watched.servers[0], "old").await;
    watched.servers[0].kill();
    assert_gone(&cache, Instant::now()).await;
    let watched = beside(watched, |watched| watched.wait_for_primary(1)).await;
    run(&watched.servers[1], &["SET", "cache:k", "new"]);
    assert_new(&cache).await;
    bring_near(&cache, &watched.servers[1], "new").await;
}

/// As when its machine hangs: the connection stays open.
async fn a_frozen_primary_serves_nothing_older_than_max_staleness(kind: Kind) {
    let Some((watched, cache)) = start(kind).await else { return };
    run(&watched.servers[0], &["SET", "cache:k", "old"]);
    bring_near(&cache, &watched.servers[0], "old").await;
    watched.servers[0].freeze();
    assert_gone(&cache, Instant::now()).await;
    let watched = beside(watched, |watched| watched.wait_for_primary(1)).await;
    run(&watched.servers[1], &["SET", "cache:k", "new"]);
    assert_new(&cache).await;
    watched.servers[0].thaw();
    bring_near(&cache, &watched.servers[1], "new").await;
    assert_new(&cache).await;
}

/// The sentinels cannot log in to it, so they replace it and cannot make it a replica. It answers everything, pings too, as
/// in a partition between it and the sentinels.
async fn a_primary_that_was_replaced_is_left_although_it_answers(kind: Kind) {
    let Some((watched, cache)) = start(kind).await else { return };
    run(&watched.servers[0], &["SET", "cache:k", "old"]);
    bring_near(&cache, &watched.servers[0], "old").await;
    // Connections that are logged in stay open.
    let mut old = watched.servers[0].client();
    ::redis::cmd("ACL").arg(&["SETUSER", "default", "off"]).exec(&mut old).unwrap();
    for client in clients(&mut old).lines().filter(|client| client.contains(" name=sentinel-")) {
        let id = client.split_whitespace().next().and_then(|id| id.strip_prefix("id=")).unwrap();
        ::redis::cmd("CLIENT").arg(&["KILL", "ID", id]).exec(&mut old).unwrap();
    }
    let watched = beside(watched, |watched| watched.wait_for_primary(1)).await;
    run(&watched.servers[1], &["SET", "cache:k", "new"]);
    let is_left = async {
        while get(&cache).await.as_deref() != Some("new") {
            pause().await;
        }
    };
    within(is_left).await;
    within(async {
        while clients(&mut old).contains(" user=u ") {
            pause().await
        }
    })
    .await;
    let stored: String = ::redis::cmd("GET").arg("cache:k").query(&mut old).unwrap();
    assert_eq!(stored, "old", "the old primary still answers");
    bring_near(&cache, &watched.servers[1], "new").await;
}

fn clients(client: &mut ::redis::Connection) -> String {
    ::redis::cmd("CLIENT").arg("LIST").query(client).unwrap()
}

/// It is a primary until the sentinels have made it a replica, which takes them seconds.
async fn an_old_primary_that_comes_back_is_not_trusted(kind: Kind) {
    let Some((watched, cache)) = start(kind).await else { return };
    let kill = |watched: &mut Sentinels| {
        watched.servers[0].kill();
        watched.wait_for_primary(1);
    };
    let watched = beside(watched, kill).await;
    run(&watched.servers[1], &["SET", "cache:k", "new"]);
    assert_new(&cache).await;
    let watched = beside(watched, |watched| watched.servers[0].restart()).await;
    run(&watched.servers[0], &["SET", "cache:k", "old"]);
    for _ in 0..5 {
        bring_near(&cache, &watched.servers[1], "new").await;
        run(&watched.servers[1], &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_new(&cache).await;
    }
    // The last loss may not be noticed yet.
    within(async {
        while cache.set("k", bytes("newer"), Duration::Default).await.is_err() {
            pause().await
        }
    })
    .await;
    let stored: String = ::redis::cmd("GET").arg("cache:k").query(&mut watched.servers[1].client()).unwrap();
    assert_eq!(stored, "newer");
}
