//! Look-ups of a value that is there.

use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use larder_host::Runtime;
use larder_host::cache::{Duration, Entry, ScopedCache};
use larder_host::runtime::RunOptions;
use larder_tests::{PATIENCE, guest};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::place::{Place, view};
use crate::table;

const VALUE: Bytes = Bytes::from_static(&[b'v'; 100]);

/// One caller, who makes so many calls one after the other.
type Caller = Box<dyn Fn(u32) -> Pin<Box<dyn Future<Output = ()> + Send>>>;

/// get-or-set against get and, on a server, against the bare client's `GET`.
pub(crate) async fn natively(place: &Place, callers: u32) {
    let view = filled(&view(&place.cache("").await)).await;
    let mut ways: Vec<(&str, Caller)> = Vec::new();
    if place.has_server() {
        ways.push(("GET, bare client", bare(place.client(None).await)));
        ways.push(("GET, bare, with a deadline", bare(place.client(Some(PATIENCE)).await)));
    }
    ways.extend([("get", get(view.clone())), ("get-or-set", get_or_set(view))]);
    let calls = match (place.has_server(), callers) {
        (false, _) => 20_000,
        (true, 1) => 500,
        (true, _) => 50,
    };
    let passes = table::in_turns(ways.len(), 31, async |way| {
        let begun = Instant::now();
        let mut tasks: JoinSet<()> = (0..callers).map(|_| ways[way].1(calls)).collect();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        begun.elapsed().as_secs_f64() / f64::from(callers * calls)
    });
    let names: Vec<&str> = ways.iter().map(|(name, _)| *name).collect();
    table::ways(&place.name, &names, &passes.await);
}

/// The same calls by a plugin, beside native ones. The plugin times itself: its start and its end are not counted.
pub(crate) async fn in_a_plugin(place: &Place) {
    let calls = if place.has_server() { 1000 } else { 20_000 };
    let runtime = Runtime::new(place.config("")).await.unwrap();
    let plugin = runtime.load(&guest("bench"), None).unwrap();
    let view = filled(&view(runtime.caches().get("cache").unwrap())).await;
    let native = get(view.clone());
    let names = ["get, native", "get", "get-or-set"];
    let passes = table::in_turns(names.len(), 21, async |way| {
        let call = match way {
            0 => {
                let begun = Instant::now();
                tokio::spawn(native(calls)).await.unwrap();
                return begun.elapsed().as_secs_f64() / f64::from(calls);
            }
            1 => "get",
            _ => "get-or-set",
        };
        let options = RunOptions { args: vec![call.to_owned(), calls.to_string()], ..RunOptions::default() };
        assert_eq!(runtime.run(&plugin, &options).await.unwrap(), 0);
        let took = view.get("took").await.unwrap().expect("the plugin says how long it took");
        let nanoseconds: f64 = std::str::from_utf8(&took).unwrap().parse().unwrap();
        nanoseconds / 1e9 / f64::from(calls)
    });
    table::ways(&place.name, &names, &passes.await);
}

async fn filled(cache: &ScopedCache) -> ScopedCache {
    cache.set("key", VALUE, Duration::Unlimited).await.unwrap();
    cache.clone()
}

fn get(cache: ScopedCache) -> Caller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                assert_eq!(cache.get("key").await.unwrap(), Some(VALUE));
            }
        })
    })
}

fn get_or_set(cache: ScopedCache) -> Caller {
    Box::new(move |calls| {
        let cache = cache.clone();
        Box::pin(async move {
            for _ in 0..calls {
                match cache.get_or_set("key").await.unwrap() {
                    Entry::Occupied(value) => assert_eq!(value, VALUE),
                    Entry::Vacant(_) => panic!("the value is gone"),
                }
            }
        })
    })
}

fn bare(client: MultiplexedConnection) -> Caller {
    Box::new(move |calls| {
        let mut client = client.clone();
        Box::pin(async move {
            for _ in 0..calls {
                let found: Option<Bytes> = redis::cmd("GET").arg("cache:key").query_async(&mut client).await.unwrap();
                assert_eq!(found, Some(VALUE));
            }
        })
    })
}
