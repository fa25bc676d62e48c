//! The interface `atomics` of `wasi:keyvalue@0.2.0-draft2`: counters, and compare-and-swap.
//!
//! A handle for compare-and-swap has a digest of what the plugin has seen of the key, and not the value, which would take
//! the memory of the host.

// Decision: docs/decisions/0105-a-write-that-does-not-expire-has-a-version-of-its-own.md

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmList, WasmStr};

use super::super::cache::CallResult;
use super::super::handles::HeldCas;
use super::super::interface::View;
use super::Import;
use super::answer::{HostFuture, answer, to_host_result};
use super::bucket::{Bucket, increment};
use super::types::{CasError, Error};

type Cas = Resource<HeldCas>;

pub(super) fn add<T: Send + 'static>(linker: &mut Linker<T>, import: &Import, view: View<T>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.resource("cas", ResourceType::host::<HeldCas>(), move |mut store, handle| {
        view(store.data_mut()).delete(Cas::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap_async("increment", move |mut store, (bucket, key, delta): (_, WasmStr, i64)| {
        answer::<i64, Error>(async move { increment(&mut store, view, bucket, key, delta).await })
    })?;
    interface.func_wrap_async("[static]cas.new", move |store, (bucket, key)| new(store, view, bucket, key))?;
    interface.func_wrap_async("[method]cas.current", move |store, (cas,)| current(store, view, cas))?;
    interface.func_wrap_async("swap", move |store, (cas, value)| swap(store, view, cas, value))
}

/// Reads the key. The value is compared with what the key holds when it is swapped.
fn new<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    key: WasmStr,
) -> HostFuture<'_, Cas, Error> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let found = cache.read_version(&key.to_str(&store)?).await;
        let seen = view(store.data_mut()).report(&cache, found)?.map(|(_, version)| version);
        // It is within the limit of keys: it was read.
        let key = key.to_str(&store)?.into();
        view(store.data_mut()).push(HeldCas { cache, key, seen })
    })
}

/// Reads the key again: what the plugin gets is what is compared.
fn current<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cas: Cas,
) -> HostFuture<'_, Option<Bytes>, Error> {
    answer(async move {
        let found = read(&mut store, view, &cas).await?;
        let (value, version) = found.unzip();
        view(store.data_mut()).table.get_mut(&cas)?.seen = version;
        Ok(value)
    })
}

/// Stores the value if the key holds what was seen. Otherwise the plugin gets a handle that has seen what it holds now.
fn swap<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cas: Cas,
    value: WasmList<u8>,
) -> HostFuture<'_, (), CasError> {
    Box::new(async move {
        match try_swap(&mut store, view, cas, value).await {
            Ok(None) => Ok((Ok(()),)),
            Ok(Some(next)) => Ok((Err(CasError::Failed(next)),)),
            Err(error) => to_host_result(Err(error)),
        }
    })
}

async fn try_swap<T: Send + 'static>(
    store: &mut StoreContextMut<'_, T>,
    view: View<T>,
    cas: Cas,
    value: WasmList<u8>,
) -> CallResult<Option<Cas>> {
    let HeldCas { cache, key, seen } = view(store.data_mut()).delete(cas)?;
    let _call = view(store.data_mut()).begin_call()?;
    let value = value.as_le_slice(&*store);
    let outcome = cache.replace_copy(&key, seen.as_ref(), value, cache.default_or_lasting()).await;
    if view(store.data_mut()).report(&cache, outcome)? {
        return Ok(None);
    }
    let found = cache.read_version(&key).await;
    let seen = view(store.data_mut()).report(&cache, found)?.map(|(_, version)| version);
    view(store.data_mut()).push(HeldCas { cache, key, seen }).map(Some)
}

async fn read<T: Send + 'static>(
    store: &mut StoreContextMut<'_, T>,
    view: View<T>,
    cas: &Cas,
) -> CallResult<Option<(Bytes, crate::cache::Version)>> {
    let call = view(store.data_mut());
    let _call = call.begin_call()?;
    let HeldCas { cache, key, .. } = call.table.get(cas)?;
    let (cache, key) = (std::sync::Arc::clone(cache), key.clone());
    let found = cache.read_version(&key).await;
    view(store.data_mut()).report(&cache, found)
}
