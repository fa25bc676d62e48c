//! Unit tests of the RAM backend.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::Issuer;

fn key(name: &str) -> Key {
    Key::new(None, name).unwrap()
}

fn secs(seconds: u64) -> Option<StdDuration> {
    Some(StdDuration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn an_expired_entry_is_a_miss_before_any_sweep() {
    let ram = RamBackend::new(1 << 20, 1024, &[]);
    ram.set(key("k"), "v".into(), Some(StdDuration::from_millis(1500))).await.unwrap();
    tokio::time::advance(StdDuration::from_millis(1499)).await;
    assert_eq!(ram.get(&key("k")).await.unwrap(), Some("v".into()));
    tokio::time::advance(StdDuration::from_millis(1)).await;
    assert_eq!(ram.get(&key("k")).await.unwrap(), None);
    assert!(!ram.clear(&key("k")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn expired_entries_are_swept_without_being_read() {
    let ram = RamBackend::new(1 << 20, 1024, &[]);
    for n in 0..100 {
        ram.set(key(&format!("short{n}")), "v".into(), secs(1)).await.unwrap();
    }
    ram.set(key("long"), "v".into(), secs(60)).await.unwrap();
    ram.set(key("unlimited"), "v".into(), None).await.unwrap();
    assert_eq!(ram.partitions.of_namespace(None).entries.len(), 102);
    tokio::time::sleep(SWEEP_INTERVAL * 2).await;
    assert_eq!(ram.partitions.of_namespace(None).entries.len(), 2);
    tokio::time::sleep(StdDuration::from_secs(60)).await;
    assert_eq!(ram.partitions.of_namespace(None).entries.len(), 1);
}

#[tokio::test]
async fn the_sweeper_does_not_keep_the_cache_alive() {
    let ram = RamBackend::new(1 << 20, 1024, &[]);
    let weak = Arc::downgrade(&ram);
    drop(ram);
    assert!(weak.upgrade().is_none());
}

/// Clears the keys that end in 9. Returns how often another task ran in between, and how many keys held a value.
async fn yields_during_a_clear(ram: &RamBackend) -> (u64, u64) {
    let yields = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&yields);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let selection = Selection::matching(None, "key*9").unwrap();
    let removed = ram.clear_matching(&selection).await.unwrap();
    other.abort();
    (yields.load(Ordering::Relaxed), removed)
}

#[tokio::test]
async fn a_clear_yields_to_other_tasks_between_keys() {
    let ram = RamBackend::new(1 << 24, 1024, &[]);
    for n in 0..1_000 {
        ram.set(key(&format!("key{n}")), "v".into(), None).await.unwrap();
    }
    let (yields, removed) = yields_during_a_clear(&ram).await;
    assert_eq!(removed, 100);
    assert!(yields >= 30, "{yields} yields");
    assert_eq!(ram.partitions.of_namespace(None).entries.len(), 900);
}

#[tokio::test]
async fn a_clear_yields_to_other_tasks_between_leases() {
    let ram = RamBackend::new(1 << 24, 1024, &[]);
    let issuer = Issuer::new();
    let leases: Vec<Lease> = (0..1_000).map(|_| issuer.issue()).collect();
    for (n, lease) in leases.iter().enumerate() {
        assert_eq!(ram.claim(&key(&format!("key{n}")), lease).await.unwrap(), Claim::Granted);
    }
    let (yields, removed) = yields_during_a_clear(&ram).await;
    assert_eq!(removed, 0);
    assert!(yields >= 30, "{yields} yields");
    for (n, lease) in leases.iter().enumerate() {
        assert_eq!(ram.renew(&key(&format!("key{n}")), lease).await.unwrap(), n % 10 != 9, "key{n}");
    }
}

#[tokio::test]
async fn weight_stays_within_max_bytes() {
    let ram = RamBackend::new(1 << 20, 1024, &[]);
    for n in 0..5_000 {
        ram.set(key(&format!("key{n}")), vec![0; 1024].into(), None).await.unwrap();
    }
    assert!(ram.partitions.of_namespace(None).entries.weight() <= 1 << 20);
    // 857 of these entries weigh 1 MiB. Each shard evicts entries on its own, so part of the capacity may stay free.
    assert!(
        ram.partitions.of_namespace(None).entries.len() > 500,
        "{} entries",
        ram.partitions.of_namespace(None).entries.len()
    );
}

#[tokio::test]
async fn overwriting_a_key_keeps_one_entry() {
    let ram = RamBackend::new(1 << 20, 1024, &[]);
    for n in 0..1_000 {
        ram.set(key("k"), vec![0; n].into(), secs(60)).await.unwrap();
    }
    assert_eq!(ram.partitions.of_namespace(None).entries.len(), 1);
    assert_eq!(ram.partitions.of_namespace(None).entries.weight(), ENTRY_OVERHEAD + 1 + 999);
}

/// Every shard must store it, not only the cache as a whole.
#[tokio::test]
async fn the_largest_value_is_stored_at_the_least_capacity() {
    for max_value in [1, 1024, 1 << 20] {
        for factor in [1, 2, 3, 7, 64] {
            let ram = RamBackend::new(least_capacity(max_value) * factor, max_value, &[]);
            let longest = key(&"k".repeat(Key::MAX_LENGTH));
            ram.set(longest.clone(), vec![0; max_value].into(), None).await.unwrap();
            assert!(ram.get(&longest).await.unwrap().is_some(), "{max_value} bytes at {factor}");
        }
    }
}

/// A cache of 1 MiB in which the namespaces `a` and `b` have 256 KiB each.
fn with_shares() -> (Arc<RamBackend>, [Namespace; 2]) {
    let namespaces = ["a", "b"].map(|name| Namespace::new(name).unwrap());
    let shares = namespaces.clone().map(|namespace| (namespace, 256 << 10));
    (RamBackend::new(1 << 20, 1024, &shares), namespaces)
}

#[tokio::test]
async fn shares_and_the_rest_stay_within_max_bytes_together() {
    let (ram, [a, b]) = with_shares();
    let other = Namespace::new("other").unwrap();
    for n in 0..5_000 {
        for namespace in [None, Some(&a), Some(&b), Some(&other)] {
            let key = Key::new(namespace, &format!("key{n}")).unwrap();
            ram.set(key, vec![0; 1024].into(), None).await.unwrap();
        }
    }
    for namespace in ["a", "b"] {
        let weight = ram.partitions.of_namespace(Some(namespace)).entries.weight();
        assert!((128 << 10..=256 << 10).contains(&weight), "{weight}");
    }
    let weight = ram.partitions.of_namespace(None).entries.weight();
    assert!((256 << 10..=512 << 10).contains(&weight), "{weight}");
}

#[tokio::test(start_paused = true)]
async fn clears_fills_and_sweeps_apply_to_shares() {
    let (ram, [a, b]) = with_shares();
    let key = |namespace: &Namespace, name: &str| Key::new(Some(namespace), name).unwrap();
    for namespace in [&a, &b] {
        ram.set(key(namespace, "k1"), "v".into(), secs(1)).await.unwrap();
        ram.set(key(namespace, "k2"), "v".into(), None).await.unwrap();
    }
    assert_eq!(ram.clear_matching(&Selection::all(None)).await.unwrap(), 0);
    assert!(ram.clear(&key(&a, "k2")).await.unwrap());
    assert_eq!(ram.get(&key(&b, "k2")).await.unwrap(), Some("v".into()));
    let lease = Issuer::new().issue();
    assert_eq!(ram.claim(&key(&a, "k2"), &lease).await.unwrap(), Claim::Granted);
    assert!(ram.fill(key(&a, "k2"), &lease, "w".into(), None).await.unwrap());
    assert_eq!(ram.get(&key(&a, "k2")).await.unwrap(), Some("w".into()));
    tokio::time::sleep(SWEEP_INTERVAL * 2).await;
    assert_eq!(["a", "b"].map(|name| ram.partitions.of_namespace(Some(name)).entries.len()), [1, 1]);
    assert_eq!(ram.clear_matching(&Selection::all(Some(a.clone()))).await.unwrap(), 1);
    assert_eq!(ram.get(&key(&b, "k2")).await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_reader_finds_a_value_at_any_time_while_longer_and_shorter_ones_replace_it() {
    let ram = RamBackend::new(1 << 20, 1024, &[]);
    ram.set(key("k"), "0".into(), None).await.unwrap();
    let is_over = Arc::new(AtomicU64::new(0));
    let readers = [(); 2].map(|()| {
        let (ram, is_over) = (Arc::clone(&ram), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let (key, mut misses, mut reads) = (key("k"), 0_u64, 0_u64);
            while is_over.load(Ordering::Relaxed) == 0 || reads == 0 {
                misses += u64::from(ram.look_up(key.as_ref()).is_none());
                reads += 1;
            }
            misses
        })
    });
    for round in 0..50_000_usize {
        let (_, version) = ram.get_version(&key("k")).await.unwrap().unwrap();
        let value = vec![b'x'; 1 + round % 7 * 100];
        assert!(ram.replace(key("k"), Some(&version), value.into(), None).await.unwrap());
    }
    is_over.store(1, Ordering::Relaxed);
    assert_eq!(readers.map(|reader| reader.join().unwrap()), [0, 0]);
}

#[tokio::test]
async fn a_replacement_that_is_longer_evicts_others() {
    let max = 64 << 10;
    let ram = RamBackend::new(max, 4 << 10, &[]);
    for n in 0..200 {
        let key = key(&n.to_string());
        ram.set(key.clone(), "v".into(), None).await.unwrap();
        if let Some((_, version)) = ram.get_version(&key).await.unwrap() {
            assert!(ram.replace(key, Some(&version), vec![b'x'; 4 << 10].into(), None).await.unwrap());
        }
        let BackendStatus::Ram { bytes, .. } = ram.status() else { unreachable!() };
        assert!(bytes <= max, "{bytes}");
    }
}
