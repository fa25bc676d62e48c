//! Hits near, beside hits of a RAM cache and of the Redis client's own cache.

use std::hint::black_box;
use std::time::{Duration as StdDuration, Instant};

use bytes::Bytes;
use larder_host::cache::{Duration, ScopedCache};
use larder_host::{Caches, operator_view};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use redis::caching::CacheConfig;

use crate::backend::Backend;
use crate::plugin::{Plugin, PluginInstance};
use crate::{info, table};

const ROUNDS: usize = 21;

/// Long enough that a thread which serves hits without a pause need not answer pings.
const NEAR: &str = "near = { max_staleness = \"60s\" }\n";

/// A plugin and a native view on the same cache.
struct Larder {
    plugin: PluginInstance,
    view: ScopedCache,
}

impl Larder {
    async fn new(backend: &Backend, more: &str) -> Self {
        let caches = Caches::connect(backend.config(more)).await.unwrap();
        let view = operator_view(caches.get("cache").unwrap().clone(), None);
        Self { plugin: Plugin::new(caches, false).instantiate().await, view }
    }
}

pub(crate) async fn hits() {
    let Some(server) = larder_tests::Server::start(larder_tests::Kind::Valkey) else { return };
    let backend = Backend::on(server).await;
    let (mut ram, mut near) = (Larder::new(&Backend::ram(), "").await, Larder::new(&backend, NEAR).await);
    let mut client = client_with_cache(&backend).await;
    let sizes = [(100, 20_000), (1 << 10, 20_000), (10 << 10, 5_000)];
    for (size, _) in sizes {
        let (key, value) = (key(size), Bytes::from(vec![b'v'; size as usize]));
        for cache in [&ram.view, &near.view] {
            cache.set(&key, value.clone(), Duration::Unlimited).await.unwrap();
        }
        while near.view.near_path().unwrap().get(&key).is_none() {
            near.view.get(&key).await.unwrap();
            pause().await;
        }
        let _fills_the_cache = get(&mut client, &stored(&key)).await;
        pause().await;
    }
    let reads_before = reads(&backend);

    table::heading("A hit near and its copy, from a plugin, beside a hit in RAM");
    for (size, calls) in sizes {
        let passes = table::interleave(2, ROUNDS, async |candidate| {
            pause().await;
            let plugin = if candidate == 0 { &mut ram.plugin } else { &mut near.plugin };
            plugin.seconds_per_call("get", size, calls).await
        });
        table::candidates(&format!("{size} B"), &["get, RAM", "get, near"], &passes.await);
    }
    table::heading("A hit of get-or-set near, from a plugin, beside one in RAM");
    let passes = table::interleave(2, ROUNDS, async |candidate| {
        pause().await;
        let plugin = if candidate == 0 { &mut ram.plugin } else { &mut near.plugin };
        plugin.seconds_per_call("get-or-set", 100, 20_000).await
    });
    table::candidates("100 B", &["get-or-set, RAM", "get-or-set, near"], &passes.await);
    table::heading("A hit near in native code, beside one of the client-side cache of the Redis client");
    for (size, calls) in sizes {
        let key = key(size);
        let stored = stored(&key);
        let passes = table::interleave(3, ROUNDS, async |candidate| {
            pause().await;
            let start = Instant::now();
            for _ in 0..calls {
                let key = black_box(key.as_str());
                let found = match candidate {
                    0 => get(&mut client, black_box(&stored)).await,
                    1 => near.view.get(key).await.unwrap(),
                    _ => ram.view.get(key).await.unwrap(),
                };
                assert_eq!(black_box(found).map(|value| value.len()), Some(size as usize));
            }
            start.elapsed().as_secs_f64() / f64::from(calls)
        });
        table::candidates(&format!("{size} B"), &["redis, cache-aio", "get, near", "get, RAM"], &passes.await);
    }
    assert_eq!(reads(&backend), reads_before, "all were hits near");
}

/// A bare client with the cache of its own.
async fn client_with_cache(backend: &Backend) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_cache_config(CacheConfig::new());
    backend.client_with(&config).await
}

async fn get(client: &mut MultiplexedConnection, key: &str) -> Option<Bytes> {
    redis::cmd("GET").arg(key).query_async(client).await.unwrap()
}

/// The key as it is stored on the server.
fn stored(key: &str) -> String {
    format!("cache:{key}")
}

/// Lets the connections take their turns.
async fn pause() {
    tokio::time::sleep(StdDuration::from_millis(2)).await;
}

fn key(size: u32) -> String {
    format!("value-{size}")
}

/// The reads that the server has executed.
fn reads(backend: &Backend) -> u64 {
    info(&mut backend.server().client(), "stats", "keyspace_hits")
}
