//! The interface `batch` of `wasi:keyvalue`, of all versions. `get-many` has two shapes.

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, WasmList, WasmStr};

use super::super::cache::{CallError, CallResult};
use super::super::interface::{View, texts};
use super::super::wit;
use super::Import;
use super::answer::{HostFuture, answer};
use super::bucket::Bucket;
use super::types::Error;

/// The shape of upstream and of wasmtime: a key without a value is `none`.
pub(super) fn add<T: Send + 'static>(linker: &mut Linker<T>, import: &Import, view: View<T>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.func_wrap_async("get-many", move |mut store, (bucket, keys): (_, Vec<WasmStr>)| {
        answer::<Vec<Option<(String, Bytes)>>, Error>(async move {
            let found = get_many(&mut store, view, bucket, &keys).await?;
            Ok(found.into_iter().map(|(key, value)| Some((key, value?))).collect())
        })
    })?;
    add_writes(&mut interface, view)
}

/// The shape of Spin: each key is there, with its value or `none`.
pub(super) fn add_of_spin<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.func_wrap_async("get-many", move |mut store, (bucket, keys): (_, Vec<WasmStr>)| {
        answer::<Vec<(String, Option<Bytes>)>, Error>(async move { get_many(&mut store, view, bucket, &keys).await })
    })?;
    add_writes(&mut interface, view)
}

/// True if the component imports `get-many` of this interface in the shape of Spin: the elements of its list are tuples.
pub(super) fn is_of_spin(component: &Component, interface: &str) -> bool {
    let engine = component.engine();
    let element = || {
        let ComponentItem::ComponentInstance(imported) = component.component_type().get_import(engine, interface)?.ty
        else {
            return None;
        };
        let ComponentItem::ComponentFunc(get_many) = imported.get_export(engine, "get-many")?.ty else { return None };
        let Type::Result(result) = get_many.results().next()? else { return None };
        let Type::List(list) = result.ok()? else { return None };
        Some(list.ty())
    };
    matches!(element(), Some(Type::Tuple(_)))
}

/// The error of a batch whose values are too large together. Plugins for Spin look for these words.
fn too_large(error: CallError) -> CallError {
    match error {
        CallError::Plugin(wit::Error::ValueTooLarge(max)) => CallError::Plugin(result_too_large(max)),
        error => error,
    }
}

/// What the plugin gets instead of values that are over the limit together.
pub(super) fn result_too_large(max: u64) -> wit::Error {
    wit::Error::Other(format!("keys: the query result exceeds limit of {max} bytes"))
}

async fn get_many<T: Send + 'static>(
    store: &mut StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    keys: &[WasmStr],
) -> CallResult<Vec<(String, Option<Bytes>)>> {
    let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
    let found = cache.get_many(&texts(store, keys)?).await;
    let found = view(store.data_mut()).report(&cache, found).map_err(too_large)?;
    // Copied after the call: a batch over the limits takes no memory.
    let keys = texts(store, keys)?;
    Ok(keys.into_iter().map(String::from).zip(found).collect())
}

fn add_writes<T: Send + 'static>(interface: &mut LinkerInstance<'_, T>, view: View<T>) -> wasmtime::Result<()> {
    interface.func_wrap_async("set-many", move |store, (bucket, entries)| set_many(store, view, bucket, entries))?;
    interface.func_wrap_async("delete-many", move |store, (bucket, keys)| delete_many(store, view, bucket, keys))
}

fn set_many<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    entries: Vec<(WasmStr, WasmList<u8>)>,
) -> HostFuture<'_, (), Error> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let borrowed = entries.iter().map(|(key, value)| Ok((key.to_str(&store)?, value.as_le_slice(&store))));
        let borrowed = borrowed.collect::<wasmtime::Result<Vec<_>>>()?;
        let outcome = cache.set_many_copies(borrowed, cache.default_or_lasting()).await;
        view(store.data_mut()).report(&cache, outcome)
    })
}

fn delete_many<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    bucket: Bucket,
    keys: Vec<WasmStr>,
) -> HostFuture<'_, (), Error> {
    answer(async move {
        let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
        let outcome = cache.clear_many(&texts(&store, &keys)?).await;
        view(store.data_mut()).report(&cache, outcome).map(|_removed| ())
    })
}
