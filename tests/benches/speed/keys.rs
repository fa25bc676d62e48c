//! Caches with many keys: throughput of several threads, hit ratio of a small cache, and memory per entry.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use bytes::Bytes;
use larder_host::cache::ram::{ENTRY_OVERHEAD, RamBackend};
use larder_host::cache::{Cache, Duration, Policy, ScopedCache};
use larder_host::operator_view;

use crate::other_caches::{Moka, QuickCache};
use crate::table;

pub(crate) const KEYS: usize = 100_000;
const LOOK_UPS: usize = 400_000;
const VALUE: [u8; 100] = [b'v'; 100];

/// The distribution from which keys are drawn.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Uniform,
    /// The frequency of the nth key is proportional to 1/n.
    Zipf,
}

/// The compared caches, with the same methods.
enum Candidate {
    Larder(ScopedCache),
    QuickCache(QuickCache),
    Moka(Moka),
}

const NAMES: [&str; 3] = ["Larder", "quick_cache", "moka"];

impl Candidate {
    /// Creates an empty cache of each kind that can hold this number of entries.
    fn all(entries: u64) -> [Self; 3] {
        let entry = VALUE.len() as u64 + name(KEYS).len() as u64;
        let mut policy = Policy::default();
        policy.default_expire = None;
        policy.max_value_bytes = 1 << 10;
        let backend = RamBackend::new(entries * (entry + ENTRY_OVERHEAD), policy.max_value_bytes, &[]);
        let larder = operator_view(Cache::new("cache", backend, policy).into(), None);
        let (quick_cache, moka) = (QuickCache::new(entries * entry), Moka::new(entries * entry));
        [Self::Larder(larder), Self::QuickCache(quick_cache), Self::Moka(moka)]
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        match self {
            Self::Larder(cache) => cache.fast_path().expect("a RAM cache has a fast path").get(key).unwrap(),
            Self::QuickCache(cache) => cache.get(key),
            Self::Moka(cache) => cache.get(key),
        }
    }

    fn set(&self, key: &str) {
        let value = Bytes::copy_from_slice(&VALUE);
        match self {
            Self::Larder(cache) => {
                cache.fast_path().expect("a RAM cache has a fast path").set(key, value, Duration::Unlimited).unwrap();
            }
            Self::QuickCache(cache) => cache.set(key, value),
            Self::Moka(cache) => cache.set(key, value),
        }
    }
}

/// Times hits by each of these numbers of threads: the elapsed time divided by the hits of all threads.
pub(crate) async fn threads(orders: &[(Order, &str)], counts: &[usize], rounds: usize) {
    // With capacity for twice as many entries, no cache evicts.
    let candidates = Candidate::all(2 * KEYS as u64);
    let names: Vec<String> = (0..KEYS).map(name).collect();
    for cache in &candidates {
        names.iter().for_each(|name| cache.set(name));
    }
    let most = counts.iter().max().copied().unwrap_or_default();
    for (order, title) in orders {
        let draws: Vec<Vec<usize>> = (1..=most).map(|seed| draws(*order, seed as u64)).collect();
        for &threads in counts {
            let passes = table::interleave(candidates.len(), rounds, async |candidate| {
                time(&candidates[candidate], &names, &draws[..threads]) / (threads * LOOK_UPS) as f64
            });
            table::candidates(
                &format!("{title}, {threads} thread{}", if threads == 1 { "" } else { "s" }),
                &NAMES,
                &passes.await,
            );
        }
    }
}

fn time(cache: &Candidate, names: &[String], draws: &[Vec<usize>]) -> f64 {
    let barrier = Barrier::new(draws.len() + 1);
    std::thread::scope(|scope| {
        let look_up = |draws: &[usize]| {
            barrier.wait();
            for nth in draws {
                black_box(cache.get(&names[*nth]).expect("no entry is evicted"));
            }
        };
        let threads: Vec<_> = draws.iter().map(|draws| scope.spawn(move || look_up(draws))).collect();
        barrier.wait();
        let start = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        start.elapsed().as_secs_f64()
    })
}

/// The hit ratio of a cache that can hold a tenth of the keys. After a miss the value is set.
pub(crate) fn hit_ratio() {
    table::heading("Share of hits with room for 10,000 of 100,000 keys, which come by Zipf, after as many to warm up");
    let (names, draws): (Vec<String>, _) = ((0..KEYS).map(name).collect(), draws(Order::Zipf, 3));
    let (warm_up, counted) = draws.split_at(LOOK_UPS / 2);
    let best = optimal_hit_ratio();
    table::row("", "the most frequent keys, kept", &[format!("{:.1} %", best * 100.0)]);
    for (cache, name) in Candidate::all(KEYS as u64 / 10).iter().zip(NAMES) {
        let is_hit = |nth: &&usize| {
            let is_hit = cache.get(&names[**nth]).is_some();
            if !is_hit {
                cache.set(&names[**nth]);
            }
            is_hit
        };
        warm_up.iter().filter(is_hit).count();
        let hits = counted.iter().filter(is_hit).count();
        table::row("", name, &[format!("{:.1} %", hits as f64 / counted.len() as f64 * 100.0)]);
    }
}

/// The hit ratio if the most frequent tenth of the keys is always in the cache.
fn optimal_hit_ratio() -> f64 {
    let weight = |keys: usize| (1..=keys).map(|nth| 1.0 / nth as f64).sum::<f64>();
    weight(KEYS / 10) / weight(KEYS)
}

/// 400,000 numbers below [`KEYS`].
pub(crate) fn draws(order: Order, seed: u64) -> Vec<usize> {
    let mut random = SplitMix(seed);
    let mut total = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|nth| {
            total += match order {
                Order::Uniform => 1.0,
                Order::Zipf => 1.0 / nth as f64,
            };
            total
        })
        .collect();
    // Spread keys of similar frequency, so that they are not neighbours in memory.
    let index = |nth: usize| nth * 7919 % KEYS;
    let draw = |_| {
        let drawn = random.fraction() * total;
        index(sums.partition_point(|sum| *sum < drawn).min(KEYS - 1))
    };
    (0..LOOK_UPS).map(draw).collect()
}

fn name(nth: usize) -> String {
    format!("user:{nth:06}:profile")
}

/// The SplitMix64 generator (Steele, Lea and Flood, 2014). The draws are the same in every run.
struct SplitMix(u64);

impl SplitMix {
    /// Returns a number in the range from 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The memory per entry in bytes. Each cache is measured in a separate process.
pub(crate) fn memory() {
    table::heading("Bytes of memory for an entry of 20 + 100 bytes, a million of them");
    let counted = 20 + VALUE.len() as u64 + ENTRY_OVERHEAD;
    table::row("", "counted by max_bytes", &[counted.to_string()]);
    for name in NAMES {
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new(program).args(["--bench", "--memory", name]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        table::row("", name, &[String::from_utf8(output.stdout).unwrap().trim().to_owned()]);
    }
}

/// Fills the named cache, and prints the growth of the process's memory per entry in bytes.
pub(crate) fn print_memory(of: &str) {
    const ENTRIES: usize = 1_000_000;
    let candidates = NAMES.into_iter().zip(Candidate::all(2 * ENTRIES as u64));
    let cache = candidates.filter(|(name, _)| *name == of).map(|(_, cache)| cache).next().expect("the name of a cache");
    let before = resident();
    (0..ENTRIES).for_each(|nth| cache.set(&format!("user:{nth:07}:profile")));
    println!("{}", (resident() - before) / ENTRIES);
}

/// The resident memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has this file");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}
