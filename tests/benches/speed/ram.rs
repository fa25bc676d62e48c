//! What a call costs where the cache is in this process: from a plugin, from native code, and beside other caches.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use larder_host::cache::{Duration, ScopedCache};
use larder_host::{Caches, operator_view};

use crate::others::{Moka, QuickCache};
use crate::place::Place;
use crate::plugin::{Plugin, Running};
use crate::table;

const ROUNDS: usize = 21;

/// A plugin and native code on one cache.
pub(crate) struct Bench {
    running: Running,
    view: ScopedCache,
    quick_cache: QuickCache,
    moka: Moka,
}

/// One way to make so many calls.
#[derive(Clone, Copy)]
enum Way {
    Plugin(&'static str),
    Native,
    QuickCache,
    Moka,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let caches = Caches::connect(Place::ram().config("max_bytes = \"64MiB\"\n")).await.unwrap();
        let view = operator_view(caches.get("cache").unwrap().clone(), None);
        let running = Plugin::new(caches, false).start().await;
        Self { running, view, quick_cache: QuickCache::new(64 << 20), moka: Moka::new(64 << 20) }
    }

    pub(crate) async fn all(mut self) {
        table::heading("A call from a plugin that does nothing");
        let ways = [Way::Plugin("nothing"), Way::Plugin("nothing-later")];
        self.compare(&["synchronous", "ready future"], &ways, 0, 20_000).await;
        table::heading(
            "A hit in RAM, and its copy: an empty call, from a plugin, in native code, and other caches alone",
        );
        for (size, calls) in [(16, 20_000), (100, 20_000), (1 << 10, 20_000), (10 << 10, 5_000), (100 << 10, 500)] {
            let [nothing, bytes, get] = ["nothing", "bytes", "get"].map(Way::Plugin);
            let ways = [nothing, bytes, get, Way::Native, Way::QuickCache, Way::Moka];
            let names = ["empty call", "the same bytes, no cache", "get, plugin", "get, native", "quick_cache", "moka"];
            self.fill(size).await;
            self.compare(&names, &ways, size, calls).await;
        }
        table::heading("A hit of get-or-set in RAM, beside get");
        for size in [100, 10 << 10] {
            self.compare(
                &["get, plugin", "get-or-set, plugin"],
                &[Way::Plugin("get"), Way::Plugin("get-or-set")],
                size,
                5_000,
            )
            .await;
        }
        table::heading("A set in RAM, with the copy that it keeps");
        for (size, calls) in [(100, 20_000), (10 << 10, 5_000)] {
            let names = ["empty call", "set, plugin", "set, native", "quick_cache", "moka"];
            self.sets(&names, size, calls).await;
        }
        table::heading("get-many in RAM, all hits of 100 bytes, by the key; beside get");
        self.batches().await;
    }

    async fn fill(&mut self, size: u32) {
        let (key, value) = (key(size), Bytes::from(vec![b'v'; size as usize]));
        self.view.set(&key, value.clone(), Duration::Unlimited).await.unwrap();
        self.quick_cache.set(&key, value.clone());
        self.moka.set(&key, value);
    }

    async fn compare(&mut self, names: &[&str], ways: &[Way], size: u32, calls: u32) {
        let passes = table::in_turns(ways.len(), ROUNDS, async |way| {
            let key = key(size);
            match ways[way] {
                Way::Plugin(call) => self.running.time_of_one(call, size, calls).await,
                Way::Native => {
                    let begun = Instant::now();
                    for _ in 0..calls {
                        black_box(self.view.get(black_box(&key)).await.unwrap().unwrap().to_vec());
                    }
                    begun.elapsed().as_secs_f64() / f64::from(calls)
                }
                Way::QuickCache => time(calls, || self.quick_cache.get(black_box(&key)).unwrap().to_vec()),
                Way::Moka => time(calls, || self.moka.get(black_box(&key)).unwrap().to_vec()),
            }
        });
        table::ways(&bytes(size), names, &passes.await);
    }

    async fn sets(&mut self, names: &[&str], size: u32, calls: u32) {
        let (key, value) = (key(size), vec![b'v'; size as usize]);
        let passes = table::in_turns(names.len(), ROUNDS, async |way| {
            let value = || Bytes::copy_from_slice(black_box(&value));
            match way {
                0 => self.running.time_of_one("nothing", size, calls).await,
                1 => self.running.time_of_one("set", size, calls).await,
                2 => {
                    let begun = Instant::now();
                    for _ in 0..calls {
                        self.view.set(black_box(&key), value(), Duration::Unlimited).await.unwrap();
                    }
                    begun.elapsed().as_secs_f64() / f64::from(calls)
                }
                3 => time(calls, || self.quick_cache.set(black_box(&key), value())),
                _ => time(calls, || self.moka.set(black_box(&key), value())),
            }
        });
        table::ways(&bytes(size), names, &passes.await);
    }

    async fn batches(&mut self) {
        let sizes = [1, 10, 100];
        for nth in 0..100 {
            self.view.set(&format!("batch-{nth}"), vec![b'v'; 100].into(), Duration::Unlimited).await.unwrap();
        }
        self.fill(100).await;
        let names = ["get, plugin", "get-many of 1", "of 10", "of 100"];
        let passes = table::in_turns(names.len(), ROUNDS, async |way| match way.checked_sub(1) {
            None => self.running.time_of_one("get", 100, 10_000).await,
            Some(nth) => {
                self.running.time_of_one("get-many", sizes[nth], 10_000 / sizes[nth]).await / f64::from(sizes[nth])
            }
        });
        table::ways("", &names, &passes.await);
    }
}

fn time<T>(calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let begun = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    begun.elapsed().as_secs_f64() / f64::from(calls)
}

fn key(size: u32) -> String {
    format!("value-{size}")
}

fn bytes(size: u32) -> String {
    match size {
        0 => String::new(),
        1..1024 => format!("{size} B"),
        _ => format!("{} KiB", size >> 10),
    }
}
