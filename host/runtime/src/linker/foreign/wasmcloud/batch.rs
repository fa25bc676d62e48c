//! The interface `batch`.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Linker;

use super::super::super::concurrent::total;
use super::super::super::interface::View;
use super::super::Import;
use super::super::bucket::Bucket;
use super::answer;
use crate::cache::{Duration, ScopedCache};

pub(in super::super) fn add<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.func_wrap_concurrent("get-many", move |accessor, (bucket, keys): (Bucket, Vec<String>)| {
        let len = total(keys.iter().map(String::len));
        let get = move |cache: Arc<ScopedCache>| async move {
            let found = cache.get_many(&keys).await?;
            let pairs = keys.into_iter().zip(found).map(|(key, value)| Some((key, value?)));
            Ok(pairs.collect::<Vec<Option<(String, Bytes)>>>())
        };
        answer(accessor, view, bucket, len, get, Ok)
    })?;
    interface.func_wrap_concurrent(
        "set-many",
        move |accessor, (bucket, entries): (Bucket, Vec<(String, Vec<u8>)>)| {
            let len = total(entries.iter().map(|(key, value)| key.len().saturating_add(value.len())));
            let set = move |cache: Arc<ScopedCache>| async move { cache.set_many(entries, Duration::lasting()).await };
            answer(accessor, view, bucket, len, set, Ok)
        },
    )?;
    interface.func_wrap_concurrent("delete-many", move |accessor, (bucket, keys): (Bucket, Vec<String>)| {
        let len = total(keys.iter().map(String::len));
        let delete = move |cache: Arc<ScopedCache>| async move { cache.clear_many(&keys).await };
        answer(accessor, view, bucket, len, delete, |_removed| Ok(()))
    })
}
