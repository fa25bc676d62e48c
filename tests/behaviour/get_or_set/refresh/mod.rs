//! Stale values: who refreshes them, what everyone else gets, and what a refresh may replace.
//!
//! A value is made stale without waiting: by a call with a `stale` that is longer than the value's life.

mod servers;

use std::time::Duration as StdDuration;

use bytes::Bytes;
use larder_host::cache::{CacheError, Duration, Freshness, RefreshStats, ScopedCache, Vacancy};

use super::{LONG_WAIT, occupied, vacancy};
use crate::backends::{Backend, assert_invalid, bytes, namespaced, over_every_backend, put, read_only, view, within};

over_every_backend! {
    a_value_is_stale_in_the_last_part_of_its_life,
    without_a_value_a_caller_gets_a_vacancy_and_others_wait_for_it,
    one_caller_refreshes_and_all_others_get_the_stale_value,
    a_stale_value_is_a_value_for_every_other_call,
    what_a_refresh_stored_is_fresh,
    a_clear_beats_a_refresh_that_began_before_it,
    a_set_beats_a_refresh_that_began_before_it_also_of_the_same_value,
    a_refresh_by_another_caller_beats_one_that_took_longer,
    a_refresh_of_an_expired_value_is_not_stored,
    a_dropped_refresh_passes_to_another_caller_after_a_pause,
    max_lease_passes_a_refresh_that_takes_too_long_to_another_caller,
    a_refused_refresh_is_a_failed_one,
    failed_refreshes_leave_the_expiry_as_it_was,
    the_holder_of_a_refresh_gets_the_stale_value_when_it_asks_again,
    a_value_without_expiry_is_never_stale,
    max_expire_bounds_both_parts_together,
    max_expire_halves_the_stale_part,
    a_refresh_may_store_without_a_stale_part,
    a_stale_part_of_zero_or_without_end_is_refused,
    a_plugin_that_may_only_read_gets_no_refresh,
    a_refresh_is_in_no_key_space,
}

const MINUTE: Duration = Duration::Milliseconds(60_000);

/// Longer than any value of these tests lives.
const ANY_LIFE: Duration = Duration::Milliseconds(3_600_000);

/// Stores a value that is fresh for a minute and stale for another one.
async fn store(cache: &ScopedCache, key: &str, value: &str) {
    let vacancy = vacancy(cache, key).await;
    assert_eq!(within(cache.fill_stale(vacancy, bytes(value), MINUTE, MINUTE)).await, Ok(true));
}

async fn ask(cache: &ScopedCache, key: &str) -> Freshness {
    within(cache.get_or_refresh(key, ANY_LIFE)).await.unwrap()
}

/// The refresh of a stale value.
async fn refresh(cache: &ScopedCache, key: &str) -> Vacancy {
    match ask(cache, key).await {
        Freshness::Stale { refresh: Some(refresh), .. } => refresh,
        other => panic!("no refresh, but {other:?}"),
    }
}

/// The stale value that a caller gets who does not refresh it.
async fn stale(cache: &ScopedCache, key: &str) -> Bytes {
    match ask(cache, key).await {
        Freshness::Stale { value, refresh: None } => value,
        other => panic!("no stale value alone, but {other:?}"),
    }
}

async fn end(cache: &ScopedCache, refresh: Vacancy, value: &str) -> Result<bool, CacheError> {
    within(cache.fill_stale(refresh, bytes(value), MINUTE, MINUTE)).await
}

/// Asks until a caller gets the refresh.
async fn next_refresh(cache: &ScopedCache, key: &str) -> Vacancy {
    let next = async {
        loop {
            match cache.get_or_refresh(key, ANY_LIFE).await.unwrap() {
                Freshness::Stale { refresh: Some(refresh), .. } => return refresh,
                _ => tokio::time::sleep(StdDuration::from_millis(10)).await,
            }
        }
    };
    within(next).await
}

async fn a_value_is_stale_in_the_last_part_of_its_life(backend: Backend) {
    let cache = backend.view().await;
    let stored = async || store(&cache, "k", "v").await;
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(120)), stored).await;
    cache.clear("k").await.unwrap();
    store(&cache, "k", "v").await;
    for fresh in [1, 60_000, 100_000] {
        let found = within(cache.get_or_refresh("k", Duration::Milliseconds(fresh))).await.unwrap();
        assert!(matches!(found, Freshness::Fresh(value) if value == "v"), "stale within {fresh} ms");
    }
    let found = within(cache.get_or_refresh("k", Duration::Milliseconds(120_000))).await.unwrap();
    assert!(matches!(found, Freshness::Stale { value, .. } if value == "v"));
}

async fn without_a_value_a_caller_gets_a_vacancy_and_others_wait_for_it(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let (one, two) = (view(&cache), view(&cache));
    let Freshness::Vacant(vacancy) = ask(&one, "k").await else { panic!("there is no value") };
    let other = async { within(two.get_or_refresh("k", MINUTE)).await.unwrap() };
    let fill = async { end(&one, vacancy, "v").await.unwrap() };
    let (other, is_stored) = tokio::join!(other, fill);
    assert!(is_stored);
    assert!(matches!(other, Freshness::Fresh(value) if value == "v"));
}

async fn one_caller_refreshes_and_all_others_get_the_stale_value(backend: Backend) {
    let cache = backend.cache("").await;
    store(&view(&cache), "k", "old").await;
    let callers = (0..16).map(|_| {
        let caller = view(&cache);
        tokio::spawn(async move { ask(&caller, "k").await })
    });
    let mut refreshes = Vec::new();
    for found in callers.collect::<Vec<_>>() {
        match found.await.unwrap() {
            Freshness::Stale { value, refresh } if value == "old" => refreshes.extend(refresh),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refreshes.len(), 1);
    let plugin = view(&cache);
    assert_eq!(stale(&plugin, "k").await, "old");
    assert_eq!(end(&plugin, refreshes.pop().unwrap(), "new").await, Ok(true));
    assert_eq!(cache.refresh_stats(), RefreshStats { stale: 17, stored: 1, ..RefreshStats::default() });
}

async fn a_stale_value_is_a_value_for_every_other_call(backend: Backend) {
    let cache = backend.view().await;
    store(&cache, "k", "old").await;
    let refresh = refresh(&cache, "k").await;
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("old")));
    assert_eq!(cache.get_many(&["k"]).await.unwrap(), [Some(bytes("old"))]);
    assert_eq!(occupied(cache.get_or_set("k").await), "old");
    assert_eq!(end(&cache, refresh, "new").await, Ok(true));
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("new")));
}

async fn what_a_refresh_stored_is_fresh(backend: Backend) {
    let cache = backend.view().await;
    store(&cache, "k", "old").await;
    let first = refresh(&cache, "k").await;
    let stored = async || assert_eq!(end(&cache, first, "a longer value").await, Ok(true));
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(120)), stored).await;
    store_again(&cache, "k", "old").await;
    let second = refresh(&cache, "k").await;
    assert_eq!(end(&cache, second, "new").await, Ok(true));
    let found = within(cache.get_or_refresh("k", MINUTE)).await.unwrap();
    assert!(matches!(found, Freshness::Fresh(value) if value == "new"));
    // The lease on the refresh was released, so the next one is not held up.
    let third = next_refresh(&cache, "k").await;
    assert_eq!(end(&cache, third, "newer").await, Ok(true));
}

async fn store_again(cache: &ScopedCache, key: &str, value: &str) {
    cache.clear(key).await.unwrap();
    store(cache, key, value).await;
}

async fn a_clear_beats_a_refresh_that_began_before_it(backend: Backend) {
    let cache = backend.view().await;
    for clear_all in [false, true] {
        store_again(&cache, "k", "old").await;
        let refresh = next_refresh(&cache, "k").await;
        if clear_all {
            assert_eq!(cache.clear_all().await, Ok(1));
        } else {
            assert_eq!(cache.clear("k").await, Ok(true));
        }
        assert_eq!(end(&cache, refresh, "computed").await, Ok(false));
        assert_eq!(cache.get("k").await.unwrap(), None);
        assert!(matches!(ask(&cache, "k").await, Freshness::Vacant(_)));
    }
    assert_eq!(cache.get("k").await.unwrap(), None);
}

async fn a_set_beats_a_refresh_that_began_before_it_also_of_the_same_value(backend: Backend) {
    let cache = backend.view().await;
    for value in ["other", "old"] {
        store_again(&cache, "k", "old").await;
        let refresh = next_refresh(&cache, "k").await;
        cache.set("k", bytes(value), Duration::Milliseconds(30_000)).await.unwrap();
        assert_eq!(end(&cache, refresh, "computed").await, Ok(false));
        assert_eq!(cache.get("k").await.unwrap(), Some(bytes(value)));
        store_again(&cache, "k", "old").await;
        let refresh = next_refresh(&cache, "k").await;
        let entries = vec![("k".to_owned(), bytes(value)), ("other".to_owned(), bytes("v"))];
        cache.set_many(entries, Duration::Milliseconds(30_000)).await.unwrap();
        assert_eq!(end(&cache, refresh, "computed").await, Ok(false));
        assert_eq!(cache.get("k").await.unwrap(), Some(bytes(value)));
    }
}

async fn a_refresh_by_another_caller_beats_one_that_took_longer(backend: Backend) {
    let cache = backend.view().await;
    store(&cache, "k", "old").await;
    let slow = refresh(&cache, "k").await;
    // As a caller does that does not know of refreshes.
    cache.clear("k").await.unwrap();
    let other = vacancy(&cache, "k").await;
    // Later than the first value. Two that expire in the same millisecond are the same.
    let stored = cache.fill_stale(other, bytes("old"), MINUTE, Duration::Milliseconds(61_000));
    assert_eq!(within(stored).await, Ok(true));
    assert_eq!(end(&cache, slow, "slow").await, Ok(false));
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("old")));
}

async fn a_refresh_of_an_expired_value_is_not_stored(backend: Backend) {
    let cache = backend.view().await;
    cache.set("k", bytes("old"), Duration::Milliseconds(300)).await.unwrap();
    let refresh = match ask(&cache, "k").await {
        Freshness::Stale { refresh: Some(refresh), .. } => refresh,
        // The test was too slow; there is nothing to see.
        _ => return,
    };
    let expires = async {
        while cache.get("k").await.unwrap().is_some() {
            tokio::time::sleep(StdDuration::from_millis(10)).await;
        }
    };
    within(expires).await;
    assert_eq!(end(&cache, refresh, "computed").await, Ok(false));
    assert_eq!(cache.get("k").await.unwrap(), None);
}

async fn a_dropped_refresh_passes_to_another_caller_after_a_pause(backend: Backend) {
    let cache = backend.cache("").await;
    let (one, two) = (view(&cache), view(&cache));
    store(&one, "k", "old").await;
    drop(refresh(&one, "k").await);
    assert_eq!(stale(&one, "k").await, "old");
    assert_eq!(stale(&two, "k").await, "old");
    let second = next_refresh(&two, "k").await;
    assert_eq!(stale(&one, "k").await, "old");
    assert_eq!(end(&two, second, "new").await, Ok(true));
    let RefreshStats { stored, failed, .. } = cache.refresh_stats();
    assert_eq!((stored, failed), (1, 1));
}

async fn max_lease_passes_a_refresh_that_takes_too_long_to_another_caller(backend: Backend) {
    let cache = backend.cache("max_lease = \"300ms\"").await;
    let (one, two, three) = (view(&cache), view(&cache), view(&cache));
    one.set("k", bytes("old"), MINUTE).await.unwrap();
    let slow = refresh(&one, "k").await;
    let next = next_refresh(&two, "k").await;
    // Whichever of them stores first wins.
    assert_eq!(end(&one, slow, "slow").await, Ok(true));
    assert_eq!(end(&two, next, "next").await, Ok(false));
    assert_eq!(three.get("k").await.unwrap(), Some(bytes("slow")));
    let RefreshStats { stored, superseded, failed, .. } = cache.refresh_stats();
    assert_eq!((stored, superseded, failed), (1, 1, 0));
}

/// The clock stands still while nobody waits, so no other refresh reaches `max_lease`.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_ends_late_leaves_the_refresh_of_another_caller() {
    let backend = Backend::ram();
    let cache = backend.cache("max_lease = \"300ms\"").await;
    let (one, two, three) = (view(&cache), view(&cache), view(&cache));
    store(&one, "k", "old").await;
    let late = refresh(&one, "k").await;
    let next = next_refresh(&two, "k").await;
    drop(late);
    assert_eq!(stale(&three, "k").await, "old");
    assert_eq!(end(&two, next, "next").await, Ok(true));
    // The failed one holds up nobody either, beyond its pause.
    let third = next_refresh(&three, "k").await;
    assert_eq!(end(&three, third, "newest").await, Ok(true));
}

async fn a_refused_refresh_is_a_failed_one(backend: Backend) {
    let cache = backend.cache("max_value_bytes = \"1KiB\"").await;
    let plugin = view(&cache);
    store(&plugin, "k", "old").await;
    let refresh = refresh(&plugin, "k").await;
    let outcome = within(plugin.fill_stale(refresh, vec![b'x'; 2048].into(), MINUTE, MINUTE)).await;
    assert!(matches!(outcome, Err(CacheError::ValueTooLarge { .. })), "{outcome:?}");
    assert_eq!(stale(&plugin, "k").await, "old");
    assert_eq!(cache.refresh_stats().failed, 1);
}

async fn failed_refreshes_leave_the_expiry_as_it_was(backend: Backend) {
    let cache = backend.view().await;
    let fail = async || {
        store(&cache, "k", "old").await;
        drop(refresh(&cache, "k").await);
        assert_eq!(stale(&cache, "k").await, "old");
    };
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(120)), fail).await;
}

async fn the_holder_of_a_refresh_gets_the_stale_value_when_it_asks_again(backend: Backend) {
    let cache = backend.view().await;
    store(&cache, "k", "old").await;
    let refresh = refresh(&cache, "k").await;
    assert_eq!(stale(&cache, "k").await, "old");
    assert_eq!(end(&cache, refresh, "new").await, Ok(true));
}

async fn a_value_without_expiry_is_never_stale(backend: Backend) {
    let cache = backend.view().await;
    let vacancy = vacancy(&cache, "k").await;
    assert_eq!(within(cache.fill_stale(vacancy, bytes("v"), Duration::Unlimited, MINUTE)).await, Ok(true));
    assert!(matches!(ask(&cache, "k").await, Freshness::Fresh(value) if value == "v"));
}

async fn max_expire_bounds_both_parts_together(backend: Backend) {
    let cache = view(&backend.cache("max_expire = \"100s\"").await);
    let stored = async || store(&cache, "k", "v").await;
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(100)), stored).await;
}

async fn max_expire_halves_the_stale_part(backend: Backend) {
    let cache = view(&backend.cache("max_expire = \"100s\"").await);
    let stored = async || {
        let vacancy = vacancy(&cache, "k").await;
        let stored = cache.fill_stale(vacancy, bytes("v"), Duration::Milliseconds(10_000), ANY_LIFE);
        assert_eq!(within(stored).await, Ok(true));
    };
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(60)), stored).await;
    store_again(&cache, "k", "v").await;
    assert!(matches!(ask(&cache, "k").await, Freshness::Fresh(_)), "stale although it has 100 s");
}

async fn a_refresh_may_store_without_a_stale_part(backend: Backend) {
    let cache = backend.view().await;
    store(&cache, "k", "old").await;
    let refresh = refresh(&cache, "k").await;
    let stored = async || assert_eq!(within(cache.fill(refresh, bytes("new"), MINUTE)).await, Ok(true));
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(60)), stored).await;
}

async fn a_stale_part_of_zero_or_without_end_is_refused(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["there"]).await;
    for stale in [Duration::Milliseconds(0), Duration::Unlimited] {
        for key in ["there", "missing"] {
            assert_invalid(within(cache.get_or_refresh(key, stale)).await, "stale");
        }
        let vacancy = vacancy(&cache, "k").await;
        assert_invalid(within(cache.fill_stale(vacancy, bytes("v"), MINUTE, stale)).await, "stale");
        assert_eq!(cache.get("k").await.unwrap(), None);
    }
}

async fn a_plugin_that_may_only_read_gets_no_refresh(backend: Backend) {
    let cache = backend.cache("").await;
    store(&view(&cache), "k", "v").await;
    let outcome = within(read_only(&cache).get_or_refresh("k", MINUTE)).await;
    assert!(matches!(outcome, Err(CacheError::ReadOnly)), "{outcome:?}");
}

async fn a_refresh_is_in_no_key_space(backend: Backend) {
    let cache = backend.cache("").await;
    let views = [view(&cache), namespaced(&cache, "shop"), namespaced(&cache, "refresh")];
    let mut held = Vec::new();
    for view in &views {
        store(view, "k", "old").await;
        held.push(refresh(view, "k").await);
    }
    for view in &views {
        assert_eq!(view.clear_pattern("*k").await, Ok(1));
        assert_eq!(view.clear_all().await, Ok(0));
        assert_eq!(view.get("k").await.unwrap(), None);
    }
}
