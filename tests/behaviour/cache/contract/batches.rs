//! get-many and set-many.

use bytes::Bytes;
use larder_host::cache::{CacheError, Duration, ScopedCache};

use crate::backends::{Backend, assert_invalid, bytes, over_every_backend, over_every_server, put, view};

over_every_backend! {
    results_have_the_order_of_the_keys,
    a_key_may_be_asked_for_twice,
    no_keys_no_results,
    one_key_is_a_batch_too,
    one_missing_key_is_one_miss,
    many_values_are_set_at_once,
    of_a_key_set_twice_the_last_value_stays,
    a_batch_replaces_what_was_there,
    no_entries_change_nothing,
    a_batch_has_1024_keys,
    a_batch_of_1025_is_refused_and_nothing_stored,
    a_batch_over_64_mib_is_refused_and_nothing_stored,
    values_that_are_too_many_bytes_together_are_too_large,
}

fn keys<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(str::to_owned).into()
}

fn entry(key: impl Into<String>, value: &str) -> (String, Vec<u8>) {
    (key.into(), value.as_bytes().to_vec())
}

async fn get_many<const N: usize>(cache: &ScopedCache, asked: [&str; N]) -> Vec<Option<Bytes>> {
    cache.get_many(&keys(asked)).await.unwrap()
}

async fn results_have_the_order_of_the_keys(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a", "b", "c"]).await;
    let found = get_many(&cache, ["c", "missing", "a", "b"]).await;
    assert_eq!(found, [Some(bytes("c")), None, Some(bytes("a")), Some(bytes("b"))]);
}

async fn a_key_may_be_asked_for_twice(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a"]).await;
    let found = get_many(&cache, ["a", "no", "a", "no"]).await;
    assert_eq!(found, [Some(bytes("a")), None, Some(bytes("a")), None]);
}

async fn no_keys_no_results(backend: Backend) {
    assert!(get_many(&backend.view().await, []).await.is_empty());
}

async fn one_key_is_a_batch_too(backend: Backend) {
    let cache = backend.view().await;
    cache.set_many(vec![entry("a", "1")], Duration::Default).await.unwrap();
    assert_eq!(get_many(&cache, ["a"]).await, [Some(bytes("1"))]);
}

async fn one_missing_key_is_one_miss(backend: Backend) {
    assert_eq!(get_many(&backend.view().await, ["a"]).await, [None]);
}

async fn many_values_are_set_at_once(backend: Backend) {
    let cache = backend.view().await;
    let entries = vec![entry("a", "1"), entry("b", ""), entry("c*", "3")];
    cache.set_many(entries, Duration::Default).await.unwrap();
    assert_eq!(get_many(&cache, ["a", "b", "c*"]).await, [Some(bytes("1")), Some(bytes("")), Some(bytes("3"))]);
    assert_eq!(cache.clear_all().await.unwrap(), 3);
}

async fn of_a_key_set_twice_the_last_value_stays(backend: Backend) {
    let cache = backend.view().await;
    let entries = vec![entry("a", "1"), entry("b", "2"), entry("a", "3")];
    cache.set_many(entries, Duration::Default).await.unwrap();
    assert_eq!(get_many(&cache, ["a", "b"]).await, [Some(bytes("3")), Some(bytes("2"))]);
}

async fn a_batch_replaces_what_was_there(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a", "b"]).await;
    cache.set_many(vec![entry("a", "new")], Duration::Default).await.unwrap();
    assert_eq!(get_many(&cache, ["a", "b"]).await, [Some(bytes("new")), Some(bytes("b"))]);
}

async fn no_entries_change_nothing(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a"]).await;
    cache.set_many::<Bytes>(Vec::new(), Duration::Default).await.unwrap();
    assert_eq!(get_many(&cache, ["a"]).await, [Some(bytes("a"))]);
}

async fn a_batch_has_1024_keys(backend: Backend) {
    let cache = backend.view().await;
    let entries: Vec<_> = (0..1024).map(|n| entry(format!("key{n}"), &format!("value{n}"))).collect();
    let keys: Vec<String> = entries.iter().map(|(key, _)| key.clone()).collect();
    let values: Vec<_> = entries.iter().map(|(_, value)| Some(Bytes::from(value.clone()))).collect();
    cache.set_many(entries, Duration::Default).await.unwrap();
    assert_eq!(cache.get_many(&keys).await.unwrap(), values);
}

async fn a_batch_of_1025_is_refused_and_nothing_stored(backend: Backend) {
    let cache = backend.view().await;
    let entries: Vec<_> = (0..1025).map(|n| entry(format!("key{n}"), "v")).collect();
    let keys: Vec<String> = entries.iter().map(|(key, _)| key.clone()).collect();
    assert_invalid(cache.set_many(entries, Duration::Default).await, "entries");
    assert_invalid(cache.get_many(&keys).await, "keys");
    assert_eq!(cache.clear_all().await.unwrap(), 0);
}

async fn a_batch_over_64_mib_is_refused_and_nothing_stored(backend: Backend) {
    let cache = backend.view().await;
    let entries: Vec<_> = (0..64).map(|n| (format!("key{n}"), vec![0; 1 << 20])).collect();
    assert_invalid(cache.set_many(entries, Duration::Default).await, "entries");
    assert_eq!(cache.clear_all().await.unwrap(), 0);
}

async fn values_that_are_too_many_bytes_together_are_too_large(backend: Backend) {
    let cache = view(&backend.cache("max_value_bytes = 100000\n[sandbox]\nmax_batch_bytes = \"5MiB\"").await);
    cache.set("k", vec![b'x'; 100_000].into(), Duration::Default).await.unwrap();
    // 52 of them are under 5 MiB, 53 are over.
    let asked = |times| vec!["k".to_owned(); times];
    assert_eq!(cache.get_many(&asked(52)).await.unwrap().iter().flatten().count(), 52);
    let refused = cache.get_many(&asked(53)).await.unwrap_err();
    assert!(matches!(refused, CacheError::ValueTooLarge { max, .. } if max == 5 << 20), "{refused:?}");
    assert!(cache.get("k").await.unwrap().is_some());
}

mod servers {
    use super::*;

    over_every_server! { a_full_server_refuses_a_set_and_a_batch }

    async fn a_full_server_refuses_a_set_and_a_batch(mut backend: Backend) {
        let cache = backend.view().await;
        let mut client = backend.behind().client();
        ::redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut client).unwrap();
        let one = cache.set("a", bytes("v"), Duration::Default).await;
        let many = cache.set_many(vec![entry("a", "v"), entry("b", "v")], Duration::Default).await;
        assert!(matches!(&one, Err(CacheError::Unavailable(reason)) if reason.contains("OOM")), "{one:?}");
        assert!(matches!(&many, Err(CacheError::Unavailable(reason)) if reason.contains("OOM")), "{many:?}");
    }
}
