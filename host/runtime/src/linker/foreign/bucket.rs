//! The calls that a bucket of `wasi:keyvalue` and a store of `fermyon:spin/key-value` have in common.

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr};

use super::super::cache::{CallError, CallResult};
use super::super::ctx::LarderView;
use super::super::handles::OpenCache;
use super::super::interface::View;
use super::super::wit;
use super::Import;
use super::answer::{HostFuture, answer, to_host_result};
use super::types::Error;
use crate::cache::{Duration, KeyPage, ListCursor, OpenError, ScopedCache};

/// A handle of a plugin on a bucket.
pub(super) type Bucket = Resource<OpenCache>;

/// The name that means the default cache, beside the empty one, unless a cache has the name.
const DEFAULT: &str = "default";

/// Defines an interface `store` of `wasi:keyvalue` but for `list-keys`, whose cursors differ.
pub(super) fn add_store<'linker, T: Send + 'static>(
    linker: &'linker mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<LinkerInstance<'linker, T>> {
    let mut interface = linker.instance(&import.name)?;
    add_calls::<T, Error>(&mut interface, "bucket", view, ScopedCache::default_or_lasting)?;
    let only = import.cache.clone();
    interface.func_wrap("open", move |mut store, (identifier,): (String,)| {
        to_host_result::<Bucket, Error>(view(store.data_mut()).open_bucket(&identifier, only.as_deref()))
    })?;
    Ok(interface)
}

/// The duration of the values that an interface stores in a cache.
pub(super) type DurationOf = fn(&ScopedCache) -> Duration;

/// Defines the resource and the calls `get`, `set`, `delete` and `exists` of the resource `name`.
pub(super) fn add_calls<T: Send + 'static, E>(
    interface: &mut LinkerInstance<'_, T>,
    name: &str,
    view: View<T>,
    duration: DurationOf,
) -> wasmtime::Result<()>
where
    E: From<wit::Error> + wasmtime::component::Lower + wasmtime::component::ComponentType + Send + Sync + 'static,
{
    interface.resource(name, ResourceType::host::<OpenCache>(), move |mut store, handle| {
        view(store.data_mut()).drop_cache(Bucket::new_own(handle))
    })?;
    let method = |function: &str| format!("[method]{name}.{function}");
    interface.func_wrap_async(&method("get"), move |store, (bucket, key)| get::<T, E>(store, view, bucket, key))?;
    interface.func_wrap_async(&method("set"), move |store, (bucket, key, value)| {
        set::<T, E>(store, view, bucket, key, value, duration)
    })?;
    interface
        .func_wrap_async(&method("delete"), move |store, (bucket, key)| delete::<T, E>(store, view, bucket, key))?;
    interface
        .func_wrap_async(&method("exists"), move |store, (bucket, key)| exists::<T, E>(store, view, bucket, key))?;
    Ok(())
}

impl LarderView<'_> {
    // Decision: docs/decisions/0104-a-label-opens-its-cache-by-any-identifier.md
    /// Opens the cache of an identifier: its name, or nothing or `default` for the default cache. Through an import with a
    /// label every identifier opens `only`, the cache of the label.
    pub(super) fn open_bucket(&mut self, identifier: &str, only: Option<&str>) -> CallResult<Bucket> {
        if let Some(only) = only {
            return self.open(only);
        }
        let is_default = identifier.is_empty()
            || (identifier == DEFAULT && matches!(self.ctx.caches.open(identifier), Err(OpenError::NoSuchCache)));
        let opened = if is_default { self.open_default() } else { self.open(identifier) };
        match opened {
            // The interfaces define `access-denied` for a store that may or may not exist: a plugin with a list of caches
            // does not learn which others there are. The log says it.
            Err(CallError::Plugin(wit::Error::NoSuchCache)) if self.ctx.caches.is_restricted() => {
                Err(CallError::Plugin(wit::Error::AccessDenied))
            }
            opened => opened,
        }
    }
}

fn get<T: Send + 'static, E: From<wit::Error> + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    key: WasmStr,
) -> HostFuture<'_, Option<Bytes>, E> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let found = cache.get(&key.to_str(&store)?).await;
        view(store.data_mut()).report(&cache, found)
    })
}

fn set<T: Send + 'static, E: From<wit::Error> + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    key: WasmStr,
    value: WasmList<u8>,
    duration: DurationOf,
) -> HostFuture<'_, (), E> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let (key, value) = (key.to_str(&store)?, value.as_le_slice(&store));
        let outcome = cache.set_copy(&key, value, duration(&cache)).await;
        view(store.data_mut()).report(&cache, outcome)
    })
}

fn delete<T: Send + 'static, E: From<wit::Error> + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    key: WasmStr,
) -> HostFuture<'_, (), E> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let outcome = cache.clear(&key.to_str(&store)?).await;
        view(store.data_mut()).report(&cache, outcome).map(|_existed| ())
    })
}

fn exists<T: Send + 'static, E: From<wit::Error> + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    key: WasmStr,
) -> HostFuture<'_, bool, E> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let outcome = cache.exists(&key.to_str(&store)?).await;
        view(store.data_mut()).report(&cache, outcome)
    })
}

/// A page of the bucket's keys.
pub(super) async fn list<T: Send + 'static>(
    store: &mut StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    cursor: Option<ListCursor>,
) -> CallResult<KeyPage> {
    let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
    let page = cache.list_keys(cursor).await;
    view(store.data_mut()).report(&cache, page)
}

/// The cursor of a page as text.
pub(super) fn write_cursor(cursor: ListCursor) -> String {
    cursor.number().to_string()
}

/// Reads a cursor in text.
///
/// # Errors
///
/// The rule that a text breaks which [`write_cursor`] does not write, such as `0`.
pub(super) fn read_cursor(cursor: Option<&str>) -> Result<Option<ListCursor>, &'static str> {
    let Some(text) = cursor else { return Ok(None) };
    let cursor = text.parse().ok().and_then(ListCursor::new).filter(|cursor| write_cursor(*cursor) == text);
    cursor.map(Some).ok_or("cursor: must be one that list-keys returned")
}

/// Adds to a number of the bucket.
pub(super) async fn increment<T: Send + 'static>(
    store: &mut StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    key: WasmStr,
    delta: i64,
) -> CallResult<i64> {
    let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
    let sum = cache.increment(&key.to_str(&*store)?, delta, cache.default_or_lasting()).await;
    view(store.data_mut()).report(&cache, sum)
}
