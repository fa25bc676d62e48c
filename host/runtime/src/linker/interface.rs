//! The functions of `larder:cache/cache` by their names in `wit/cache.wit`.
//!
//! The functions are linked by hand instead of with `bindgen!`, to make a hit fast: the host reads a key in the
//! plugin's memory without copying it, copies a value from there once the call's arguments are checked, writes a value
//! there straight from the cache, and creates no future for a cache with a fast path or for a value that is near. Wasmtime
//! checks the types when it links a plugin, and a test links a component that imports every function.

// Decision: docs/decisions/0043-the-interface-is-linked-by-hand-not-with-bindgen.md

use std::borrow::Cow;
use std::future::ready;

use arrayvec::ArrayString;
use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr};

use super::cache::{CallError, CallResult};
use super::ctx::LarderView;
use super::handles::{HeldVacancy, OpenCache};
use super::wit;
use crate::cache::{CacheError, Key, ScopedCache};

/// The interface's name.
pub(crate) const INTERFACE: &str = "larder:cache/cache@0.1.1";

/// Borrows the cache state and the resource table from a store's data.
pub(super) type View<T> = fn(&mut T) -> LarderView<'_>;

/// The result that the plugin gets, or a trap.
pub(super) type HostResult<R> = wasmtime::Result<(Result<R, wit::Error>,)>;

/// A host function's result that the plugin awaits.
type HostFuture<'a, R> = Box<dyn Future<Output = HostResult<R>> + Send + 'a>;

pub(super) type CacheHandle = Resource<OpenCache>;
pub(super) type VacancyHandle = Resource<HeldVacancy>;

/// Adds the interface `larder:cache/cache` to a linker. `view` borrows the cache state and the resource table from the
/// store's data.
///
/// The interface suspends a plugin while a call is running, so instances must be created and called with wasmtime's
/// async functions.
///
/// # Errors
///
/// Wasmtime's error if the linker already has the interface. The embedder must call this once for each linker.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> LarderView<'_>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    add_resources(&mut interface, view, |_, cache| Ok(cache))?;
    interface.func_wrap_async("[method]cache.get", move |store, (cache, key)| get(store, view, cache, key))?;
    interface
        .func_wrap_async("[method]cache.get-many", move |store, (cache, keys)| get_many(store, view, cache, keys))?;
    interface.func_wrap_async("[method]cache.set", move |store, (cache, key, value)| {
        set(store, view, cache, key, value, wit::Duration::Default)
    })?;
    interface.func_wrap_async("[method]cache.set-with-duration", move |store, (cache, key, value, duration)| {
        set(store, view, cache, key, value, duration)
    })?;
    interface.func_wrap_async("[method]cache.set-many", move |store, (cache, entries, duration)| {
        set_many(store, view, cache, entries, duration)
    })?;
    interface
        .func_wrap_async("[method]cache.get-or-set", move |store, (cache, key)| get_or_set(store, view, cache, key))?;
    interface.func_wrap_async("[method]cache.get-or-refresh", move |store, (cache, key, stale)| {
        get_or_refresh(store, view, cache, key, stale)
    })?;
    interface.func_wrap_async("[method]cache.clear", move |mut store, (cache, key): (_, WasmStr)| {
        answer(async move {
            let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
            let outcome = scoped.clear(&key.to_str(&store)?).await;
            view(store.data_mut()).report(&scoped, outcome)
        })
    })?;
    interface.func_wrap_async("[method]cache.clear-pattern", move |mut store, (cache, pattern): (_, WasmStr)| {
        answer(async move {
            let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
            let outcome = scoped.clear_pattern(&pattern.to_str(&store)?).await;
            view(store.data_mut()).report(&scoped, outcome)
        })
    })?;
    interface.func_wrap_async("[method]cache.clear-all", move |mut store, (cache,)| {
        answer(async move {
            let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
            let outcome = scoped.clear_all().await;
            view(store.data_mut()).report(&scoped, outcome)
        })
    })?;
    interface.func_wrap_async("[static]vacancy.fill", move |store, (vacancy, value, duration)| {
        fill(store, view, vacancy, value, duration)
    })?;
    interface.func_wrap_async("[static]vacancy.fill-stale", move |store, (vacancy, value, duration, stale)| {
        fill_stale(store, view, vacancy, value, duration, stale)
    })?;
    Ok(())
}

/// Adds the resources and the functions that open a cache. They wait for nothing, so that both forms of the interface share
/// them. `finish` prepares a new handle.
pub(super) fn add_resources<T: Send + 'static>(
    interface: &mut LinkerInstance<'_, T>,
    view: View<T>,
    finish: fn(&mut LarderView<'_>, CacheHandle) -> CallResult<CacheHandle>,
) -> wasmtime::Result<()> {
    interface.resource("cache", ResourceType::host::<OpenCache>(), move |mut store, handle| {
        view(store.data_mut()).drop_cache(CacheHandle::new_own(handle))
    })?;
    interface.resource("vacancy", ResourceType::host::<HeldVacancy>(), move |mut store, handle| {
        view(store.data_mut()).drop_vacancy(VacancyHandle::new_own(handle))
    })?;
    interface.func_wrap("open", move |mut store, (name,): (String,)| {
        let mut view = view(store.data_mut());
        to_host_result(view.open(&name).and_then(|cache| finish(&mut view, cache)))
    })?;
    interface.func_wrap("open-default", move |mut store, (): ()| {
        let mut view = view(store.data_mut());
        to_host_result(view.open_default().and_then(|cache| finish(&mut view, cache)))
    })
}

fn get<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: CacheHandle,
    key: WasmStr,
) -> HostFuture<'_, Option<Bytes>> {
    let found = look_up(&mut store, view, &cache, &key, |cache, key| match cache.fast_path() {
        Some(fast) => Some(fast.get(key)),
        None => cache.near_path()?.get(key).map(|value| Ok(Some(value))),
    });
    if let Some(found) = found {
        return Box::new(ready(to_host_result(found)));
    }
    answer(async move {
        let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
        let found = scoped.get(&key.to_str(&store)?).await;
        view(store.data_mut()).report(&scoped, found)
    })
}

fn get_many<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: CacheHandle,
    keys: Vec<WasmStr>,
) -> HostFuture<'_, Vec<Option<Bytes>>> {
    if let Some(scoped) = view(store.data_mut()).fast_path_cache(&cache) {
        if let Some(fast) = scoped.fast_path() {
            let found = texts(&store, &keys).map(|keys| fast.get_many(&keys));
            return respond(store, view, &scoped, found);
        }
        let near = scoped.near_path().and_then(|near| near.get_many(&texts(&store, &keys).ok()?));
        if let Some(found) = near {
            return respond(store, view, &scoped, Ok(Ok(found)));
        }
    }
    answer(async move {
        let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
        let found = scoped.get_many(&texts(&store, &keys)?).await;
        view(store.data_mut()).report(&scoped, found)
    })
}

fn set<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: CacheHandle,
    key: WasmStr,
    value: WasmList<u8>,
    duration: wit::Duration,
) -> HostFuture<'_, ()> {
    if let Some(scoped) = view(store.data_mut()).fast_path_cache(&cache)
        && let Some(fast) = scoped.fast_path()
    {
        let set = |key: Cow<'_, str>| fast.set_copy(&key, value.as_le_slice(&store), duration.into());
        let outcome = key.to_str(&store).map(set);
        return respond(store, view, &scoped, outcome);
    }
    answer(async move {
        let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
        let (key, value) = (key.to_str(&store)?, value.as_le_slice(&store));
        let outcome = scoped.set_copy(&key, value, duration.into()).await;
        view(store.data_mut()).report(&scoped, outcome)
    })
}

fn set_many<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: CacheHandle,
    entries: Vec<(WasmStr, WasmList<u8>)>,
    duration: wit::Duration,
) -> HostFuture<'_, ()> {
    answer(async move {
        let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
        let borrowed = entries.iter().map(|(key, value)| Ok((key.to_str(&store)?, value.as_le_slice(&store))));
        let borrowed = borrowed.collect::<wasmtime::Result<Vec<_>>>()?;
        let outcome = scoped.set_many_copies(borrowed, duration.into()).await;
        view(store.data_mut()).report(&scoped, outcome)
    })
}

fn fill<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    vacancy: VacancyHandle,
    value: WasmList<u8>,
    duration: wit::Duration,
) -> HostFuture<'_, bool> {
    answer(async move {
        let Some((cache, vacancy)) = view(store.data_mut()).take_vacancy(vacancy)? else { return Ok(false) };
        let outcome = cache.fill_copy(vacancy, value.as_le_slice(&store), duration.into()).await;
        view(store.data_mut()).report(&cache, outcome)
    })
}

fn get_or_set<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: CacheHandle,
    key: WasmStr,
) -> HostFuture<'_, wit::Entry> {
    // Nothing is found on a miss: the asynchronous path waits for another caller's value or returns a vacancy.
    let found = look_up(&mut store, view, &cache, &key, |cache, key| {
        let found = match cache.fast_path() {
            Some(fast) => fast.occupied(key),
            None => cache.near_path()?.occupied(key),
        };
        found.map(|value| Ok(wit::Entry::Occupied(value)))
    });
    if let Some(found) = found {
        return Box::new(ready(to_host_result(found)));
    }
    answer(async move {
        let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
        let found = scoped.get_or_set(&key.to_str(&store)?).await;
        view(store.data_mut()).entry(scoped, found)
    })
}

fn get_or_refresh<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: CacheHandle,
    key: WasmStr,
    stale: wit::Duration,
) -> HostFuture<'_, wit::Freshness> {
    let found = look_up(&mut store, view, &cache, &key, |cache, key| {
        let found = match cache.fast_path() {
            Some(fast) => fast.fresh(key, stale.into()),
            None => cache.near_path()?.fresh(key, stale.into()),
        };
        found.map(|value| Ok(wit::Freshness::Fresh(value)))
    });
    if let Some(found) = found {
        return Box::new(ready(to_host_result(found)));
    }
    answer(async move {
        let (_call, scoped) = view(store.data_mut()).begin(&cache)?;
        let found = scoped.get_or_refresh(&key.to_str(&store)?, stale.into()).await;
        view(store.data_mut()).freshness(scoped, found)
    })
}

fn fill_stale<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    vacancy: VacancyHandle,
    value: WasmList<u8>,
    duration: wit::Duration,
    stale: wit::Duration,
) -> HostFuture<'_, bool> {
    answer(async move {
        let Some((cache, vacancy)) = view(store.data_mut()).take_vacancy(vacancy)? else { return Ok(false) };
        let value = value.as_le_slice(&store);
        let outcome = cache.fill_stale_copy(vacancy, value, duration.into(), stale.into()).await;
        view(store.data_mut()).report(&cache, outcome)
    })
}

/// Calls `look` with the cache and the key, which is copied so that the cache can be borrowed from the store. `None`: fall
/// back to the asynchronous path, which also finds what is wrong with a key or a handle.
fn look_up<T: 'static, R>(
    store: &mut StoreContextMut<'_, T>,
    view: View<T>,
    cache: &CacheHandle,
    key: &WasmStr,
    look: impl FnOnce(&ScopedCache, &str) -> Option<Result<R, CacheError>>,
) -> Option<CallResult<R>> {
    let key = ArrayString::<{ Key::MAX_LENGTH }>::from(&key.to_str(&*store).ok()?).ok()?;
    let (cache, ctx) = view(store.data_mut()).cache(cache)?;
    let found = look(cache, &key)?;
    Some(ctx.report(cache, found))
}

/// The future of a call that may wait.
fn answer<'a, R: 'a>(call: impl Future<Output = CallResult<R>> + Send + 'a) -> HostFuture<'a, R> {
    Box::new(async move { to_host_result(call.await) })
}

/// A ready future with the outcome of a synchronous call.
fn respond<'a, T: 'static, R: Send + 'a>(
    mut store: StoreContextMut<'a, T>,
    view: View<T>,
    cache: &ScopedCache,
    outcome: wasmtime::Result<Result<R, CacheError>>,
) -> HostFuture<'a, R> {
    Box::new(ready(outcome.and_then(|outcome| to_host_result(view(store.data_mut()).report(cache, outcome)))))
}

pub(super) fn to_host_result<R>(outcome: CallResult<R>) -> HostResult<R> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(CallError::Plugin(error)) => Ok((Err(error),)),
        Err(CallError::Limit(limit)) => Ok((Err(wit::Error::Other(limit)),)),
        Err(CallError::Trap(trap)) => Err(trap),
    }
}

pub(super) fn texts<'a, T: 'static>(
    store: &'a StoreContextMut<'_, T>,
    keys: &'a [WasmStr],
) -> wasmtime::Result<Vec<Cow<'a, str>>> {
    keys.iter().map(|key| key.to_str(store)).collect()
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;
    use wasmtime::component::Component;
    use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
    use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

    use super::*;
    use crate::linker::add_concurrent_to_linker;

    /// A component that imports the whole interface of a world and does not use it.
    fn importer(world: &str, abi: ManglingAndAbi) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path("wit").unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        let mut module = dummy_module(&resolve, world, abi);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }

    #[test]
    fn the_linker_has_every_function_of_the_wit_with_its_types() {
        let engine = Engine::default();
        let component = Component::new(&engine, importer("imports", ManglingAndAbi::Standard32)).unwrap();
        let imported = component.component_type().imports(&engine).count();
        assert_eq!(imported, 1, "the interface");
        let mut linker = Linker::<()>::new(&engine);
        assert!(linker.instantiate_pre(&component).is_err(), "the linker is empty");
        add_to_linker(&mut linker, |_| unreachable!("no function is called")).unwrap();
        linker.instantiate_pre(&component).unwrap();
        assert!(
            add_to_linker(&mut linker, |_| unreachable!("no function is called")).is_err(),
            "the linker already has the interface"
        );
    }

    #[test]
    fn the_linker_has_every_asynchronous_function_of_the_wit_with_its_types() {
        let engine = Engine::default();
        let abi = ManglingAndAbi::Legacy(LiftLowerAbi::AsyncCallback);
        let component = Component::new(&engine, importer("imports-async", abi)).unwrap();
        let mut linker = Linker::<()>::new(&engine);
        add_to_linker(&mut linker, |_| unreachable!("no function is called")).unwrap();
        assert!(linker.instantiate_pre(&component).is_err(), "the linker lacks the interface");
        add_concurrent_to_linker(&mut linker, |_| unreachable!("no function is called")).unwrap();
        linker.instantiate_pre(&component).unwrap();
    }
}
