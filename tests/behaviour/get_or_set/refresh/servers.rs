//! Refreshes across the processes that share a server, and beside other programs.

use larder_host::cache::{CacheError, Freshness};

use super::{MINUTE, ask, end, next_refresh, refresh, stale, store, store_again};
use crate::backends::{Backend, over_every_server, view, within};
use crate::get_or_set::lose;

over_every_server! {
    one_caller_of_all_processes_refreshes,
    a_refresh_whose_process_died_passes_on_when_its_lease_lapses,
    another_program_beats_a_refresh,
    a_server_that_is_lost_is_an_outage_for_a_refresh,
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

mod near {
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
