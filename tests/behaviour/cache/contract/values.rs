//! One key, one value.

use bytes::Bytes;
use larder_host::cache::{CacheError, Duration, Entry};

use crate::backends::{Backend, assert_invalid, bytes, over_every_backend, over_every_server, present, put};

over_every_backend! {
    a_key_never_set_is_a_miss,
    a_stored_value_is_a_hit,
    a_stored_empty_value_is_a_hit,
    a_value_is_any_bytes,
    a_value_of_one_mebibyte_is_kept,
    the_last_value_set_stays,
    max_value_bytes_bounds_what_is_stored,
    a_value_that_begins_like_a_lease_is_refused_and_not_stored,
    a_key_is_any_text_of_1_to_1024_bytes,
    a_bad_key_is_refused_by_every_call,
}

async fn a_key_never_set_is_a_miss(backend: Backend) {
    assert_eq!(backend.view().await.get("k").await.unwrap(), None);
}

async fn a_stored_value_is_a_hit(backend: Backend) {
    let cache = backend.view().await;
    cache.set("user:123", bytes("John"), Duration::Default).await.unwrap();
    assert_eq!(cache.get("user:123").await.unwrap(), Some(bytes("John")));
    assert_eq!(cache.get("user:12").await.unwrap(), None);
}

async fn a_stored_empty_value_is_a_hit(backend: Backend) {
    let cache = backend.view().await;
    cache.set("k", Bytes::new(), Duration::Default).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some(Bytes::new()));
    assert_eq!(cache.get_many(&["k".to_owned()]).await.unwrap(), [Some(Bytes::new())]);
    assert!(cache.clear("k").await.unwrap());
}

async fn a_value_is_any_bytes(backend: Backend) {
    let cache = backend.view().await;
    let all: Bytes = (0..=255).chain(*b"\r\n$-1\r\n\0").collect();
    cache.set("k", all.clone(), Duration::Default).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some(all));
}

async fn a_value_of_one_mebibyte_is_kept(backend: Backend) {
    let cache = backend.view().await;
    let large: Bytes = (0..1 << 20).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    cache.set("k", large.clone(), Duration::Default).await.unwrap();
    assert!(cache.get("k").await.unwrap() == Some(large));
}

async fn the_last_value_set_stays(backend: Backend) {
    let cache = backend.view().await;
    for value in ["first", "a longer second", ""] {
        cache.set("k", bytes(value), Duration::Default).await.unwrap();
        assert_eq!(cache.get("k").await.unwrap(), Some(bytes(value)));
    }
    assert_eq!(cache.clear_all().await.unwrap(), 1);
}

async fn max_value_bytes_bounds_what_is_stored(backend: Backend) {
    let cache = crate::backends::view(&backend.cache("max_value_bytes = 10").await);
    cache.set("k", bytes("0123456789"), Duration::Default).await.unwrap();
    let too_large = cache.set("k", bytes("0123456789a"), Duration::Default).await;
    assert_eq!(too_large, Err(CacheError::ValueTooLarge { len: 11, max: 10 }));
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("0123456789")));
    let entries = vec![("a".to_owned(), vec![0; 10]), ("b".to_owned(), vec![0; 11])];
    let too_large = cache.set_many(entries, Duration::Default).await;
    assert_eq!(too_large, Err(CacheError::ValueTooLarge { len: 11, max: 10 }));
    assert!(present(&cache, &["a", "b"]).await.is_empty());
}

async fn a_value_that_begins_like_a_lease_is_refused_and_not_stored(backend: Backend) {
    let cache = backend.view().await;
    for value in ["\0larder-lease:", "\0larder-lease:0123456789abcdef0123456789abcdef"] {
        assert_invalid(cache.set("k", bytes(value), Duration::Default).await, "value");
        let entries = vec![("other".to_owned(), b"v".to_vec()), ("k".to_owned(), value.into())];
        assert_invalid(cache.set_many(entries, Duration::Default).await, "value");
        let Ok(Entry::Vacant(vacancy)) = cache.get_or_set("k").await else { panic!("nothing was stored") };
        assert_invalid(cache.fill(vacancy, bytes(value), Duration::Default).await, "value");
    }
    assert_eq!(cache.get("k").await, Ok(None));
    assert_eq!(cache.get("other").await, Ok(None));
    for value in ["\0", "\0larder-lease", "larder-lease:", " \0larder-lease:"] {
        cache.set("k", bytes(value), Duration::Default).await.unwrap();
        assert_eq!(cache.get("k").await, Ok(Some(bytes(value))));
    }
}

async fn a_key_is_any_text_of_1_to_1024_bytes(backend: Backend) {
    let cache = backend.view().await;
    let longest = "k".repeat(1024);
    let keys = [" ", "*", "é", "käse und öl 🧀", "a\u{80}b", longest.as_str()];
    put(&cache, &keys).await;
    for key in keys {
        assert_eq!(cache.get(key).await.unwrap(), Some(bytes(key)));
    }
    assert_eq!(cache.clear_all().await.unwrap(), 6);
}

async fn a_bad_key_is_refused_by_every_call(backend: Backend) {
    let cache = backend.view().await;
    let too_long = "é".repeat(513);
    for bad in ["", too_long.as_str(), "\0", "a\u{1f}b", "line\n", "\u{7f}"] {
        assert_invalid(cache.get(bad).await, "key");
        assert_invalid(cache.get_many(&["good".to_owned(), bad.to_owned()]).await, "key");
        assert_invalid(cache.set(bad, bytes("v"), Duration::Default).await, "key");
        let entries = vec![("good".to_owned(), b"v".to_vec()), (bad.to_owned(), b"v".to_vec())];
        assert_invalid(cache.set_many(entries, Duration::Default).await, "key");
        assert_invalid(cache.get_or_set(bad).await, "key");
        assert_invalid(cache.clear(bad).await, "key");
    }
    assert_eq!(cache.get("good").await.unwrap(), None);
    assert_eq!(cache.clear_all().await.unwrap(), 0);
}

mod servers {
    use ::redis::cmd;

    use super::*;

    over_every_server! {
        the_server_stores_the_same_bytes_under_the_prefix,
        a_value_of_another_client_is_a_hit,
        two_prefixes_are_two_caches,
        two_databases_are_two_caches,
        a_key_of_another_type_is_an_error_and_stays,
    }

    async fn the_server_stores_the_same_bytes_under_the_prefix(mut backend: Backend) {
        let cache = backend.view().await;
        cache.set("user:123", bytes("{\"name\":\"John\"}"), Duration::Default).await.unwrap();
        let mut client = backend.behind().client();
        let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut client).unwrap();
        assert_eq!(keys, ["cache:user:123"]);
        let held: String = cmd("GET").arg("cache:user:123").query(&mut client).unwrap();
        assert_eq!(held, "{\"name\":\"John\"}");
    }

    async fn a_value_of_another_client_is_a_hit(mut backend: Backend) {
        let cache = backend.view().await;
        let mut client = backend.behind().client();
        cmd("SET").arg("cache:k").arg("theirs").exec(&mut client).unwrap();
        assert_eq!(cache.get("k").await.unwrap(), Some(bytes("theirs")));
    }

    async fn two_prefixes_are_two_caches(backend: Backend) {
        let (star, plain) = (backend.cache("prefix = \"a*:\"").await, backend.cache("prefix = \"ab:\"").await);
        let (star, plain) = (crate::backends::view(&star), crate::backends::view(&plain));
        put(&star, &["k"]).await;
        put(&plain, &["k"]).await;
        assert_eq!(star.clear_pattern("*").await.unwrap(), 1);
        assert_eq!(star.clear_all().await.unwrap(), 0);
        assert_eq!(plain.get("k").await.unwrap(), Some(bytes("k")));
        assert!(!star.clear("k").await.unwrap());
        assert_eq!(plain.clear_all().await.unwrap(), 1);
    }

    async fn two_databases_are_two_caches(backend: Backend) {
        let (zero, one) = (backend.cache("db = 0").await, backend.cache("db = 1").await);
        let (zero, one) = (crate::backends::view(&zero), crate::backends::view(&one));
        put(&zero, &["k"]).await;
        assert_eq!(one.get("k").await.unwrap(), None);
        assert_eq!(one.clear_all().await.unwrap(), 0);
        assert_eq!(zero.get("k").await.unwrap(), Some(bytes("k")));
    }

    async fn a_key_of_another_type_is_an_error_and_stays(mut backend: Backend) {
        let cache = backend.view().await;
        let mut client = backend.behind().client();
        cmd("RPUSH").arg("cache:list").arg("x").exec(&mut client).unwrap();
        assert_eq!(cache.get("list").await, Err(CacheError::WrongType));
        assert_eq!(cache.get_or_set("list").await.unwrap_err(), CacheError::WrongType);
        let length: u64 = cmd("LLEN").arg("cache:list").query(&mut client).unwrap();
        assert_eq!(length, 1);
    }
}
