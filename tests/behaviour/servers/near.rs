//! The near tier: values of a server in the memory of the process, and when they go.
//!
//! The facts are the ways in which such tiers fail elsewhere. `docs/near.md` has the promises, P1 to P6.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration as StdDuration, Instant};

use larder_host::cache::{Cache, CacheError, Duration, ScopedCache};
use larder_host::{Config, connect_cache};
use larder_tests::{Fault, Kind, Relay, Server};

use crate::backends::{bytes, over_every_kind_and_valkey_9, put, view, within};

over_every_kind_and_valkey_9! {
    a_near_hit_sends_no_command,
    a_change_by_anyone_removes_what_is_near,
    a_write_that_returned_is_read_by_every_later_call,
    a_silent_connection_serves_nothing_older_than_max_staleness,
    what_was_read_over_a_lost_connection_is_not_served,
    a_value_is_not_served_after_its_expiry,
    a_server_with_a_full_tracking_table_is_no_less_coherent,
    a_caller_that_is_stopped_leaves_nothing_behind,
    an_error_is_not_kept,
    values_over_the_limit_stay_on_the_server,
    writes_in_the_configured_database_are_seen,
    a_batch_returns_the_values_in_the_order_of_its_keys,
    get_or_set_is_answered_near_and_never_with_a_lease,
    concurrent_misses_are_one_read,
    readers_never_go_back_while_others_write,
}

pub(super) const MAX_STALENESS: StdDuration = StdDuration::from_millis(400);

/// A cache with a near tier, with more keys of its table.
pub(super) async fn near_cache(toml: &str, more: &str) -> Arc<Cache> {
    let near = format!("near = {{ max_staleness = \"{}ms\" }}", MAX_STALENESS.as_millis());
    let near = if more.contains("near =") { "" } else { &near };
    let config = Config::from_toml(&format!("{toml}{near}\n{more}\n")).unwrap();
    connect_cache("c", &config.caches["c"]).await.unwrap()
}

pub(super) struct Setup {
    pub(super) server: Server,
    pub(super) cache: ScopedCache,
}

impl Setup {
    async fn new(kind: Kind, more: &str) -> Option<Self> {
        Self::with(kind, &[], more).await
    }

    async fn with(kind: Kind, arguments: &[&str], more: &str) -> Option<Self> {
        let server = Server::start_with(kind, arguments)?;
        let patience = if more.contains("timeout") { "" } else { "timeout = \"20s\"\n" };
        let cache = view(&near_cache(&server.cache("c"), &format!("{patience}{more}")).await);
        Some(Self { server, cache })
    }

    /// Runs a command of another program.
    pub(super) fn run(&self, command: &[&str]) {
        ::redis::cmd(command[0]).arg(&command[1..]).exec(&mut self.server.client()).unwrap();
    }

    /// How many reads of values the server has executed.
    fn reads(&self) -> u64 {
        reads(&self.server)
    }

    pub(super) async fn get(&self, key: &str) -> Option<String> {
        get(&self.cache, key).await
    }

    /// Asserts that no call which begins `max_staleness` after the write, or later, returns another value.
    pub(super) async fn assert_seen(&self, key: &str, expected: Option<&str>, written: Instant) {
        loop {
            let begun = Instant::now();
            let found = self.get(key).await;
            if found.as_deref() == expected {
                return;
            }
            assert!(begun < written + MAX_STALENESS, "{found:?} was served {:?} after the write", begun - written);
        }
    }

    /// Reads a key until it is near: a hit sends no read.
    pub(super) async fn bring_near(&self, key: &str) {
        let is_near = async {
            loop {
                self.cache.get(key).await.unwrap();
                let before = self.reads();
                self.cache.get(key).await.unwrap();
                if self.reads() == before {
                    return;
                }
            }
        };
        within(is_near).await;
    }
}

pub(super) async fn get(cache: &ScopedCache, key: &str) -> Option<String> {
    // A hit does not wait, so the connection would get no turn.
    tokio::task::yield_now().await;
    let value = cache.get(key).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

pub(super) fn reads(server: &Server) -> u64 {
    calls(server, "get") + calls(server, "mget")
}

/// How often the server has executed a command.
pub(super) fn calls(server: &Server, name: &str) -> u64 {
    let stats: String = ::redis::cmd("INFO").arg("commandstats").query(&mut server.client()).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

async fn a_near_hit_sends_no_command(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    setup.run(&["SET", "cache:k", "v"]);
    setup.bring_near("k").await;
    let before = setup.reads();
    // As many as fit into the staleness that one answer to a ping allows.
    for _ in 0..100 {
        assert_eq!(setup.get("k").await.as_deref(), Some("v"));
    }
    assert!(setup.reads() <= before + 1, "{} reads", setup.reads() - before);
}

async fn a_change_by_anyone_removes_what_is_near(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    let changes: [(&[&str], Option<&str>); 9] = [
        (&["SET", "cache:k", "new"], Some("new")),
        (&["APPEND", "cache:k", "!"], Some("old!")),
        (&["DEL", "cache:k"], None),
        (&["UNLINK", "cache:k", "cache:other"], None),
        (&["PEXPIRE", "cache:k", "1"], None),
        (&["RENAME", "cache:k", "cache:other"], None),
        (&["EVAL", "return redis.call('SET', KEYS[1], 'new')", "1", "cache:k"], Some("new")),
        (&["FLUSHDB"], None),
        (&["FLUSHALL"], None),
    ];
    for (change, expected) in changes {
        setup.run(&["SET", "cache:k", "old"]);
        within(async { while setup.get("k").await.as_deref() != Some("old") {} }).await;
        setup.bring_near("k").await;
        setup.run(change);
        setup.assert_seen("k", expected, Instant::now()).await;
    }
}

async fn a_write_that_returned_is_read_by_every_later_call(kind: Kind) {
    for connections in [1, 4] {
        let Some(setup) = Setup::new(kind, &format!("connections = {connections}")).await else { return };
        for n in 0..200 {
            let (key, value) = (format!("k{}", n % 7), n.to_string());
            setup.cache.set(&key, bytes(&value), Duration::Default).await.unwrap();
            assert_eq!(setup.get(&key).await, Some(value));
            assert!(setup.cache.clear(&key).await.unwrap());
            assert_eq!(setup.get(&key).await, None);
        }
        put(&setup.cache, &["a", "b", "c"]).await;
        for key in ["a", "b", "c"] {
            setup.bring_near(key).await;
        }
        assert_eq!(setup.cache.clear_pattern("[ab]").await.unwrap(), 2);
        assert_eq!((setup.get("a").await, setup.get("b").await), (None, None));
        assert_eq!(setup.get("c").await.as_deref(), Some("c"));
        assert_eq!(setup.cache.clear_all().await.unwrap(), 1);
        assert_eq!(setup.get("c").await, None);
    }
}

async fn a_silent_connection_serves_nothing_older_than_max_staleness(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let relay = Relay::to(server.port());
    let toml = server.cache("c").replace(&format!("port = {}", server.port()), &format!("port = {}", relay.port()));
    let cache = view(&near_cache(&toml, "timeout = \"2s\"\non_outage = \"error\"").await);
    let mut client = server.client();
    ::redis::cmd("SET").arg("cache:k").arg("old").exec(&mut client).unwrap();
    assert_eq!(get(&cache, "k").await.as_deref(), Some("old"));
    relay.set_fault(Fault::Blackhole);
    ::redis::cmd("SET").arg("cache:k").arg("new").exec(&mut client).unwrap();
    let written = Instant::now();
    loop {
        let begun = Instant::now();
        match cache.get("k").await {
            Ok(Some(value)) => {
                assert_eq!(value, bytes("old"));
                assert!(begun < written + MAX_STALENESS, "served {:?} after the write", begun - written);
            }
            Err(CacheError::Timeout(_) | CacheError::Unavailable(_) | CacheError::Lost(_)) => break,
            other => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    relay.set_fault(Fault::None);
    let recovers = async {
        loop {
            match cache.get("k").await {
                Ok(found) => return assert_eq!(found, Some(bytes("new"))),
                Err(_) => tokio::time::sleep(StdDuration::from_millis(5)).await,
            }
        }
    };
    within(recovers).await;
}

async fn what_was_read_over_a_lost_connection_is_not_served(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    for n in 0..20 {
        let (old, new) = (format!("old{n}"), format!("new{n}"));
        setup.run(&["SET", "cache:k", &old]);
        within(async { while setup.get("k").await.as_deref() != Some(&*old) {} }).await;
        // The transaction keeps others out between the loss and the write, whose announcement the host does not get.
        let mut client = setup.server.client();
        let mut lose = ::redis::pipe();
        lose.cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).ignore();
        lose.cmd("SET").arg("cache:k").arg(&*new).ignore();
        lose.exec(&mut client).unwrap();
        let written = Instant::now();
        loop {
            let begun = Instant::now();
            match setup.cache.get("k").await.unwrap() {
                Some(found) if found == bytes(&old) => {
                    assert!(begun < written + MAX_STALENESS, "served {:?} after the write", begun - written);
                }
                Some(found) => break assert_eq!(found, bytes(&new)),
                // An outage is a miss.
                None => tokio::task::yield_now().await,
            }
        }
    }
}

async fn a_value_is_not_served_after_its_expiry(kind: Kind) {
    let Some(setup) = Setup::with(kind, &["--enable-debug-command", "local"], "").await else { return };
    let mut client = setup.server.client();
    let now = |client: &mut ::redis::Connection| {
        let (seconds, micros): (i64, i64) = ::redis::cmd("TIME").query(client).unwrap();
        seconds * 1000 + micros / 1000
    };
    // Otherwise the server finds expired keys by itself, and announces them.
    setup.run(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    for _ in 0..5 {
        setup.run(&["SET", "cache:k", "v", "PX", "150"]);
        let expires: i64 = ::redis::cmd("PEXPIRETIME").arg("cache:k").query(&mut client).unwrap();
        loop {
            let before = now(&mut client);
            let found = setup.get("k").await;
            if found.is_none() {
                break;
            }
            assert!(before <= expires, "served {} ms after its expiry", before - expires);
        }
        assert!(now(&mut client) >= expires);
    }
}

async fn a_server_with_a_full_tracking_table_is_no_less_coherent(kind: Kind) {
    let Some(setup) = Setup::with(kind, &["--tracking-table-max-keys", "5"], "").await else { return };
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    for key in &keys {
        setup.run(&["SET", &format!("cache:{key}"), "old"]);
        assert_eq!(setup.get(key).await.as_deref(), Some("old"));
    }
    for key in &keys {
        setup.run(&["SET", &format!("cache:{key}"), "new"]);
    }
    let written = Instant::now();
    for key in &keys {
        setup.assert_seen(key, Some("new"), written).await;
    }
}

async fn a_caller_that_is_stopped_leaves_nothing_behind(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    setup.run(&["SET", "cache:k", "v"]);
    let cache = setup.cache.clone();
    let frozen = setup.server.freeze_until_drop();
    let first = tokio::spawn(async move { cache.get("k").await });
    let cache = setup.cache.clone();
    let second = tokio::spawn(async move { cache.get("k").await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Whichever of them fetches, the other one waits for it.
    first.abort();
    assert!(first.await.is_err());
    drop(frozen);
    assert_eq!(within(second).await.unwrap().unwrap(), Some(bytes("v")));
    setup.bring_near("k").await;
    assert_eq!(setup.get("k").await.as_deref(), Some("v"));
}

async fn an_error_is_not_kept(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    setup.run(&["LPUSH", "cache:k", "element"]);
    for _ in 0..3 {
        assert!(matches!(setup.cache.get("k").await, Err(CacheError::WrongType)));
    }
    setup.run(&["SET", "cache:k", "v"]);
    assert_eq!(setup.get("k").await.as_deref(), Some("v"));
}

async fn values_over_the_limit_stay_on_the_server(kind: Kind) {
    let near = format!("near = {{ max_staleness = \"{}ms\", max_value_bytes = \"10B\" }}", MAX_STALENESS.as_millis());
    let Some(setup) = Setup::new(kind, &near).await else { return };
    setup.run(&["SET", "cache:short", "0123456789"]);
    setup.run(&["SET", "cache:long", "0123456789+"]);
    setup.bring_near("short").await;
    for n in 1..=10 {
        let before = setup.reads();
        assert!(setup.get("long").await.is_some());
        assert_eq!(setup.reads(), before + 1, "read {n}");
    }
}

async fn writes_in_the_configured_database_are_seen(kind: Kind) {
    let Some(setup) = Setup::new(kind, "db = 3").await else { return };
    let mut client = setup.server.client_of_db(3);
    for n in 0..20 {
        ::redis::cmd("SET").arg("cache:k").arg(n).exec(&mut client).unwrap();
        setup.assert_seen("k", Some(&n.to_string()), Instant::now()).await;
        // It has the same name, and is another key.
        setup.run(&["SET", "cache:k", "other"]);
        assert_eq!(setup.get("k").await, Some(n.to_string()));
    }
}

async fn a_batch_returns_the_values_in_the_order_of_its_keys(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    put(&setup.cache, &["a", "b", "c"]).await;
    let expected = vec![Some(bytes("a")), None, Some(bytes("b")), Some(bytes("a")), Some(bytes("c"))];
    let keys = ["a", "none", "b", "a", "c"];
    for _ in 0..3 {
        assert_eq!(setup.cache.get_many(&keys).await.unwrap(), expected);
    }
    setup.bring_near("a").await;
    setup.run(&["SET", "cache:b", "b2"]);
    within(async { while setup.cache.get_many(&["a", "b"]).await.unwrap()[1] != Some(bytes("b2")) {} }).await;
    setup.bring_near("a").await;
    setup.bring_near("b").await;
    let before = setup.reads();
    assert_eq!(setup.cache.get_many(&["b", "a"]).await.unwrap(), [Some(bytes("b2")), Some(bytes("a"))]);
    assert_eq!(setup.reads(), before);
}

async fn get_or_set_is_answered_near_and_never_with_a_lease(kind: Kind) {
    use larder_host::cache::Entry;
    let Some(setup) = Setup::new(kind, "").await else { return };
    let Entry::Vacant(vacancy) = setup.cache.get_or_set("k").await.unwrap() else { panic!("the key has no value") };
    for _ in 0..5 {
        assert_eq!(setup.get("k").await, None);
        assert_eq!(setup.cache.get_many(&["k"]).await.unwrap(), [None]);
    }
    assert!(setup.cache.fill(vacancy, bytes("v"), Duration::Default).await.unwrap());
    let occupied = async || matches!(setup.cache.get_or_set("k").await.unwrap(), Entry::Occupied(v) if v == bytes("v"));
    assert!(occupied().await);
    setup.bring_near("k").await;
    let before = setup.reads();
    assert!(occupied().await);
    assert_eq!(setup.reads(), before);
    // A clear by another program ends what is near, and the computation that follows is fenced on the server.
    setup.run(&["DEL", "cache:k"]);
    let vacancy = within(async {
        loop {
            if let Entry::Vacant(vacancy) = setup.cache.get_or_set("k").await.unwrap() {
                break vacancy;
            }
        }
    });
    let vacancy = vacancy.await;
    setup.run(&["SET", "cache:k", "other"]);
    assert!(!setup.cache.fill(vacancy, bytes("late"), Duration::Default).await.unwrap());
    assert_eq!(setup.get("k").await.as_deref(), Some("other"));
}

async fn concurrent_misses_are_one_read(kind: Kind) {
    let Some(setup) = Setup::new(kind, "").await else { return };
    setup.run(&["SET", "cache:k", "v"]);
    let before = setup.reads();
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let cache = setup.cache.clone();
            tokio::spawn(async move { cache.get("k").await.unwrap() })
        })
        .collect();
    for reader in readers {
        assert_eq!(within(reader).await.unwrap(), Some(bytes("v")));
    }
    assert_eq!(setup.reads(), before + 1);
}

/// Versions of a key are written by another program and by the process itself, while its tasks read, its connections are
/// lost and all keys are removed.
async fn readers_never_go_back_while_others_write(kind: Kind) {
    let Some(setup) = Setup::new(kind, "connections = 2").await else { return };
    // Writers take turns, so that the order of the versions is that of the server.
    let next = Arc::new(tokio::sync::Mutex::new(0_u64));
    let newest = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (cache, newest, is_over) = (setup.cache.clone(), Arc::clone(&newest), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut hits = 0_u64;
                while !is_over.load(Ordering::SeqCst) {
                    let floor = newest.load(Ordering::SeqCst);
                    let found = if reader == 0 {
                        cache.get_many(&["k"]).await.unwrap().remove(0)
                    } else {
                        cache.get("k").await.unwrap()
                    };
                    if let Some(found) = found {
                        let version: u64 = std::str::from_utf8(&found).unwrap().parse().unwrap();
                        assert!(version >= floor, "version {version} was read after {floor}");
                        newest.fetch_max(version, Ordering::SeqCst);
                        hits += 1;
                    }
                    tokio::task::yield_now().await;
                }
                hits
            })
        })
        .collect();
    let own = {
        let (cache, next, newest) = (setup.cache.clone(), Arc::clone(&next), Arc::clone(&newest));
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let mut next = next.lock().await;
                *next += 1;
                if cache.set("k", bytes(&next.to_string()), Duration::Default).await.is_ok() {
                    newest.fetch_max(*next, Ordering::SeqCst);
                }
                drop(next);
                tokio::time::sleep(StdDuration::from_millis(3)).await;
            }
        })
    };
    for n in 0..300 {
        let mut next = next.lock().await;
        *next += 1;
        setup.run(&["SET", "cache:k", &next.to_string()]);
        drop(next);
        match n % 60 {
            20 => setup.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
            40 => setup.run(&["FLUSHALL"]),
            _ => {}
        }
        tokio::time::sleep(StdDuration::from_millis(2)).await;
    }
    is_over.store(true, Ordering::SeqCst);
    within(own).await.unwrap();
    for reader in readers {
        assert!(within(reader).await.unwrap() > 0);
    }
}
