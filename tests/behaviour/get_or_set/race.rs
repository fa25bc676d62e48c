//! Many plugins on many threads ask for one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use larder_host::cache::{Cache, Duration, Entry};
use larder_tests::Kind;
use tokio::task::JoinSet;

use super::{LONG_WAIT, fill};
use crate::backends::{Backend, bytes, view, within};

fn backends() -> impl Iterator<Item = Backend> {
    std::iter::once(Backend::ram()).chain(Kind::ALL.into_iter().filter_map(Backend::server))
}

/// Lets 32 plugins ask for each of some keys at once, and gives the number of computations.
async fn computations(cache: &Arc<Cache>, keys: u32, is_given_up: impl Fn(u32) -> bool) -> u32 {
    let computed = Arc::new(AtomicU32::new(0));
    for key in 0..keys {
        let mut callers = JoinSet::new();
        for n in 0..32 {
            let (cache, computed) = (view(cache), Arc::clone(&computed));
            let is_given_up = is_given_up(n);
            callers.spawn(async move {
                match cache.get_or_set(&format!("key{key}")).await.unwrap() {
                    Entry::Occupied(value) => assert_eq!(value, bytes("computed")),
                    Entry::Vacant(vacancy) if is_given_up => drop(vacancy),
                    Entry::Vacant(vacancy) => {
                        computed.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        assert_eq!(fill(&cache, vacancy, "computed").await, Ok(true));
                    }
                }
            });
        }
        while let Some(caller) = within(callers.join_next()).await {
            caller.unwrap();
        }
    }
    computed.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_32_plugins_at_once_one_computes() {
    for backend in backends() {
        let cache = backend.cache(LONG_WAIT).await;
        assert_eq!(computations(&cache, 50, |_| false).await, 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_32_plugins_half_of_which_give_up_one_computes() {
    for backend in backends() {
        let cache = backend.cache(LONG_WAIT).await;
        assert_eq!(computations(&cache, 50, |n| n % 2 == 0).await, 50);
    }
}

/// Each round sets the origin, clears, and then asserts that no value from before the clear remains.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_computed_before_a_clear_outlives_it() {
    for backend in backends() {
        let cache = backend.cache(LONG_WAIT).await;
        let truth = Arc::new(AtomicU32::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (cache, truth) = (view(&cache), Arc::clone(&truth));
            callers.spawn(async move {
                loop {
                    if let Entry::Vacant(vacancy) = cache.get_or_set("k").await.unwrap() {
                        let computed = truth.load(Ordering::SeqCst).to_string();
                        tokio::task::yield_now().await;
                        let _stored = cache.fill(vacancy, bytes(&computed), Duration::Default).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        let cleaner = view(&cache);
        for round in 1..=300_u32 {
            truth.store(round, Ordering::SeqCst);
            let _removed = match round % 3 {
                0 => u64::from(within(cleaner.clear("k")).await.unwrap()),
                1 => within(cleaner.clear_pattern("k*")).await.unwrap(),
                _ => within(cleaner.clear_all()).await.unwrap(),
            };
            if let Some(found) = within(cleaner.get("k")).await.unwrap() {
                assert_eq!(found, bytes(&round.to_string()), "what was computed before the clear is there after it");
            }
        }
        callers.shutdown().await;
    }
}
