//! Refreshes across the processes that share a server, and beside other programs.

use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Cache, CacheError, Freshness, ScopedCache};
use larder_tests::Kind;

use super::{MINUTE, ask, end, next_refresh, refresh, stale, store, store_again};
use crate::backends::{Backend, over_a_near_tier, over_every_server, view, within};
use crate::get_or_set::lose;

over_every_server! {
    one_caller_of_all_processes_refreshes,
    a_refresh_whose_process_died_passes_on_when_its_lease_lapses,
    a_refresh_whose_lease_is_lost_passes_on_in_its_own_process_too,
    another_program_beats_a_refresh,
    a_failed_refresh_is_not_tried_by_another_process_during_the_pause,
    a_server_that_is_lost_is_an_outage_for_a_refresh,
    without_the_right_to_scripts_a_refresh_is_refused_and_the_stale_value_stays,
}

over_a_near_tier! {
    one_caller_of_all_processes_refreshes,
    a_refresh_whose_process_died_passes_on_when_its_lease_lapses,
    a_refresh_whose_lease_is_lost_passes_on_in_its_own_process_too,
    another_program_beats_a_refresh,
    a_failed_refresh_is_not_tried_by_another_process_during_the_pause,
}

async fn one_caller_of_all_processes_refreshes(backend: Backend) {
    let (here, there) = (backend.view().await, backend.view().await);
    store(&here, "k", "old").await;
    let held = refresh(&here, "k").await;
    assert_eq!(stale(&there, "k").await, "old");
    assert_eq!(end(&here, held, "new").await, Ok(true));
    let next = next_refresh(&there, "k").await;
    assert_eq!(stale(&here, "k").await, "new");
    assert_eq!(end(&there, next, "newer").await, Ok(true));
}

async fn a_refresh_whose_process_died_passes_on_when_its_lease_lapses(backend: Backend) {
    let lease = "lease = \"300ms\"";
    let there = view(&backend.cache(lease).await);
    store(&there, "k", "old").await;
    let (backend, held) = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = runtime.block_on(async { refresh(&view(&backend.cache(lease).await), "k").await });
        // What renews and releases ends with the runtime, as with a process.
        runtime.shutdown_background();
        (backend, held)
    })
    .join()
    .unwrap();
    let next = next_refresh(&there, "k").await;
    assert_eq!(end(&there, next, "new").await, Ok(true));
    std::mem::forget(held);
    drop(backend);
}

/// The server may have evicted it, or was unreachable until it lapsed.
async fn a_refresh_whose_lease_is_lost_passes_on_in_its_own_process_too(mut backend: Backend) {
    let cache = backend.cache("lease = \"300ms\"").await;
    let (one, two) = (view(&cache), view(&cache));
    store(&one, "k", "old").await;
    let first = refresh(&one, "k").await;
    let removed: u64 =
        ::redis::cmd("DEL").arg("cache:\u{1f}refresh\u{1f}k").query(&mut backend.behind().client()).unwrap();
    assert_eq!(removed, 1);
    let next = next_refresh(&two, "k").await;
    assert_eq!(end(&two, next, "new").await, Ok(true));
    assert_eq!(end(&one, first, "late").await, Ok(false));
}

async fn another_program_beats_a_refresh(mut backend: Backend) {
    let cache = backend.view().await;
    for commands in [
        vec![vec!["SET", "cache:k", "old"]],
        vec![vec!["SET", "cache:k", "old", "PX", "60000"]],
        vec![vec!["PEXPIRE", "cache:k", "50000"]],
        vec![vec!["DEL", "cache:k"], vec!["LPUSH", "cache:k", "old"]],
        vec![vec!["FLUSHALL"]],
    ] {
        store_again(&cache, "k", "old").await;
        let refresh = next_refresh(&cache, "k").await;
        let mut client = backend.behind().client();
        for command in &commands {
            let mut sent = ::redis::cmd(command[0]);
            sent.arg(&command[1..]).exec(&mut client).unwrap();
        }
        assert_eq!(end(&cache, refresh, "computed").await, Ok(false), "{commands:?}");
        let kind: String = ::redis::cmd("TYPE").arg("cache:k").query(&mut client).unwrap();
        if kind == "string" {
            let stored: String = ::redis::cmd("GET").arg("cache:k").query(&mut client).unwrap();
            assert_eq!(stored, "old", "{commands:?}");
        }
        let _: () = ::redis::cmd("DEL").arg("cache:k").query(&mut client).unwrap();
    }
}

async fn a_failed_refresh_is_not_tried_by_another_process_during_the_pause(backend: Backend) {
    let (here, there) = (backend.view().await, backend.view().await);
    store(&here, "k", "old").await;
    let failed = refresh(&here, "k").await;
    let begun = Instant::now();
    drop(failed);
    let next = next_refresh(&there, "k").await;
    // The host counts the pause in whole milliseconds.
    assert!(begun.elapsed() >= StdDuration::from_millis(999), "after {:?}", begun.elapsed());
    assert_eq!(end(&there, next, "new").await, Ok(true));
}

/// Without `SET … IFEQ` a server is not connected to by a user who lacks it from the start.
async fn without_the_right_to_scripts_a_refresh_is_refused_and_the_stale_value_stays(mut backend: Backend) {
    let mut client = backend.behind().client();
    let user = ["SETUSER", "u", "on", ">p", "~*", "&*", "+@all"];
    ::redis::cmd("ACL").arg(&user).exec(&mut client).unwrap();
    let cache = backend.cache("username = \"u\"\npassword = \"p\"").await;
    let plugin = view(&cache);
    plugin.set("k", "old".into(), MINUTE).await.unwrap();
    ::redis::cmd("ACL").arg(&["SETUSER", "u", "-eval"]).exec(&mut client).unwrap();
    let refresh = refresh(&plugin, "k").await;
    let outcome = end(&plugin, refresh, "computed").await;
    assert!(matches!(outcome, Err(CacheError::Refused(_))), "{outcome:?}");
    assert_eq!(stale(&plugin, "k").await, "old");
    assert_eq!(cache.refresh_stats().failed, 1);
}

async fn a_server_that_is_lost_is_an_outage_for_a_refresh(mut backend: Backend) {
    let cache = backend.cache("").await;
    let plugin = view(&cache);
    store(&plugin, "k", "old").await;
    let refresh = refresh(&plugin, "k").await;
    lose(&mut backend, &cache).await;
    let outcome = end(&plugin, refresh, "computed").await;
    assert!(outcome.as_ref().is_err_and(CacheError::is_outage), "{outcome:?}");
    assert!(matches!(ask(&plugin, "k").await, Freshness::Vacant(_)), "an outage is a miss");
}

mod during_an_outage {
    use super::*;

    /// What is near when the connection is lost is the last value that is known, for those who accept a stale one.
    #[tokio::test]
    async fn a_value_that_was_near_is_served_stale_during_an_outage() {
        let Some(mut backend) = Backend::near() else { return };
        let cache = backend.cache("").await;
        let plugin = view(&cache);
        for key in ["k", "cleared"] {
            store(&plugin, key, "old").await;
            assert_eq!(plugin.get(key).await.unwrap(), Some("old".into()));
        }
        lose(&mut backend, &cache).await;
        assert_eq!(plugin.get("k").await.unwrap(), None, "a plain read is a miss");
        assert_eq!(stale(&plugin, "k").await, "old");
        assert!(plugin.clear("cleared").await.is_err());
        assert!(matches!(ask(&plugin, "cleared").await, Freshness::Vacant(_)), "the clear is not forgotten");
    }

    /// Keys whose values were near when the server was lost.
    async fn near_in_an_outage(more: &str, keys: &[&str]) -> Option<(Backend, Arc<Cache>, ScopedCache)> {
        let mut backend = Backend::near()?;
        let cache = backend.cache(more).await;
        let plugin = view(&cache);
        for key in keys {
            store(&plugin, key, "old").await;
            assert_eq!(plugin.get(key).await.unwrap(), Some("old".into()));
        }
        lose(&mut backend, &cache).await;
        Some((backend, cache, plugin))
    }

    #[tokio::test]
    async fn a_clear_by_pattern_and_of_all_removes_what_was_near() {
        let Some((_backend, _cache, plugin)) = near_in_an_outage("", &["a1", "a2", "b"]).await else { return };
        assert!(plugin.clear_pattern("a*").await.is_err());
        for cleared in ["a1", "a2"] {
            assert!(matches!(ask(&plugin, cleared).await, Freshness::Vacant(_)), "{cleared}");
        }
        assert_eq!(stale(&plugin, "b").await, "old");
        assert!(plugin.clear_all().await.is_err());
        assert!(matches!(ask(&plugin, "b").await, Freshness::Vacant(_)));
    }

    #[tokio::test]
    async fn what_was_near_is_served_stale_also_where_an_outage_is_an_error() {
        let outage = near_in_an_outage("on_outage = \"error\"\n", &["k"]).await;
        let Some((_backend, _cache, plugin)) = outage else { return };
        assert!(plugin.get("k").await.is_err_and(|error| error.is_outage()));
        assert_eq!(stale(&plugin, "k").await, "old");
        let missing = within(plugin.get_or_refresh("other", MINUTE)).await;
        assert!(missing.is_err_and(|error| error.is_outage()));
    }

    /// Its connection stays open, and nothing arrives over it.
    #[tokio::test]
    async fn what_was_near_is_served_stale_while_the_server_is_silent() {
        let Some(mut backend) = Backend::server(Kind::Valkey) else { return };
        // The lease would lapse otherwise, if the machine is busy.
        let near = "near = { max_staleness = \"100ms\" }\ntimeout = \"500ms\"\nlease = \"1m\"\n";
        let plugin = view(&backend.cache(near).await);
        store(&plugin, "k", "old").await;
        assert_eq!(within(plugin.get("k")).await.unwrap(), Some("old".into()));
        let _silent = backend.behind().freeze_until_drop();
        // When the last answer is too old, a plain read is a miss.
        within(async { while plugin.get("k").await.unwrap().is_some() {} }).await;
        assert_eq!(stale(&plugin, "k").await, "old");
    }

    #[tokio::test]
    async fn concurrent_misses_are_one_read_and_keep_the_value_near() {
        let Some(mut backend) = Backend::near() else { return };
        let cache = backend.cache("").await;
        store(&view(&cache), "k", "v").await;
        let mut client = backend.behind().client();
        let mut reads = || {
            let stats: String = ::redis::cmd("INFO").arg("commandstats").query(&mut client).unwrap();
            let calls = stats.split("cmdstat_get:calls=").nth(1).and_then(|rest| rest.split(',').next());
            calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
        };
        let before = reads();
        for _round in 0..2 {
            let callers = (0..8).map(|_| {
                let caller = view(&cache);
                tokio::spawn(async move { within(caller.get_or_refresh("k", MINUTE)).await.unwrap() })
            });
            for found in callers.collect::<Vec<_>>() {
                assert!(matches!(found.await.unwrap(), Freshness::Fresh(value) if value == "v"));
            }
        }
        assert_eq!(reads() - before, 1);
    }
}
