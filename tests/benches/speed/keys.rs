//! Many keys: how threads share a cache, and how often a small cache has what is asked for.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use bytes::Bytes;
use larder_host::cache::ram::{ENTRY_OVERHEAD, RamBackend};
use larder_host::cache::{Cache, Duration, Policy, ScopedCache};
use larder_host::operator_view;

use crate::others::{Moka, QuickCache};
use crate::table;

const KEYS: usize = 100_000;
const LOOK_UPS: usize = 400_000;
const VALUE: [u8; 100] = [b'v'; 100];

/// Which key comes next.
#[derive(Clone, Copy)]
enum Order {
    Uniform,
    /// The nth key comes in proportion to 1/n.
    Zipf,
}

/// The three caches, asked alike.
enum Subject {
    Larder(ScopedCache),
    QuickCache(QuickCache),
    Moka(Moka),
}

const NAMES: [&str; 3] = ["Larder", "quick_cache", "moka"];

impl Subject {
    /// With room for so many entries.
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
            Self::Larder(cache) => cache.fast_path().expect("it is in RAM").get(key).unwrap(),
            Self::QuickCache(cache) => cache.get(key),
            Self::Moka(cache) => cache.get(key),
        }
    }

    fn set(&self, key: &str) {
        let value = Bytes::copy_from_slice(&VALUE);
        match self {
            Self::Larder(cache) => {
                cache.fast_path().expect("it is in RAM").set(key, value, Duration::Unlimited).unwrap();
            }
            Self::QuickCache(cache) => cache.set(key, value),
            Self::Moka(cache) => cache.set(key, value),
        }
    }
}

/// Look-ups of values that are there, by one thread and by two, in time for each of all look-ups.
pub(crate) async fn threads() {
    table::heading("A hit of 100 bytes among 100,000 keys, without a copy, by threads at once: time / all hits");
    // Twice what is needed: no cache evicts.
    let subjects = Subject::all(2 * KEYS as u64);
    let names: Vec<String> = (0..KEYS).map(name).collect();
    for subject in &subjects {
        names.iter().for_each(|name| subject.set(name));
    }
    for (order, title) in [(Order::Uniform, "uniform"), (Order::Zipf, "Zipf")] {
        let draws: [Vec<usize>; 2] = [1, 2].map(|seed| draws(order, seed));
        for threads in [1, 2] {
            let passes = table::in_turns(subjects.len(), 15, async |way| {
                time(&subjects[way], &names, &draws[..threads]) / (threads * LOOK_UPS) as f64
            });
            table::ways(
                &format!("{title}, {threads} thread{}", if threads == 1 { "" } else { "s" }),
                &NAMES,
                &passes.await,
            );
        }
    }
}

fn time(subject: &Subject, names: &[String], draws: &[Vec<usize>]) -> f64 {
    let start = Barrier::new(draws.len() + 1);
    std::thread::scope(|scope| {
        let look_up = |draws: &[usize]| {
            start.wait();
            for nth in draws {
                black_box(subject.get(&names[*nth]).expect("it is there"));
            }
        };
        let threads: Vec<_> = draws.iter().map(|draws| scope.spawn(move || look_up(draws))).collect();
        start.wait();
        let begun = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        begun.elapsed().as_secs_f64()
    })
}

/// The share of look-ups that find something where a tenth of the keys fits. What is missing is set.
pub(crate) fn hit_ratio() {
    table::heading("Share of hits with room for 10,000 of 100,000 keys, which come by Zipf, after as many to warm up");
    let (names, draws): (Vec<String>, _) = ((0..KEYS).map(name).collect(), draws(Order::Zipf, 3));
    let (warming, counted) = draws.split_at(LOOK_UPS / 2);
    let best = best_possible();
    table::line("", "the most frequent keys, kept", &[format!("{:.1} %", best * 100.0)]);
    for (subject, name) in Subject::all(KEYS as u64 / 10).iter().zip(NAMES) {
        let is_hit = |nth: &&usize| {
            let is_hit = subject.get(&names[**nth]).is_some();
            if !is_hit {
                subject.set(&names[**nth]);
            }
            is_hit
        };
        warming.iter().filter(is_hit).count();
        let hits = counted.iter().filter(is_hit).count();
        table::line("", name, &[format!("{:.1} %", hits as f64 / counted.len() as f64 * 100.0)]);
    }
}

/// The share of look-ups that a tenth of the keys gets, if it is the right tenth.
fn best_possible() -> f64 {
    let weight = |keys: usize| (1..=keys).map(|nth| 1.0 / nth as f64).sum::<f64>();
    weight(KEYS / 10) / weight(KEYS)
}

fn draws(order: Order, seed: u64) -> Vec<usize> {
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
    // Neighbours in frequency are not to be neighbours in memory.
    let place = |nth: usize| nth * 7919 % KEYS;
    let draw = |_| {
        let drawn = random.share() * total;
        place(sums.partition_point(|sum| *sum < drawn).min(KEYS - 1))
    };
    (0..LOOK_UPS).map(draw).collect()
}

fn name(nth: usize) -> String {
    format!("user:{nth:06}:profile")
}

/// Steele, Lea and Flood's generator (2014), for draws that are the same in every run.
struct SplitMix(u64);

impl SplitMix {
    /// From 0 up to 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The bytes of memory that an entry takes, which each cache tells from a process of its own.
pub(crate) fn memory() {
    table::heading("Bytes of memory for an entry of 20 + 100 bytes, a million of them");
    let counted = 20 + VALUE.len() as u64 + ENTRY_OVERHEAD;
    table::line("", "counted by max_bytes", &[counted.to_string()]);
    for name in NAMES {
        let program = std::env::current_exe().unwrap();
        let told = std::process::Command::new(program).args(["--bench", "--memory", name]).output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        table::line("", name, &[String::from_utf8(told.stdout).unwrap().trim().to_owned()]);
    }
}

/// In a process of its own: fills one cache and prints what it came to.
pub(crate) fn tell_memory(of: &str) {
    const ENTRIES: usize = 1_000_000;
    let subjects = NAMES.into_iter().zip(Subject::all(2 * ENTRIES as u64));
    let subject = subjects.filter(|(name, _)| *name == of).map(|(_, subject)| subject).next().expect("a cache's name");
    let before = resident();
    (0..ENTRIES).for_each(|nth| subject.set(&format!("user:{nth:07}:profile")));
    println!("{}", (resident() - before) / ENTRIES);
}

/// This process's memory in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}
