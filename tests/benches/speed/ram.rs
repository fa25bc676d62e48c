//! Calls on a RAM cache from a plugin and from native code, compared with other caches.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use larder_host::cache::{Duration, ScopedCache};
use larder_host::{Caches, operator_view};

use crate::backend::Backend;
use crate::other_caches::{Moka, QuickCache};
use crate::plugin::{Plugin, PluginInstance};
use crate::table;

const ROUNDS: usize = 21;

/// A plugin and a native view on the same RAM cache, and the caches to compare with.
pub(crate) struct Bench {
    plugin: PluginInstance,
    view: ScopedCache,
    quick_cache: QuickCache,
    moka: Moka,
}

/// One of the compared implementations of a call.
#[derive(Clone, Copy)]
enum Candidate {
    /// The name of the plugin's call.
    Plugin(&'static str),
    Native,
    QuickCache,
    Moka,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let caches = Caches::connect(Backend::ram().config("max_bytes = \"64MiB\"\n")).await.unwrap();
        let view = operator_view(caches.get("cache").unwrap().clone(), None);
        let plugin = Plugin::new(caches, false).instantiate().await;
        Self { plugin, view, quick_cache: QuickCache::new(64 << 20), moka: Moka::new(64 << 20) }
    }

    pub(crate) async fn run(mut self) {
        table::heading("A call from a plugin that does nothing");
        let candidates = [Candidate::Plugin("nothing"), Candidate::Plugin("nothing-later")];
        self.compare(&["synchronous", "ready future"], &candidates, 0, 20_000).await;
        table::heading(
            "A hit in RAM, and its copy: an empty call, from a plugin, in native code, and other caches alone",
        );
        for (size, calls) in [(16, 20_000), (100, 20_000), (1 << 10, 20_000), (10 << 10, 5_000), (100 << 10, 500)] {
            let [nothing, bytes, get] = ["nothing", "bytes", "get"].map(Candidate::Plugin);
            let candidates = [nothing, bytes, get, Candidate::Native, Candidate::QuickCache, Candidate::Moka];
            let names = ["empty call", "the same bytes, no cache", "get, plugin", "get, native", "quick_cache", "moka"];
            self.fill(size).await;
            self.compare(&names, &candidates, size, calls).await;
        }
        table::heading("A hit of get-or-set in RAM, beside get");
        for size in [100, 10 << 10] {
            self.compare(
                &["get, plugin", "get-or-set, plugin"],
                &[Candidate::Plugin("get"), Candidate::Plugin("get-or-set")],
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

    async fn compare(&mut self, names: &[&str], candidates: &[Candidate], size: u32, calls: u32) {
        let passes = table::interleave(candidates.len(), ROUNDS, async |candidate| {
            let key = key(size);
            match candidates[candidate] {
                Candidate::Plugin(call) => self.plugin.seconds_per_call(call, size, calls).await,
                Candidate::Native => {
                    let start = Instant::now();
                    for _ in 0..calls {
                        black_box(self.view.get(black_box(&key)).await.unwrap().unwrap().to_vec());
                    }
                    start.elapsed().as_secs_f64() / f64::from(calls)
                }
                Candidate::QuickCache => time(calls, || self.quick_cache.get(black_box(&key)).unwrap().to_vec()),
                Candidate::Moka => time(calls, || self.moka.get(black_box(&key)).unwrap().to_vec()),
            }
        });
        table::candidates(&bytes(size), names, &passes.await);
    }

    async fn sets(&mut self, names: &[&str], size: u32, calls: u32) {
        let (key, value) = (key(size), vec![b'v'; size as usize]);
        let passes = table::interleave(names.len(), ROUNDS, async |candidate| {
            let value = || Bytes::copy_from_slice(black_box(&value));
            match candidate {
                0 => self.plugin.seconds_per_call("nothing", size, calls).await,
                1 => self.plugin.seconds_per_call("set", size, calls).await,
                2 => {
                    let start = Instant::now();
                    for _ in 0..calls {
                        self.view.set(black_box(&key), value(), Duration::Unlimited).await.unwrap();
                    }
                    start.elapsed().as_secs_f64() / f64::from(calls)
                }
                3 => time(calls, || self.quick_cache.set(black_box(&key), value())),
                _ => time(calls, || self.moka.set(black_box(&key), value())),
            }
        });
        table::candidates(&bytes(size), names, &passes.await);
    }

    async fn batches(&mut self) {
        let sizes = [1, 10, 100];
        for nth in 0..100 {
            self.view.set(&format!("batch-{nth}"), vec![b'v'; 100].into(), Duration::Unlimited).await.unwrap();
        }
        self.fill(100).await;
        let names = ["get, plugin", "get-many of 1", "of 10", "of 100"];
        let passes = table::interleave(names.len(), ROUNDS, async |candidate| match candidate.checked_sub(1) {
            None => self.plugin.seconds_per_call("get", 100, 10_000).await,
            Some(nth) => {
                self.plugin.seconds_per_call("get-many", sizes[nth], 10_000 / sizes[nth]).await / f64::from(sizes[nth])
            }
        });
        table::candidates("", &names, &passes.await);
    }
}

fn time<T>(calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
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
