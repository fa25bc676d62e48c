//! The functions of `larder:cache/cache-async` by their names in `wit/cache-async.wit`.
//!
//! A call copies its arguments, so that it needs the plugin's store only at its beginning and its end. While it waits, other
//! tasks of the instance go on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::{Accessor, Linker};

use super::cache::{CallError, CallResult};
use super::ctx::LarderView;
use super::interface::{CacheHandle, HostResult, VacancyHandle, View, add_resources, to_host_result};
use super::wit;
use crate::cache::{CacheError, Duration, Entry, Freshness, Owner, ScopedCache, Vacancy};

/// The interface's name.
pub(crate) const INTERFACE: &str = "larder:cache/cache-async@0.1.1";

/// What one key or value of a batch takes besides its bytes.
const ITEM: usize = 64;

/// The result that the plugin awaits.
type HostFuture<'a, R> = Pin<Box<dyn Future<Output = HostResult<R>> + Send + 'a>>;

/// The bytes of the arguments of a running call. Dropping it gives them back.
struct InFlight {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Adds the interface `larder:cache/cache-async` to a linker, beside that of [`add_to_linker`](super::add_to_linker). `view`
/// borrows the cache state and the resource table from the store's data.
///
/// What the calls of an instance hold at a time is within [`Bounds::max_concurrent_bytes`](super::Bounds::max_concurrent_bytes).
///
/// # Errors
///
/// Wasmtime's error if the linker already has the interface, or if the engine has no concurrency support. The embedder must
/// call this once for each linker of an engine that has it.
pub fn add_concurrent_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> LarderView<'_>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    add_resources(&mut interface, view, |view, cache| view.limit_answers(cache))?;
    interface.func_wrap_concurrent("[method]cache.get", move |accessor, (cache, key): (CacheHandle, String)| {
        let len = key.len();
        answer(accessor, view, cache, len, report, move |cache| async move { cache.get(&key).await })
    })?;
    interface.func_wrap_concurrent(
        "[method]cache.get-many",
        move |accessor, (cache, keys): (CacheHandle, Vec<String>)| {
            let len = total(keys.iter().map(String::len));
            answer(accessor, view, cache, len, report, move |cache| async move { cache.get_many(&keys).await })
        },
    )?;
    interface.func_wrap_concurrent(
        "[method]cache.set",
        move |accessor, (cache, key, value): (CacheHandle, String, Vec<u8>)| {
            set(accessor, view, cache, key, value, Duration::Default)
        },
    )?;
    interface.func_wrap_concurrent(
        "[method]cache.set-with-duration",
        move |accessor, (cache, key, value, duration): (CacheHandle, String, Vec<u8>, wit::Duration)| {
            set(accessor, view, cache, key, value, duration.into())
        },
    )?;
    interface.func_wrap_concurrent(
        "[method]cache.set-many",
        move |accessor, (cache, entries, duration): (CacheHandle, Vec<(String, Vec<u8>)>, wit::Duration)| {
            let len = total(entries.iter().map(|(key, value)| key.len().saturating_add(value.len())));
            answer(accessor, view, cache, len, report, move |cache| async move {
                cache.set_many(entries, duration.into()).await
            })
        },
    )?;
    interface.func_wrap_concurrent(
        "[method]cache.get-or-set",
        move |accessor, (cache, key): (CacheHandle, String)| {
            let len = key.len();
            answer(accessor, view, cache, len, entry, move |cache| async move { own(&cache).get_or_set(&key).await })
        },
    )?;
    interface.func_wrap_concurrent(
        "[method]cache.get-or-refresh",
        move |accessor, (cache, key, stale): (CacheHandle, String, wit::Duration)| {
            let len = key.len();
            answer(accessor, view, cache, len, freshness, move |cache| async move {
                own(&cache).get_or_refresh(&key, stale.into()).await
            })
        },
    )?;
    interface.func_wrap_concurrent("[method]cache.clear", move |accessor, (cache, key): (CacheHandle, String)| {
        let len = key.len();
        answer(accessor, view, cache, len, report, move |cache| async move { cache.clear(&key).await })
    })?;
    interface.func_wrap_concurrent(
        "[method]cache.clear-pattern",
        move |accessor, (cache, pattern): (CacheHandle, String)| {
            let len = pattern.len();
            answer(accessor, view, cache, len, report, move |cache| async move { cache.clear_pattern(&pattern).await })
        },
    )?;
    interface.func_wrap_concurrent("[method]cache.clear-all", move |accessor, (cache,): (CacheHandle,)| {
        answer(accessor, view, cache, 0, report, move |cache| async move { cache.clear_all().await })
    })?;
    interface.func_wrap_concurrent(
        "[static]vacancy.fill",
        move |accessor, (vacancy, value, duration): (VacancyHandle, Vec<u8>, wit::Duration)| {
            fill(accessor, view, vacancy, value, move |cache, vacancy, value| async move {
                cache.fill(vacancy, value.into(), duration.into()).await
            })
        },
    )?;
    interface.func_wrap_concurrent(
        "[static]vacancy.fill-stale",
        move |accessor, (vacancy, value, duration, stale): (VacancyHandle, Vec<u8>, wit::Duration, wit::Duration)| {
            fill(accessor, view, vacancy, value, move |cache, vacancy, value| async move {
                cache.fill_stale(vacancy, value.into(), duration.into(), stale.into()).await
            })
        },
    )?;
    Ok(())
}

/// The future of a call of a cache, as [`call`].
fn answer<'a, T, R, O, C>(
    accessor: &'a Accessor<T>,
    view: View<T>,
    cache: CacheHandle,
    len: usize,
    finish: fn(LarderView<'_>, Arc<ScopedCache>, Result<O, CacheError>) -> CallResult<R>,
    make: impl FnOnce(Arc<ScopedCache>) -> C + Send + 'a,
) -> HostFuture<'a, R>
where
    T: Send + 'static,
    R: Send + 'a,
    O: Send + 'a,
    C: Future<Output = Result<O, CacheError>> + Send + 'a,
{
    Box::pin(async move { to_host_result(call(accessor, view, cache, len, finish, make).await) })
}

/// Makes a call of a cache, whose arguments have `len` bytes. `finish` converts its outcome.
pub(super) async fn call<T, R, O, C>(
    accessor: &Accessor<T>,
    view: View<T>,
    cache: CacheHandle,
    len: usize,
    finish: fn(LarderView<'_>, Arc<ScopedCache>, Result<O, CacheError>) -> CallResult<R>,
    make: impl FnOnce(Arc<ScopedCache>) -> C + Send,
) -> CallResult<R>
where
    T: Send + 'static,
    C: Future<Output = Result<O, CacheError>> + Send,
{
    let (_call, cache, _in_flight) = accessor.with(|mut access| {
        let view = view(access.data_mut());
        let (call, cache) = view.begin(&cache)?;
        let in_flight = in_flight(&view.ctx.in_flight, len, view.ctx.max_concurrent_bytes)?;
        CallResult::Ok((call, cache, in_flight))
    })?;
    let outcome = make(Arc::clone(&cache)).await;
    accessor.with(|mut access| finish(view(access.data_mut()), cache, outcome))
}

fn set<T: Send + 'static>(
    accessor: &Accessor<T>,
    view: View<T>,
    cache: CacheHandle,
    key: String,
    value: Vec<u8>,
    duration: Duration,
) -> HostFuture<'_, ()> {
    let len = key.len().saturating_add(value.len());
    answer(
        accessor,
        view,
        cache,
        len,
        report,
        move |cache| async move { cache.set(&key, value.into(), duration).await },
    )
}

/// Fills a vacancy. It is not counted as a call, as in [`LarderView::begin`], and its value not beside the arguments of
/// calls: those that wait for it would otherwise block it.
fn fill<'a, T, C>(
    accessor: &'a Accessor<T>,
    view: View<T>,
    vacancy: VacancyHandle,
    value: Vec<u8>,
    call: impl FnOnce(Arc<ScopedCache>, Vacancy, Vec<u8>) -> C + Send + 'a,
) -> HostFuture<'a, bool>
where
    T: Send + 'static,
    C: Future<Output = Result<bool, CacheError>> + Send + 'a,
{
    Box::pin(async move {
        let filled: CallResult<bool> = async {
            let taken = accessor.with(|mut access| {
                let mut view = view(access.data_mut());
                let Some(taken) = view.take_vacancy(vacancy)? else { return Ok(None) };
                let in_flight = in_flight(&view.ctx.fills, value.len(), view.ctx.max_concurrent_bytes)?;
                CallResult::Ok(Some((taken, in_flight)))
            });
            let Some(((cache, vacancy), _in_flight)) = taken? else { return Ok(false) };
            let outcome = call(Arc::clone(&cache), vacancy, value).await;
            accessor.with(|mut access| report(view(access.data_mut()), cache, outcome))
        }
        .await;
        to_host_result(filled)
    })
}

/// Counts the bytes of a call's arguments among those of all that run. A call alone has the limits of one call.
fn in_flight(all: &Arc<AtomicUsize>, len: usize, max: usize) -> CallResult<InFlight> {
    let all = Arc::clone(all);
    let before = all.fetch_add(len, Ordering::Relaxed);
    let in_flight = InFlight { all, bytes: len };
    if before > 0 && before.saturating_add(len) > max {
        return Err(CallError::Limit(format!("too many bytes in concurrent calls: the limit is {max}")));
    }
    Ok(in_flight)
}

pub(super) fn total(lens: impl Iterator<Item = usize>) -> usize {
    lens.fold(0, |sum: usize, len| sum.saturating_add(len).saturating_add(ITEM))
}

/// The cache for one call that may get a vacancy: tasks of one instance wait for each other.
fn own(cache: &Arc<ScopedCache>) -> ScopedCache {
    ScopedCache::clone(cache).with_owner(Owner::new())
}

pub(super) fn report<R>(
    mut view: LarderView<'_>,
    cache: Arc<ScopedCache>,
    outcome: Result<R, CacheError>,
) -> CallResult<R> {
    view.report(&cache, outcome)
}

fn entry(
    mut view: LarderView<'_>,
    cache: Arc<ScopedCache>,
    found: Result<Entry, CacheError>,
) -> CallResult<wit::Entry> {
    view.entry(cache, found)
}

fn freshness(
    mut view: LarderView<'_>,
    cache: Arc<ScopedCache>,
    found: Result<Freshness, CacheError>,
) -> CallResult<wit::Freshness> {
    view.freshness(cache, found)
}
