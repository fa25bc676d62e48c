//! What a plugin with a read-only grant may do.

use larder_host::cache::{CacheError, Duration};

use crate::backends::{Backend, bytes, over_every_backend, put, read_only, view};

over_every_backend! {
    read_only_access_reads,
    read_only_access_refuses_every_write,
    read_only_access_refuses_get_or_set_also_on_a_hit,
}

async fn read_only_access_reads(backend: Backend) {
    let cache = backend.cache("").await;
    put(&view(&cache), &["k"]).await;
    let reader = read_only(&cache);
    assert_eq!(reader.get("k").await.unwrap(), Some(bytes("k")));
    let keys = ["k".to_owned(), "missing".to_owned()];
    assert_eq!(reader.get_many(&keys).await.unwrap(), [Some(bytes("k")), None]);
}

async fn read_only_access_refuses_every_write(backend: Backend) {
    let cache = backend.cache("").await;
    put(&view(&cache), &["k"]).await;
    let reader = read_only(&cache);
    let entries = vec![("new".to_owned(), b"v".to_vec())];
    assert_eq!(reader.set("k", bytes("v"), Duration::Default).await, Err(CacheError::ReadOnly));
    assert_eq!(reader.set("new", bytes("v"), Duration::Unlimited).await, Err(CacheError::ReadOnly));
    assert_eq!(reader.set_many(entries, Duration::Default).await, Err(CacheError::ReadOnly));
    assert_eq!(reader.clear("k").await, Err(CacheError::ReadOnly));
    assert_eq!(reader.clear_pattern("*").await, Err(CacheError::ReadOnly));
    assert_eq!(reader.clear_all().await, Err(CacheError::ReadOnly));
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("k")));
    assert_eq!(view(&cache).get("new").await.unwrap(), None);
}

async fn read_only_access_refuses_get_or_set_also_on_a_hit(backend: Backend) {
    let cache = backend.cache("").await;
    put(&view(&cache), &["k"]).await;
    assert_eq!(read_only(&cache).get_or_set("k").await.unwrap_err(), CacheError::ReadOnly);
    assert_eq!(read_only(&cache).get_or_set("missing").await.unwrap_err(), CacheError::ReadOnly);
}
