//! How long an entry lives.

use std::time::Duration as StdDuration;

use larder_host::cache::{Duration, Entry};

use crate::backends::{Backend, assert_invalid, bytes, over_every_backend, present, put_expired, view};

over_every_backend! {
    an_entry_lasts_300_seconds_by_default,
    default_expire_applies_to_what_is_set_without_a_duration,
    a_duration_counts_in_milliseconds,
    a_batch_has_one_duration,
    a_fill_has_a_duration,
    a_new_value_has_its_own_duration_only,
    an_unlimited_entry_has_no_end,
    default_expire_may_be_unlimited,
    max_expire_shortens_what_is_longer,
    max_expire_bounds_unlimited,
    max_expire_bounds_the_default,
    max_expire_leaves_what_is_shorter,
    max_expire_bounds_fills_and_batches,
    a_duration_of_zero_is_refused_and_nothing_stored,
    a_duration_of_u64_max_does_not_overflow,
    an_expired_entry_is_a_miss,
    an_expired_entry_does_not_count_as_cleared,
    an_expired_entry_is_computed_again,
}

fn ms(milliseconds: u64) -> Duration {
    Duration::Milliseconds(milliseconds)
}

/// Asserts how long an entry lasts in a cache with these keys in its table.
async fn assert_duration(backend: &Backend, toml: &str, asked: Duration, expected: Option<StdDuration>) {
    let cache = view(&backend.cache(toml).await);
    let set = async || cache.set("k", bytes("v"), asked).await.unwrap();
    backend.assert_lasts(&cache, "k", expected, set).await;
}

async fn an_entry_lasts_300_seconds_by_default(backend: Backend) {
    assert_duration(&backend, "", Duration::Default, Some(StdDuration::from_secs(300))).await;
}

async fn default_expire_applies_to_what_is_set_without_a_duration(backend: Backend) {
    let toml = "default_expire = \"90500ms\"";
    assert_duration(&backend, toml, Duration::Default, Some(StdDuration::from_millis(90_500))).await;
    assert_duration(&backend, toml, ms(95_000), Some(StdDuration::from_millis(95_000))).await;
}

async fn a_duration_counts_in_milliseconds(backend: Backend) {
    assert_duration(&backend, "", ms(60_001), Some(StdDuration::from_millis(60_001))).await;
}

async fn a_batch_has_one_duration(backend: Backend) {
    let cache = view(&backend.cache("").await);
    for key in ["a", "b"] {
        let entries = vec![("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let set_many = async || cache.set_many(entries, ms(70_123)).await.unwrap();
        backend.assert_lasts(&cache, key, Some(StdDuration::from_millis(70_123)), set_many).await;
    }
}

async fn a_fill_has_a_duration(backend: Backend) {
    let cache = view(&backend.cache("").await);
    let fill = async || {
        let Entry::Vacant(vacancy) = cache.get_or_set("k").await.unwrap() else { panic!("the cache is not empty") };
        assert!(cache.fill(vacancy, bytes("v"), ms(70_123)).await.unwrap());
    };
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_millis(70_123)), fill).await;
}

async fn a_new_value_has_its_own_duration_only(backend: Backend) {
    let cache = view(&backend.cache("").await);
    cache.set("k", bytes("short"), ms(60_000)).await.unwrap();
    let set = async || cache.set("k", bytes("long"), ms(120_000)).await.unwrap();
    backend.assert_lasts(&cache, "k", Some(StdDuration::from_secs(120)), set).await;
    let set = async || cache.set("k", bytes("longest"), Duration::Unlimited).await.unwrap();
    backend.assert_lasts(&cache, "k", None, set).await;
}

async fn an_unlimited_entry_has_no_end(backend: Backend) {
    assert_duration(&backend, "", Duration::Unlimited, None).await;
}

async fn default_expire_may_be_unlimited(backend: Backend) {
    assert_duration(&backend, "default_expire = \"unlimited\"", Duration::Default, None).await;
}

const MAX_90_S: &str = "default_expire = 60\nmax_expire = 90";

async fn max_expire_shortens_what_is_longer(backend: Backend) {
    assert_duration(&backend, MAX_90_S, ms(90_001), Some(StdDuration::from_secs(90))).await;
    assert_duration(&backend, MAX_90_S, ms(u64::MAX), Some(StdDuration::from_secs(90))).await;
}

async fn max_expire_bounds_unlimited(backend: Backend) {
    assert_duration(&backend, MAX_90_S, Duration::Unlimited, Some(StdDuration::from_secs(90))).await;
}

async fn max_expire_bounds_the_default(backend: Backend) {
    for default in ["\"unlimited\"", "100"] {
        let toml = format!("default_expire = {default}\nmax_expire = 90");
        assert_duration(&backend, &toml, Duration::Default, Some(StdDuration::from_secs(90))).await;
    }
}

async fn max_expire_leaves_what_is_shorter(backend: Backend) {
    assert_duration(&backend, MAX_90_S, ms(89_999), Some(StdDuration::from_millis(89_999))).await;
    assert_duration(&backend, MAX_90_S, Duration::Default, Some(StdDuration::from_secs(60))).await;
}

async fn max_expire_bounds_fills_and_batches(backend: Backend) {
    let cache = view(&backend.cache(MAX_90_S).await);
    let set_many = async || cache.set_many(vec![("a".to_owned(), b"1".to_vec())], Duration::Unlimited).await.unwrap();
    backend.assert_lasts(&cache, "a", Some(StdDuration::from_secs(90)), set_many).await;
    let fill = async || {
        let Entry::Vacant(vacancy) = cache.get_or_set("b").await.unwrap() else { panic!("the cache is not empty") };
        assert!(cache.fill(vacancy, bytes("v"), Duration::Unlimited).await.unwrap());
    };
    backend.assert_lasts(&cache, "b", Some(StdDuration::from_secs(90)), fill).await;
}

async fn a_duration_of_zero_is_refused_and_nothing_stored(backend: Backend) {
    let cache = backend.view().await;
    cache.set("old", bytes("old"), Duration::Default).await.unwrap();
    for key in ["old", "new"] {
        assert_invalid(cache.set(key, bytes("v"), ms(0)).await, "duration");
        assert_invalid(cache.set_many(vec![(key.to_owned(), b"v".to_vec())], ms(0)).await, "duration");
    }
    assert_invalid(cache.set_many::<bytes::Bytes>(Vec::new(), ms(0)).await, "duration");
    assert_eq!(cache.get("old").await.unwrap(), Some(bytes("old")));
    assert_eq!(cache.get("new").await.unwrap(), None);
}

async fn a_duration_of_u64_max_does_not_overflow(backend: Backend) {
    assert_duration(&backend, "", ms(u64::MAX), Some(Duration::LONGEST)).await;
    assert_duration(&backend, "", ms(u64::MAX - 1), Some(Duration::LONGEST)).await;
    assert_duration(&backend, "", ms(i64::MAX.unsigned_abs()), Some(Duration::LONGEST)).await;
}

async fn an_expired_entry_is_a_miss(backend: Backend) {
    let cache = backend.view().await;
    put_expired(&cache, "k").await;
    assert_eq!(cache.get("k").await.unwrap(), None);
    put_expired(&cache, "k").await;
    assert_eq!(cache.get_many(&["k".to_owned()]).await.unwrap(), [None]);
}

async fn an_expired_entry_does_not_count_as_cleared(backend: Backend) {
    let cache = backend.view().await;
    put_expired(&cache, "k").await;
    assert!(!cache.clear("k").await.unwrap());
    put_expired(&cache, "k").await;
    assert_eq!(cache.clear_pattern("k*").await.unwrap(), 0);
    put_expired(&cache, "k").await;
    assert_eq!(cache.clear_all().await.unwrap(), 0);
}

async fn an_expired_entry_is_computed_again(backend: Backend) {
    let cache = backend.view().await;
    put_expired(&cache, "k").await;
    let Entry::Vacant(vacancy) = cache.get_or_set("k").await.unwrap() else { panic!("an expired entry was served") };
    assert!(cache.fill(vacancy, bytes("new"), Duration::Default).await.unwrap());
    assert_eq!(present(&cache, &["k"]).await, ["k"]);
}
