//! Calls on a server: through a cache in native code and from plugins, beside the bare client.

use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use larder_host::Caches;
use larder_host::cache::{Duration, Entry, ScopedCache};
use larder_tests::PATIENCE;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::place::{Place, view};
use crate::plugin::{Plugin, Running};
use crate::table;

/// As the plugin has them.
const KEY: &str = "value-100";
const VALUE: Bytes = Bytes::from_static(&[b'v'; 100]);

/// One caller, who makes so many calls one after the other.
type Caller = Box<dyn Fn(u32) -> Pin<Box<dyn Future<Output = ()> + Send>>>;

/// How a call is made.
enum Way {
    Native(Caller),
    Plugin(&'static str),
}

/// get, get-or-set and set by so many callers at once, against the bare client's `GET` and `SET`.
pub(crate) async fn against_a_bare_client(place: &Place, callers: u32) {
    let caches = Caches::connect(place.config("")).await.unwrap();
    let cache = view(caches.get("cache").unwrap());
    cache.set(KEY, VALUE, Duration::Unlimited).await.unwrap();
    let plugin = Plugin::new(caches, false);
    let mut instances = Vec::new();
    for _ in 0..callers {
        instances.push(plugin.start().await);
    }
    let client = place.client(Some(PATIENCE)).await;
    let reads = [
        ("GET, bare client", Way::Native(bare_get(place.client(None).await))),
        ("GET, bare, with a deadline", Way::Native(bare_get(client.clone()))),
        ("get, native", Way::Native(get(cache.clone()))),
        ("get, plugin", Way::Plugin("get")),
        ("get-or-set, native", Way::Native(get_or_set(cache.clone()))),
        ("get-or-set, plugin", Way::Plugin("get-or-set")),
    ];
    compare(place, &reads, callers, &mut instances).await;
    let writes = [
        ("SET, bare, with a deadline", Way::Native(bare_set(client))),
        ("set, native", Way::Native(set(cache))),
        ("set, plugin", Way::Plugin("set")),
    ];
    compare(place, &writes, callers, &mut instances).await;
}

async fn compare(place: &Place, ways: &[(&str, Way)], callers: u32, instances: &mut Vec<Running>) {
    let calls = if callers == 1 { 500 } else { 50 };
    let passes = table::in_turns(ways.len(), 31, async |way| {
        let begun = Instant::now();
        match &ways[way].1 {
            Way::Native(caller) => {
                let tasks: JoinSet<()> = (0..callers).map(|_| caller(calls)).collect();
                tasks.join_all().await;
            }
            Way::Plugin(call) => {
                let call: &'static str = call;
                let calling = |mut instance: Running| async move {
                    instance.time(call, 100, calls).await;
                    instance
                };
                let tasks: JoinSet<Running> = instances.drain(..).map(calling).collect();
                *instances = tasks.join_all().await;
            }
        }
        begun.elapsed().as_secs_f64() / f64::from(callers * calls)
    });
    let names: Vec<&str> = ways.iter().map(|(name, _)| *name).collect();
    table::ways(&place.name, &names, &passes.await);
}

fn get(cache: ScopedCache) -> Caller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                assert_eq!(cache.get(KEY).await.unwrap(), Some(VALUE));
            }
        })
    })
}

fn get_or_set(cache: ScopedCache) -> Caller {
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

fn set(cache: ScopedCache) -> Caller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                cache.set(KEY, VALUE, Duration::Unlimited).await.unwrap();
            }
        })
    })
}

fn bare_get(client: MultiplexedConnection) -> Caller {
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

fn bare_set(client: MultiplexedConnection) -> Caller {
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
