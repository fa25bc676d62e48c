//! `larder:cache/cache`, call by call, and the one place where cache errors become the plugin's.

#![expect(unreachable_pub, reason = "the generated code re-exports these types")]

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::larder::cache::cache as wit;
use super::calls::Call;
use super::{Count, LarderCtx, LarderView};
use crate::cache::{CacheError, Duration, Entry, OpenError, ScopedCache, Vacancy};
use crate::error::one_line;

/// A cache handle of a plugin.
#[derive(Debug)]
pub struct OpenCache(ScopedCache);

/// A vacancy of a plugin, with the cache it belongs to.
#[derive(Debug)]
pub struct HeldVacancy {
    cache: ScopedCache,
    vacancy: Vacancy,
}

/// What ends a call: an error for the plugin, or a trap.
#[derive(Debug)]
pub enum CallError {
    /// The plugin gets this.
    Plugin(wit::Error),
    /// The plugin ends: it used a handle it does not hold, which only broken bindings do.
    Trap(wasmtime::Error),
}

type CallResult<T> = Result<T, CallError>;

impl From<wasmtime::component::ResourceTableError> for CallError {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

/// What a plugin holds a bounded number of.
trait Held: Send + 'static {
    /// What many of them are called.
    const NAME: &str;

    fn count(ctx: &mut LarderCtx) -> &mut Count;
}

impl Held for OpenCache {
    const NAME: &str = "open handles";

    fn count(ctx: &mut LarderCtx) -> &mut Count {
        &mut ctx.handles
    }
}

impl Held for HeldVacancy {
    const NAME: &str = "vacancies";

    fn count(ctx: &mut LarderCtx) -> &mut Count {
        &mut ctx.vacancies
    }
}

impl LarderView<'_> {
    fn cache(&self, handle: &Resource<OpenCache>) -> CallResult<ScopedCache> {
        Ok(self.table.get(handle)?.0.clone())
    }

    /// Begins a call, unless the plugin has as many under way as it may. A fill is no such call, and neither is a drop:
    /// those who wait for a fill would shut its maker out.
    fn begin(&self) -> CallResult<Call> {
        self.ctx
            .calls
            .begin()
            .map_err(|max| CallError::Plugin(wit::Error::Other(format!("too many calls at once: the limit is {max}"))))
    }

    /// Puts a resource into the table, within the plugin's bound.
    fn push<T: Held>(&mut self, resource: T) -> CallResult<Resource<T>> {
        let count = T::count(self.ctx);
        if count.held >= count.max {
            let message = format!("too many {}: the limit is {}", T::NAME, count.max);
            return Err(CallError::Plugin(wit::Error::Other(message)));
        }
        let handle = self.table.push(resource)?;
        count.held = count.held.saturating_add(1);
        Ok(handle)
    }

    /// Takes a resource out of the table.
    fn delete<T: Held>(&mut self, handle: Resource<T>) -> Result<T, wasmtime::component::ResourceTableError> {
        let resource = self.table.delete(handle)?;
        let count = T::count(self.ctx);
        count.held = count.held.saturating_sub(1);
        Ok(resource)
    }

    /// The plugin's error for the cache's: short and stable. The operator gets the whole story in the log.
    fn report<T>(&mut self, cache: &ScopedCache, outcome: Result<T, CacheError>) -> CallResult<T> {
        outcome.map_err(|error| {
            self.log(cache, &error);
            let error = match error {
                CacheError::InvalidArgument(rule) => wit::Error::InvalidArgument(rule),
                CacheError::ValueTooLarge { max, .. } => {
                    wit::Error::ValueTooLarge(u64::try_from(max).unwrap_or(u64::MAX))
                }
                CacheError::ReadOnly => wit::Error::AccessDenied,
                CacheError::Timeout(_) | CacheError::Lost(_) => wit::Error::Timeout,
                CacheError::Unavailable(_) => wit::Error::Unavailable,
                CacheError::WrongType => wit::Error::Other("the key holds a value of another type".to_owned()),
                CacheError::Refused(_) => wit::Error::Other("the server refused the command".to_owned()),
            };
            CallError::Plugin(error)
        })
    }

    /// Logs what only the operator may know, in one line each, and not more of them than an instance may cause.
    fn log(&mut self, cache: &ScopedCache, error: &CacheError) {
        let is_logged = match error {
            CacheError::Refused(_) => tracing::enabled!(tracing::Level::WARN),
            CacheError::Timeout(_) | CacheError::Unavailable(_) => tracing::enabled!(tracing::Level::DEBUG),
            _ => false,
        };
        let (plugin, cache, lines) = (&self.ctx.plugin, cache.name(), &mut self.ctx.log_lines);
        if !is_logged || lines.held > lines.max {
            return;
        }
        lines.held = lines.held.saturating_add(1);
        let text = one_line(&error.to_string());
        if lines.held > lines.max {
            tracing::warn!(plugin, "this instance has caused {} lines: further ones are left out", lines.max);
        } else if matches!(error, CacheError::Refused(_)) {
            tracing::warn!(plugin, cache, "{text}");
        } else {
            tracing::debug!(plugin, cache, "{text}");
        }
    }

    fn open(&mut self, opened: Result<ScopedCache, OpenError>) -> CallResult<Resource<OpenCache>> {
        let cache = opened.map_err(|error| {
            CallError::Plugin(match error {
                OpenError::NoSuchCache => wit::Error::NoSuchCache,
                OpenError::NotGranted => wit::Error::AccessDenied,
            })
        })?;
        self.push(OpenCache(cache))
    }
}

impl From<wit::Duration> for Duration {
    fn from(duration: wit::Duration) -> Self {
        match duration {
            wit::Duration::Default => Self::Default,
            wit::Duration::Milliseconds(milliseconds) => Self::Milliseconds(milliseconds),
            wit::Duration::Unlimited => Self::Unlimited,
        }
    }
}

impl wit::Host for LarderView<'_> {
    fn open(&mut self, name: String) -> CallResult<Resource<OpenCache>> {
        let opened = self.ctx.caches.open(&name).cloned();
        LarderView::open(self, opened)
    }

    fn open_default(&mut self) -> CallResult<Resource<OpenCache>> {
        let opened = self.ctx.caches.open_default().cloned();
        LarderView::open(self, opened)
    }

    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<wit::Error> {
        match error {
            CallError::Plugin(error) => Ok(error),
            CallError::Trap(trap) => Err(trap),
        }
    }
}

impl wit::HostCache for LarderView<'_> {
    async fn get(&mut self, handle: Resource<OpenCache>, key: String) -> CallResult<Option<Vec<u8>>> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let found = cache.get(&key).await;
        let value = self.report(&cache, found)?;
        Ok(value.map(Vec::from))
    }

    async fn get_many(&mut self, handle: Resource<OpenCache>, keys: Vec<String>) -> CallResult<Vec<Option<Vec<u8>>>> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let found = cache.get_many(&keys).await;
        let values = self.report(&cache, found)?;
        Ok(values.into_iter().map(|value| value.map(Vec::from)).collect())
    }

    async fn set(&mut self, handle: Resource<OpenCache>, key: String, value: Vec<u8>) -> CallResult<()> {
        self.set_with_duration(handle, key, value, wit::Duration::Default).await
    }

    async fn set_with_duration(
        &mut self,
        handle: Resource<OpenCache>,
        key: String,
        value: Vec<u8>,
        duration: wit::Duration,
    ) -> CallResult<()> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let outcome = cache.set(&key, value.into(), duration.into()).await;
        self.report(&cache, outcome)
    }

    async fn set_many(
        &mut self,
        handle: Resource<OpenCache>,
        entries: Vec<(String, Vec<u8>)>,
        duration: wit::Duration,
    ) -> CallResult<()> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let outcome = cache.set_many(entries, duration.into()).await;
        self.report(&cache, outcome)
    }

    async fn get_or_set(&mut self, handle: Resource<OpenCache>, key: String) -> CallResult<wit::Entry> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let found = cache.get_or_set(&key).await;
        match self.report(&cache, found)? {
            Entry::Occupied(value) => Ok(wit::Entry::Occupied(value.into())),
            Entry::Vacant(vacancy) => Ok(wit::Entry::Vacant(self.push(HeldVacancy { cache, vacancy })?)),
        }
    }

    async fn clear(&mut self, handle: Resource<OpenCache>, key: String) -> CallResult<bool> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let outcome = cache.clear(&key).await;
        self.report(&cache, outcome)
    }

    async fn clear_pattern(&mut self, handle: Resource<OpenCache>, pattern: String) -> CallResult<u64> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let outcome = cache.clear_pattern(&pattern).await;
        self.report(&cache, outcome)
    }

    async fn clear_all(&mut self, handle: Resource<OpenCache>) -> CallResult<u64> {
        let _call = self.begin()?;
        let cache = self.cache(&handle)?;
        let outcome = cache.clear_all().await;
        self.report(&cache, outcome)
    }

    async fn drop(&mut self, handle: Resource<OpenCache>) -> wasmtime::Result<()> {
        self.delete(handle)?;
        Ok(())
    }
}

impl wit::HostVacancy for LarderView<'_> {
    async fn fill(
        &mut self,
        handle: Resource<HeldVacancy>,
        value: Vec<u8>,
        duration: wit::Duration,
    ) -> CallResult<bool> {
        let HeldVacancy { cache, vacancy } = self.delete(handle)?;
        let outcome = cache.fill(vacancy, Bytes::from(value), duration.into()).await;
        self.report(&cache, outcome)
    }

    async fn drop(&mut self, handle: Resource<HeldVacancy>) -> wasmtime::Result<()> {
        self.delete(handle)?;
        Ok(())
    }
}
