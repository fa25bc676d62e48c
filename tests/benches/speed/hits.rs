//! Hits and sets on a server: from native code and from plugins, compared with a bare Redis client.

use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use larder_host::Caches;
use larder_host::cache::{Duration, Entry, Freshness, ScopedCache};
use larder_tests::TEST_TIMEOUT;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::backend::{Backend, view};
use crate::plugin::{Plugin, PluginInstance};
use crate::table;

/// Of a get-or-refresh.
const STALE: Duration = Duration::Milliseconds(1000);
/// The key and value that the plugin uses for a size of 100 bytes.
const KEY: &str = "value-100";
const VALUE: Bytes = Bytes::from_static(&[b'v'; 100]);

/// Makes a number of sequential calls.
type NativeCaller = Box<dyn Fn(u32) -> Pin<Box<dyn Future<Output = ()> + Send>>>;

/// One of the compared implementations of a call.
enum Candidate {
    Native(NativeCaller),
    /// The name of the plugin's call.
    Plugin(&'static str),
}

/// Compares get, get-or-set and set by a number of concurrent callers with the bare client's `GET` and `SET`.
pub(crate) async fn compare_with_bare_client(backend: &Backend, callers: u32) {
    let caches = Caches::connect(backend.config("")).await.unwrap();
    let cache = view(caches.get("cache").unwrap());
    cache.set(KEY, VALUE, Duration::Unlimited).await.unwrap();
    let plugin = Plugin::new(caches, false);
    let mut instances = Vec::new();
    for _ in 0..callers {
        instances.push(plugin.instantiate().await);
    }
    let client = backend.client(Some(TEST_TIMEOUT)).await;
    let reads = [
        ("GET, bare client", Candidate::Native(bare_get(backend.client(None).await))),
        ("GET, bare, with a deadline", Candidate::Native(bare_get(client.clone()))),
        ("get, native", Candidate::Native(get(cache.clone()))),
        ("get, plugin", Candidate::Plugin("get")),
        ("get-or-set, native", Candidate::Native(get_or_set(cache.clone()))),
        ("get-or-set, plugin", Candidate::Plugin("get-or-set")),
        ("get-or-refresh, native", Candidate::Native(get_or_refresh(cache.clone()))),
        ("get-or-refresh, plugin", Candidate::Plugin("get-or-refresh")),
    ];
    compare(backend, &reads, callers, &mut instances).await;
    let writes = [
        ("SET, bare, with a deadline", Candidate::Native(bare_set(client))),
        ("set, native", Candidate::Native(set(cache))),
        ("set, plugin", Candidate::Plugin("set")),
    ];
    compare(backend, &writes, callers, &mut instances).await;
}

async fn compare(
    backend: &Backend,
    candidates: &[(&str, Candidate)],
    callers: u32,
    instances: &mut Vec<PluginInstance>,
) {
    let calls = if callers == 1 { 500 } else { 50 };
    let passes = table::interleave(candidates.len(), 31, async |candidate| {
        let start = Instant::now();
        match &candidates[candidate].1 {
            Candidate::Native(caller) => {
                let tasks: JoinSet<()> = (0..callers).map(|_| caller(calls)).collect();
                tasks.join_all().await;
            }
            Candidate::Plugin(call) => {
                let call: &'static str = call;
                let run = |mut instance: PluginInstance| async move {
                    instance.time(call, 100, calls).await;
                    instance
                };
                let tasks: JoinSet<PluginInstance> = instances.drain(..).map(run).collect();
                *instances = tasks.join_all().await;
            }
        }
        start.elapsed().as_secs_f64() / f64::from(callers * calls)
    });
    let names: Vec<&str> = candidates.iter().map(|(name, _)| *name).collect();
    table::candidates(&backend.name, &names, &passes.await);
}

fn get(cache: ScopedCache) -> NativeCaller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                assert_eq!(cache.get(KEY).await.unwrap(), Some(VALUE));
            }
        })
    })
}

fn get_or_set(cache: ScopedCache) -> NativeCaller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                match cache.get_or_set(KEY).await.unwrap() {
                    Entry::Occupied(value) => assert_eq!(value, VALUE),
                    Entry::Vacant(_) => panic!("the value is gone"),
                }
            }
        })
    })
}

/// Of a value that is fresh.
fn get_or_refresh(cache: ScopedCache) -> NativeCaller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                match cache.get_or_refresh(KEY, STALE).await.unwrap() {
                    Freshness::Fresh(value) => assert_eq!(value, VALUE),
                    Freshness::Stale { .. } | Freshness::Vacant(_) => panic!("the value is not fresh"),
                }
            }
        })
    })
}

fn set(cache: ScopedCache) -> NativeCaller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                cache.set(KEY, VALUE, Duration::Unlimited).await.unwrap();
            }
        })
    })
}

fn bare_get(client: MultiplexedConnection) -> NativeCaller {
    Box::new(move |calls| {
        let mut client = client.clone();
        Box::pin(async move {
            for _ in 0..calls {
                let mut command = redis::cmd("GET");
                let get = command.arg(format!("cache:{KEY}")).query_async(&mut client);
                let found: Option<Bytes> = get.await.unwrap();
                assert_eq!(found, Some(VALUE));
            }
        })
    })
}

fn bare_set(client: MultiplexedConnection) -> NativeCaller {
    Box::new(move |calls| {
        let mut client = client.clone();
        Box::pin(async move {
            for _ in 0..calls {
                let mut command = redis::cmd("SET");
                let () = command.arg(format!("cache:{KEY}")).arg(&VALUE[..]).query_async(&mut client).await.unwrap();
            }
        })
    })
}
