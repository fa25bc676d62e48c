//! Clusters: keys on several nodes, slots that move, and primaries that fail.
//!
//! - `failover`: what calls return while a replica takes over from its primary, and that all keys work afterwards.
//! - `near`: the near tier in front of a cluster: failovers, and primaries that do not know that they were replaced.
//! - `near_outage`: what was near is served stale while nodes are away.
//! - `near_reports`: the near tier where other programs served stale values.
//! - `near_slots`: the near tier in front of a cluster whose slots move.
//! - `secured`: clusters with passwords, users with restricted rights, and TLS.
//! - `start`: which node addresses in the configuration are accepted.
//! - `steady`: keys, batches, clears and get-or-set across nodes and in slots that move.
//!
//! Six servers take seconds to form a cluster, so the tests of a file share one of each kind. In `steady` each test has
//! a prefix of its own, and moves a slot of its own. In `failover`, `near`, `near_slots` and `secured` the tests of a
//! cluster run one after the other; each of `near_outage` and `near_reports` has its own. Those of `secured` share the one
//! prefix that the restricted user may access, and leave no keys behind.

mod failover;
mod near;
mod near_outage;
mod near_reports;
mod near_slots;
mod secured;
mod start;
mod steady;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use larder_host::cache::{Cache, Duration, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Cluster, Larder, LarderProcess, wait_for};

use crate::backends::bytes;

/// A value that tests share while at least one of them runs. The last test drops it, which ends its processes; those of
/// a static would outlive the tests.
struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// Returns the value that other tests use at the moment, or else a new one.
    fn get(&self, start: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = shared.upgrade() {
            return Some(used);
        }
        let started = Arc::new(start()?);
        *shared = Arc::downgrade(&started);
        Some(started)
    }
}

/// The keys of one test on a cluster that it shares.
struct Keys<'a> {
    cluster: &'a Cluster,
    prefix: &'static str,
    /// More lines for the cache's table.
    options: &'a str,
}

impl Keys<'_> {
    fn toml(&self, options: &str) -> String {
        format!("{}prefix = \"{}:\"\n{}{options}", self.cluster.cache("c"), self.prefix, self.options)
    }

    async fn cache(&self) -> Arc<Cache> {
        let config = Config::from_toml(&self.toml("timeout = \"20s\"\n")).unwrap();
        connect_cache("c", &config.caches["c"]).await.unwrap()
    }

    /// Starts a plugin whose values name their keys.
    fn session(&self, options: &str) -> LarderProcess {
        let sandbox = "[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n";
        Larder::run("session").config(&(self.toml(options) + sandbox)).start()
    }

    /// The key on the server.
    fn physical(&self, key: &str) -> String {
        format!("{}:{key}", self.prefix)
    }

    /// A slot of the first primary, and keys in it.
    fn in_one_slot(&self, count: usize) -> (u16, Vec<String>) {
        let tags = (0..).map(|n| format!("{{{}{n}}}", self.prefix));
        let mut slots = tags.map(|tag| (self.cluster.slot(&tag), tag));
        let (slot, tag) = slots.find(|(slot, _)| self.cluster.initial_owner(*slot) == 0).expect("tags do not end");
        (slot, (0..count).map(|n| format!("{tag}{n}")).collect())
    }

    /// Sets each key to its own name.
    async fn set_all(&self, cache: &ScopedCache, keys: &[String]) {
        for key in keys {
            let set = cache.set(key, bytes(key), Duration::Default).await;
            assert_eq!(set, Ok(()), "{key}: {}", self.cluster.cluster_nodes());
        }
    }
}

/// Asserts that each key has its own name as its value, one by one and in a batch.
async fn assert_present(cache: &ScopedCache, keys: &[String]) {
    for key in keys {
        assert_eq!(cache.get(key).await, Ok(Some(bytes(key))), "{key}");
    }
    let found = cache.get_many(keys).await.unwrap();
    assert_eq!(found, keys.iter().map(|key| Some(bytes(key))).collect::<Vec<_>>());
}

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

/// The calls of a plugin until all of them succeed.
#[derive(Debug, Default)]
struct Recovery {
    calls: usize,
    failed: usize,
    /// From the first call to the answer of the last one that failed.
    until: std::time::Duration,
    longest: std::time::Duration,
}

/// Sets and gets keys in all slots, and clears none of them, until all of these calls succeed. A value that is read is
/// correct, or is missing because the replica had not received it. A clear needs all primaries, so it may fail for
/// longer than calls of one key.
fn call_until_all_succeed(session: &mut LarderProcess) -> Recovery {
    let mut recovery = Recovery::default();
    let began = Instant::now();
    wait_for("all keys to work again", || {
        let before = recovery.failed;
        let mut call = |operation: &str, outcomes: &[&str]| {
            let called = Instant::now();
            let answer = ask(session, operation);
            recovery.calls += 1;
            recovery.longest = recovery.longest.max(called.elapsed());
            if ["error Timeout", "error Unavailable"].contains(&answer.as_str()) {
                recovery.failed += 1;
                recovery.until = began.elapsed();
            } else {
                assert!(outcomes.contains(&answer.as_str()), "{operation}: {answer}");
            }
        };
        for n in 0..24 {
            let (get, hit) = (format!("get key{n}"), format!("hit value{n}"));
            call(&get, &["miss", &hit]);
            call(&format!("set key{n} value{n}"), &["ok"]);
            call(&get, &["miss", &hit]);
        }
        call("clear-pattern none*", &["0"]);
        (recovery.failed == before).then_some(())
    });
    recovery
}

fn assert_no_call_fails(session: &mut LarderProcess) {
    let recovery = call_until_all_succeed(session);
    assert_eq!(recovery.failed, 0, "{recovery:?}");
}

/// Asserts that an agreed failover of the last primary loses none of the keys that a plugin has set.
fn assert_a_failover_keeps_all_keys(keys: &Keys<'_>) {
    let mut session = keys.session("on_outage = \"error\"\n");
    assert_no_call_fails(&mut session);
    keys.cluster.fail_over(2);
    call_until_all_succeed(&mut session);
    for n in 0..24 {
        // On a busy machine the nodes may take each other for failed for a moment.
        let answer = wait_for("the cluster to answer", || {
            let answer = ask(&mut session, &format!("get key{n}"));
            (answer != "error Unavailable" && answer != "error Timeout").then_some(answer)
        });
        assert_eq!(answer, format!("hit value{n}"));
    }
    assert_eq!(ask(&mut session, "clear-all"), "24");
    session.succeed();
}
