//! The caches that tests are repeated over: RAM, each server, and a cluster.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use bytes::Bytes;
use larder_host::cache::{Access, Cache, CacheError, Duration, Namespace, Owner, ScopedCache};
use larder_host::{Config, connect_cache, operator_view};
use larder_tests::{Cluster, Kind, Server, TEST_TIMEOUT};

/// Makes a test of each fact for RAM, Valkey, Redis, a Valkey with `SET … IFEQ` and a near tier in front of Valkey, and a
/// test of all facts for a cluster without and with a near tier. A fact is an async function that takes a [`Backend`].
///
/// Tests of RAM run with paused time, which advances when all tasks wait; a server has a clock of its own. A cluster
/// takes seconds to start, so one serves all facts. Its test prints their names, so that a failure has a name.
macro_rules! over_every_backend {
    ($($fact:ident),+ $(,)?) => {
        mod ram {
            $(
                #[tokio::test(start_paused = true)]
                async fn $fact() {
                    super::$fact($crate::backends::Backend::ram()).await;
                }
            )+
        }
        $crate::backends::over_every_server! { $($fact),+ }
        $crate::backends::over_a_near_tier! { $($fact),+ }
        mod cluster {
            #[tokio::test]
            async fn every_fact() {
                let Some(cluster) = larder_tests::Cluster::start(larder_tests::Kind::Valkey) else { return };
                let cluster = std::sync::Arc::new(cluster);
                for near in ["", "near = {}\n"] {
                    $(
                        eprintln!("{} {near}", stringify!($fact));
                        cluster.flush();
                        super::$fact($crate::backends::Backend::cluster(&cluster, near)).await;
                    )+
                }
            }
        }
    };
}

/// Makes a test of each fact for each server.
macro_rules! over_every_server {
    ($($fact:ident),+ $(,)?) => {
        $crate::backends::over_a_server! { valkey Valkey $($fact),+ }
        $crate::backends::over_a_server! { redis Redis $($fact),+ }
        $crate::backends::over_a_server! { new_valkey ValkeyWithIfeq $($fact),+ }
    };
}

macro_rules! over_a_server {
    ($name:ident $kind:ident $($fact:ident),+) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $fact() {
                    if let Some(backend) = $crate::backends::Backend::server(larder_tests::Kind::$kind) {
                        super::$fact(backend).await;
                    }
                }
            )+
        }
    };
}

/// Makes a test of each fact for a near tier in front of Valkey.
macro_rules! over_a_near_tier {
    ($($fact:ident),+ $(,)?) => {
        mod near {
            $(
                #[tokio::test]
                async fn $fact() {
                    if let Some(backend) = $crate::backends::Backend::near() {
                        super::$fact(backend).await;
                    }
                }
            )+
        }
    };
}

/// Makes a test of each fact for each kind of server. A fact is an async function that takes the kind.
macro_rules! over_every_kind {
    ($($(#[$attribute:meta])* $fact:ident),+ $(,)?) => {
        $crate::backends::over_every_kind! { @kind valkey Valkey $($(#[$attribute])* $fact),+ }
        $crate::backends::over_every_kind! { @kind redis Redis $($(#[$attribute])* $fact),+ }
        $crate::backends::over_every_kind! { @kind new_valkey ValkeyWithIfeq $($(#[$attribute])* $fact),+ }
    };
    (@kind $name:ident $kind:ident $($(#[$attribute:meta])* $fact:ident),+) => {
        mod $name {
            $(
                $(#[$attribute])*
                #[tokio::test]
                async fn $fact() {
                    super::$fact(larder_tests::Kind::$kind).await;
                }
            )+
        }
    };
}

/// [`over_every_kind`], and Valkey 9, which moves slots in one step.
macro_rules! over_every_kind_and_valkey_9 {
    ($($fact:ident),+ $(,)?) => {
        $crate::backends::over_every_kind! { $($fact),+ }
        $crate::backends::over_every_kind! { @kind valkey_9 Valkey9 $($fact),+ }
    };
}

pub(crate) use {
    over_a_near_tier, over_a_server, over_every_backend, over_every_kind, over_every_kind_and_valkey_9,
    over_every_server,
};

/// The store behind the caches of one test.
pub(crate) struct Backend {
    toml: String,
    place: Place,
}

enum Place {
    Ram,
    Server(Server),
    Cluster(Arc<Cluster>),
}

impl Backend {
    pub(crate) fn ram() -> Self {
        Self { toml: "[caches.c]\ntype = \"ram\"\n".to_owned(), place: Place::Ram }
    }

    /// A cluster that other facts use too, one after the other, with more keys of the cache's table.
    pub(crate) fn cluster(cluster: &Arc<Cluster>, more: &str) -> Self {
        Self { toml: cluster.cache("c") + more, place: Place::Cluster(Arc::clone(cluster)) }
    }

    /// A server of the test's own, which ends with this value.
    pub(crate) fn server(kind: Kind) -> Option<Self> {
        let server = Server::start(kind)?;
        Some(Self { toml: server.cache("c"), place: Place::Server(server) })
    }

    /// A server of the test's own, with a near tier in front of it.
    pub(crate) fn near() -> Option<Self> {
        let mut backend = Self::server(Kind::Valkey)?;
        backend.toml.push_str("near = {}\n");
        Some(backend)
    }

    /// The server, for facts about servers alone.
    pub(crate) fn behind(&mut self) -> &mut Server {
        match &mut self.place {
            Place::Server(server) => server,
            Place::Ram | Place::Cluster(_) => panic!("the fact is for servers only"),
        }
    }

    /// A new cache, with more keys of its table in TOML; one on a server shares its values with the others there.
    pub(crate) async fn cache(&self, more: &str) -> Arc<Cache> {
        // The defaults suit a server with a machine of its own; here an answer or a renewal may be late and still be right.
        let patience = match self.place {
            Place::Ram => [].as_slice(),
            Place::Server(_) | Place::Cluster(_) => &["timeout = \"20s\"\n", "lease = \"10s\"\n"],
        };
        let patience: String =
            patience.iter().filter(|line| !more.contains(line.split('"').next().unwrap())).copied().collect();
        let config = Config::from_toml(&format!("{}{patience}{more}\n", self.toml)).unwrap();
        connect_cache("c", &config.caches["c"]).await.unwrap()
    }

    /// A new cache with all defaults, as a plugin without a namespace sees it.
    pub(crate) async fn view(&self) -> ScopedCache {
        view(&self.cache("").await)
    }

    /// Runs `store`, and asserts that from then on the entry lives exactly so long; `None` is without end.
    pub(crate) async fn assert_lasts(
        &self,
        cache: &ScopedCache,
        key: &str,
        duration: Option<StdDuration>,
        store: impl AsyncFnOnce(),
    ) {
        let mut clients = match &self.place {
            Place::Ram => Vec::new(),
            Place::Server(server) => vec![server.client()],
            Place::Cluster(cluster) => cluster.nodes.iter().map(Server::client).collect(),
        };
        let Some(clock) = clients.first_mut() else {
            store().await;
            tokio::time::advance(duration.map_or(Duration::LONGEST * 2, |duration| duration - ONE_MS)).await;
            assert!(cache.get(key).await.unwrap().is_some(), "`{key}` does not last {duration:?}");
            tokio::time::advance(ONE_MS).await;
            assert_eq!(cache.get(key).await.unwrap().is_none(), duration.is_some(), "`{key}` outlasts {duration:?}");
            return;
        };
        let before = now(clock);
        store().await;
        let after = now(clock);
        let mut look = redis::cmd("PEXPIRETIME");
        look.arg(format!("cache:{key}"));
        // In a cluster, all nodes but one reply that they do not have the key.
        let expires: i64 = clients.iter_mut().find_map(|client| look.query(client).ok()).unwrap();
        match duration {
            None => assert_eq!(expires, -1, "`{key}` has an end"),
            Some(duration) => {
                let duration = i64::try_from(duration.as_millis()).unwrap();
                let range = before + duration..=after + duration;
                assert!(range.contains(&expires), "`{key}` lasts {} to {} ms", expires - after, expires - before);
            }
        }
    }
}

const ONE_MS: StdDuration = StdDuration::from_millis(1);

/// The server's clock in milliseconds.
fn now(client: &mut redis::Connection) -> i64 {
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query(client).unwrap();
    seconds * 1000 + micros / 1000
}

/// A plugin without a namespace, an owner of its own.
pub(crate) fn view(cache: &Arc<Cache>) -> ScopedCache {
    operator_view(Arc::clone(cache), None)
}

/// A plugin with a namespace, an owner of its own.
pub(crate) fn namespaced(cache: &Arc<Cache>, namespace: &str) -> ScopedCache {
    operator_view(Arc::clone(cache), Some(Namespace::new(namespace).unwrap()))
}

/// A plugin that may only read.
pub(crate) fn read_only(cache: &Arc<Cache>) -> ScopedCache {
    ScopedCache::new(Arc::clone(cache), None, Access::ReadOnly, Owner::new())
}

/// The bytes of a value.
pub(crate) fn bytes(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

/// Stores each key with its own name as the value.
pub(crate) async fn put(cache: &ScopedCache, keys: &[&str]) {
    for key in keys {
        cache.set(key, bytes(key), Duration::Default).await.unwrap();
    }
}

/// Those of the keys that have a value.
pub(crate) async fn present<'a>(cache: &ScopedCache, keys: &[&'a str]) -> Vec<&'a str> {
    let mut present = Vec::new();
    for &key in keys {
        if cache.get(key).await.unwrap().is_some() {
            present.push(key);
        }
    }
    present
}

/// Stores an entry and waits for its end, without a look at it.
pub(crate) async fn put_expired(cache: &ScopedCache, key: &str) {
    cache.set(key, bytes("old"), Duration::Milliseconds(1)).await.unwrap();
    pass_a_millisecond(cache).await;
}

/// Waits until an entry that lasts a millisecond has expired. A read may remove the entry, so another one is read.
pub(crate) async fn pass_a_millisecond(cache: &ScopedCache) {
    cache.set("hourglass", bytes("sand"), Duration::Milliseconds(1)).await.unwrap();
    let runs_out = async {
        while cache.get("hourglass").await.unwrap().is_some() {
            tokio::time::sleep(ONE_MS).await;
        }
    };
    within(runs_out).await;
}

/// The future's outcome; panics where it hangs.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("the future does not finish")
}

/// Asserts that the call was refused for this argument.
pub(crate) fn assert_invalid<T: std::fmt::Debug>(outcome: Result<T, CacheError>, argument: &str) {
    match outcome {
        Err(CacheError::InvalidArgument(rule)) => assert!(rule.starts_with(&format!("{argument}: ")), "{rule}"),
        other => panic!("{other:?}"),
    }
}
