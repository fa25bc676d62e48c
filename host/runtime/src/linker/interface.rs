//! The functions of `larder:cache/cache` by their names in `wit/cache.wit`.
//!
//! By hand and not generated, for the sake of a hit: a key is looked at where it stands in the plugin's memory, a value
//! is written there from where it is kept, and a cache in this process answers before there is a future. Wasmtime
//! compares the types with a plugin's when it links one; a test links a component that imports all of them.

// Decision: docs/decisions/0043-the-interface-is-linked-by-hand-not-with-bindgen.md

use std::borrow::Cow;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmStr};

use super::LarderView;
use super::cache::{CallError, CallResult, HeldVacancy, OpenCache};
use super::wit::{Duration, Entry, Error};
use crate::cache::{CacheError, ScopedCache};

/// The interface's name.
const INTERFACE: &str = "larder:cache/cache@0.1.0";

/// How the ctx and the table are found in a store's data.
type View<T> = fn(&mut T) -> LarderView<'_>;

/// What the plugin gets, or a trap.
type Answer<R> = wasmtime::Result<(Result<R, Error>,)>;

/// An answer to wait for.
type Later<'a, R> = Box<dyn Future<Output = Answer<R>> + Send + 'a>;

type Cache = Resource<OpenCache>;
type Vacancy = Resource<HeldVacancy>;

/// Adds the interface to a linker.
///
/// # Errors
///
/// Wasmtime's, when the linker has it already.
pub(super) fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, view: View<T>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.resource("cache", ResourceType::host::<OpenCache>(), move |mut store, handle| {
        view(store.data_mut()).close(Cache::new_own(handle))
    })?;
    interface.resource("vacancy", ResourceType::host::<HeldVacancy>(), move |mut store, handle| {
        view(store.data_mut()).give_up(Vacancy::new_own(handle))
    })?;
    interface.func_wrap("open", move |mut store, (name,): (String,)| answer(view(store.data_mut()).open(&name)))?;
    interface.func_wrap("open-default", move |mut store, (): ()| answer(view(store.data_mut()).open_default()))?;
    interface.func_wrap_async("[method]cache.get", move |store, (cache, key)| get(store, view, cache, key))?;
    interface
        .func_wrap_async("[method]cache.get-many", move |store, (cache, keys)| get_many(store, view, cache, keys))?;
    interface.func_wrap_async("[method]cache.set", move |store, (cache, key, value)| {
        set(store, view, cache, key, value, Duration::Default)
    })?;
    interface.func_wrap_async("[method]cache.set-with-duration", move |store, (cache, key, value, duration)| {
        set(store, view, cache, key, value, duration)
    })?;
    interface.func_wrap_async("[method]cache.set-many", move |mut store, (cache, entries, duration)| {
        Box::new(async move { answer(view(store.data_mut()).set_many(cache, entries, duration).await) })
    })?;
    interface
        .func_wrap_async("[method]cache.get-or-set", move |store, (cache, key)| get_or_set(store, view, cache, key))?;
    interface.func_wrap_async("[method]cache.clear", move |mut store, (cache, key): (_, String)| {
        Box::new(async move { answer(view(store.data_mut()).clear(cache, &key).await) })
    })?;
    interface.func_wrap_async("[method]cache.clear-pattern", move |mut store, (cache, pattern): (_, String)| {
        Box::new(async move { answer(view(store.data_mut()).clear_pattern(cache, &pattern).await) })
    })?;
    interface.func_wrap_async("[method]cache.clear-all", move |mut store, (cache,)| {
        Box::new(async move { answer(view(store.data_mut()).clear_all(cache).await) })
    })?;
    interface.func_wrap_async("[static]vacancy.fill", move |mut store, (vacancy, value, duration)| {
        Box::new(async move { answer(view(store.data_mut()).fill(vacancy, value, duration).await) })
    })?;
    Ok(())
}

fn get<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: Cache,
    key: WasmStr,
) -> Later<'_, Option<Bytes>> {
    let here = here(&mut store, view, &cache);
    if let Some((here, cache)) = here.as_ref().and_then(|here| Some((here, here.fast_path()?))) {
        let found = key.to_str(&store).map(|key| cache.get(&key));
        return now(store, view, here, found);
    }
    Box::new(async move {
        let key = key.to_str(&store)?.into_owned();
        answer(view(store.data_mut()).get(cache, &key).await)
    })
}

fn get_many<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: Cache,
    keys: Vec<WasmStr>,
) -> Later<'_, Vec<Option<Bytes>>> {
    let here = here(&mut store, view, &cache);
    if let Some((here, cache)) = here.as_ref().and_then(|here| Some((here, here.fast_path()?))) {
        let found = texts(&store, &keys).map(|keys| cache.get_many(&keys));
        return now(store, view, here, found);
    }
    Box::new(async move {
        let keys: Vec<String> = texts(&store, &keys)?.into_iter().map(Cow::into_owned).collect();
        answer(view(store.data_mut()).get_many(cache, &keys).await)
    })
}

fn set<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: Cache,
    key: WasmStr,
    value: Bytes,
    duration: Duration,
) -> Later<'_, ()> {
    let here = here(&mut store, view, &cache);
    if let Some((here, cache)) = here.as_ref().and_then(|here| Some((here, here.fast_path()?))) {
        let outcome = key.to_str(&store).map(|key| cache.set(&key, value, duration.into()));
        return now(store, view, here, outcome);
    }
    Box::new(async move {
        let key = key.to_str(&store)?.into_owned();
        answer(view(store.data_mut()).set(cache, &key, value, duration).await)
    })
}

fn get_or_set<T: Send + 'static>(
    mut store: StoreContextMut<'_, T>,
    view: View<T>,
    cache: Cache,
    key: WasmStr,
) -> Later<'_, Entry> {
    let here = here(&mut store, view, &cache);
    if let Some((here, cache)) = here.as_ref().and_then(|here| Some((here, here.fast_path()?))) {
        let found = key.to_str(&store).map(|key| cache.occupied(&key));
        if let Some(found) = found.transpose() {
            return now(store, view, here, found.map(|value| Ok(Entry::Occupied(value))));
        }
    }
    Box::new(async move {
        let key = key.to_str(&store)?.into_owned();
        answer(view(store.data_mut()).get_or_set(cache, &key).await)
    })
}

/// The cache of a handle, where it is in this process. Whatever is wrong with the call comes out when it is made as one
/// to wait for.
fn here<T: 'static>(store: &mut StoreContextMut<'_, T>, view: View<T>, cache: &Cache) -> Option<Arc<ScopedCache>> {
    view(store.data_mut()).here(cache)
}

/// The answer of a cache that is in this process.
fn now<'a, T: 'static, R: Send + 'a>(
    mut store: StoreContextMut<'a, T>,
    view: View<T>,
    cache: &ScopedCache,
    outcome: wasmtime::Result<Result<R, CacheError>>,
) -> Later<'a, R> {
    Box::new(ready(outcome.and_then(|outcome| answer(view(store.data_mut()).report(cache, outcome)))))
}

fn answer<R>(outcome: CallResult<R>) -> Answer<R> {
    match outcome {
        Ok(answer) => Ok((Ok(answer),)),
        Err(CallError::Plugin(error)) => Ok((Err(error),)),
        Err(CallError::Trap(trap)) => Err(trap),
    }
}

fn texts<'a, T: 'static>(
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
    use wit_parser::{ManglingAndAbi, Resolve};

    use super::*;

    /// A component that imports the whole interface, and does nothing with it.
    fn importer() -> Vec<u8> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path("wit").unwrap();
        let world = resolve.select_world(&[package], Some("imports")).unwrap();
        let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }

    #[test]
    fn every_function_of_the_wit_is_linked_with_its_types() {
        let engine = Engine::default();
        let component = Component::new(&engine, importer()).unwrap();
        let imported = component.component_type().imports(&engine).count();
        assert_eq!(imported, 1, "the interface");
        let mut linker = Linker::<()>::new(&engine);
        assert!(linker.instantiate_pre(&component).is_err(), "nothing is imported");
        add_to_linker(&mut linker, |_| unreachable!("nothing is called")).unwrap();
        linker.instantiate_pre(&component).unwrap();
        assert!(add_to_linker(&mut linker, |_| unreachable!("nothing is called")).is_err(), "it is there already");
    }
}
