//! The interface `types`: the bucket.

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceType};

use super::super::super::concurrent::total;
use super::super::super::handles::OpenCache;
use super::super::super::interface::View;
use super::super::Import;
use super::super::bucket::{Bucket, read_cursor};
use super::super::types::Keys;
use super::answer;
use super::types::{Error, SetOptions};
use crate::cache::{CacheError, Duration, KeyPage, ScopedCache};

pub(in super::super) fn add<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.resource("bucket", ResourceType::host::<OpenCache>(), move |mut store, handle| {
        view(store.data_mut()).drop_cache(Bucket::new_own(handle))
    })?;
    interface.func_wrap_concurrent("[method]bucket.get", move |accessor, (bucket, key): (Bucket, String)| {
        let len = key.len();
        answer(accessor, view, bucket, len, move |cache| async move { cache.get(&key).await }, Ok)
    })?;
    interface.func_wrap_concurrent(
        "[method]bucket.set",
        move |accessor, (bucket, key, value, options): (Bucket, String, Vec<u8>, Option<SetOptions>)| {
            let len = key.len().saturating_add(value.len());
            let SetOptions { ttl_ms, if_not_exists } = options.unwrap_or_default();
            let duration = ttl_ms.map_or_else(Duration::lasting, Duration::Milliseconds);
            let set = move |cache: Arc<ScopedCache>| async move {
                if if_not_exists {
                    return cache.replace(&key, None, value.into(), duration).await;
                }
                cache.set(&key, value.into(), duration).await.map(|()| true)
            };
            let finish = |is_stored| if is_stored { Ok(()) } else { Err(Error::PreconditionFailed) };
            answer(accessor, view, bucket, len, set, finish)
        },
    )?;
    interface.func_wrap_concurrent("[method]bucket.delete", move |accessor, (bucket, key): (Bucket, String)| {
        let len = key.len();
        answer(accessor, view, bucket, len, move |cache| async move { cache.clear(&key).await }, |_existed| Ok(()))
    })?;
    interface.func_wrap_concurrent("[method]bucket.exists", move |accessor, (bucket, key): (Bucket, String)| {
        let len = key.len();
        answer(accessor, view, bucket, len, move |cache| async move { cache.exists(&key).await }, Ok)
    })?;
    interface.func_wrap_concurrent(
        "[method]bucket.list-keys",
        move |accessor, (bucket, prefix, cursor): (Bucket, Option<String>, Option<String>)| {
            let len = total([&prefix, &cursor].into_iter().flatten().map(String::len));
            let list = move |cache: Arc<ScopedCache>| async move {
                let invalid = |rule: &str| CacheError::InvalidArgument(rule.to_owned());
                let cursor = read_cursor(cursor.as_deref()).map_err(invalid)?;
                cache.list_keys_with_prefix(&prefix.unwrap_or_default(), cursor).await
            };
            answer(accessor, view, bucket, len, list, |page: KeyPage| Ok(Keys::new(page)))
        },
    )
}
