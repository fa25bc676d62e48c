//! `max_lease`: how long a vacancy keeps others from computing.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use larder_host::cache::{Cache, Duration, Entry, ScopedCache, Vacancy};
use larder_tests::{Larder, on_every_backend};

use crate::backends::{Backend, over_every_backend, over_every_server, view, within};

async fn take(cache: &ScopedCache, key: &str) -> Vacancy {
    match within(cache.get_or_set(key)).await.unwrap() {
        Entry::Vacant(vacancy) => vacancy,
        Entry::Occupied(value) => panic!("`{key}` holds {value:?}"),
    }
}

/// Far shorter than the lease and the wait, so that nothing else can end a hold.
const SHORT: &str = "max_lease = \"300ms\"\nwait = \"10m\"\n";

/// A caller of one cache waits for a value that a holder, at the same cache or another one, does not compute.
async fn a_waiter_follows(held: &Arc<Cache>, asked: &Arc<Cache>) {
    let (slow, next, third) = (view(held), view(asked), view(asked));
    let late = take(&slow, "k").await;
    let vacancy = take(&next, "k").await;
    assert!(!slow.fill(late, "late".into(), Duration::Default).await.unwrap(), "it is too late");
    assert_eq!(third.get("k").await.unwrap(), None);
    assert!(next.fill(vacancy, "next".into(), Duration::Default).await.unwrap());
    assert_eq!(third.get("k").await.unwrap(), Some("next".into()));
}

async fn max_lease_passes_a_vacancy_that_is_held_too_long_to_a_waiter(backend: Backend) {
    let cache = backend.cache(SHORT).await;
    a_waiter_follows(&cache, &cache).await;
}

async fn max_lease_ends_a_hold_without_waiters(backend: Backend) {
    let cache = backend.cache(SHORT).await;
    let (slow, next) = (view(&cache), view(&cache));
    let late = take(&slow, "k").await;
    tokio::time::sleep(StdDuration::from_secs(1)).await;
    let vacancy = take(&next, "k").await;
    // A vacancy that was released is not released again on drop, and neither is the lease of its next holder.
    drop(late);
    cache.drain().await;
    assert!(next.fill(vacancy, "next".into(), Duration::Default).await.unwrap());
}

over_every_backend!(
    max_lease_passes_a_vacancy_that_is_held_too_long_to_a_waiter,
    max_lease_ends_a_hold_without_waiters
);

mod elsewhere {
    use super::*;

    async fn max_lease_passes_a_vacancy_that_is_held_too_long_to_a_waiter_of_another_process(backend: Backend) {
        let (here, there) = (backend.cache(SHORT).await, backend.cache(SHORT).await);
        a_waiter_follows(&here, &there).await;
    }

    over_every_server!(max_lease_passes_a_vacancy_that_is_held_too_long_to_a_waiter_of_another_process);
}

#[tokio::test(start_paused = true)]
async fn within_max_lease_a_computation_is_stored() {
    let cache = Backend::ram().cache("").await;
    let holder = view(&cache);
    let vacancy = take(&holder, "k").await;
    tokio::time::sleep(StdDuration::from_millis(299_999)).await;
    assert!(holder.fill(vacancy, "v".into(), Duration::Default).await.unwrap());
    let vacancy = take(&holder, "another").await;
    tokio::time::sleep(StdDuration::from_millis(300_001)).await;
    assert!(!holder.fill(vacancy, "v".into(), Duration::Default).await.unwrap());
}

/// The task that watches the vacancies belongs to the runtime of the first one.
#[test]
fn max_lease_ends_a_hold_also_if_the_runtime_of_an_earlier_one_has_shut_down() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let first = runtime();
    let (cache, _held) = first.block_on(async {
        let cache = Backend::ram().cache("").await;
        let held = take(&view(&cache), "first").await;
        tokio::task::yield_now().await;
        (cache, held)
    });
    drop(first);
    runtime().block_on(async {
        let holder = view(&cache);
        let vacancy = take(&holder, "second").await;
        tokio::time::sleep(StdDuration::from_secs(301)).await;
        assert!(!holder.fill(vacancy, "late".into(), Duration::Default).await.unwrap());
    });
}

#[test]
fn max_lease_bounds_how_long_a_plugin_holds_a_key() {
    on_every_backend(|config| {
        let run = Larder::run("hostile").config(&format!("{config}max_lease = \"200ms\"\n"));
        let run = run.arg("hold slow 1000").arg("get slow").arg("set k v").succeed();
        assert_eq!(run.stdout, "filled false\nmiss\nok\n");
        let run = Larder::run("hostile").config(config).arg("hold slow 1000").arg("get slow").succeed();
        assert_eq!(run.stdout, "filled true\nhit v\n");
    });
}
