//! The calls of `larder:cache/cache`, and the mapping of cache errors to errors of the interface.

use std::sync::Arc;

use tracing::Level;
use wasmtime::component::Resource;

use super::call_limit::RunningCall;
use super::ctx::{LarderCtx, LarderView, Quota};
use super::handles::{HeldVacancy, LimitedResource, OpenCache};
use super::mistakes::Mistake;
use super::wit;
use crate::cache::text::{one_line, short_line};
use crate::cache::{CacheError, Duration, Entry, Freshness, OpenError, PluginError, ScopedCache, Vacancy};
use crate::nearest::did_you_mean;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The error that the plugin gets.
    Plugin(wit::Error),
    /// The plugin is at a limit of what it may hold or call at a time, which the text names.
    Limit(String),
    /// The plugin traps: it used a handle that it does not hold, or a text that is none, which only broken bindings do.
    Trap(wasmtime::Error),
}

pub(super) type CallResult<T> = Result<T, CallError>;

impl From<wasmtime::Error> for CallError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

impl From<wasmtime::component::ResourceTableError> for CallError {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

impl<'a> LarderView<'a> {
    /// The cache of a handle, if the plugin may start a call. Any error of the call is found on the asynchronous path.
    pub(super) fn cache(self, handle: &Resource<OpenCache>) -> Option<(&'a Arc<ScopedCache>, &'a mut LarderCtx)> {
        let OpenCache(cache) = self.table.get(handle).ok()?;
        self.ctx.calls.has_room().then_some((cache, self.ctx))
    }
}

impl LarderView<'_> {
    /// The cache of a handle, if it has a fast path or a near tier and the plugin may start a call, as
    /// [`LarderView::cache`].
    pub(super) fn fast_path_cache(self, handle: &Resource<OpenCache>) -> Option<Arc<ScopedCache>> {
        let (cache, _) = self.cache(handle)?;
        let has_path = cache.fast_path().is_some() || cache.near_path().is_some();
        has_path.then(|| Arc::clone(cache))
    }

    // Decision: docs/decisions/0028-a-fill-does-not-count-as-a-concurrent-call.md
    /// Starts a call of a cache within the plugin's limit of concurrent calls. Fills and drops are not counted: the
    /// callers that wait for a fill would otherwise block it.
    pub(super) fn begin(&self, handle: &Resource<OpenCache>) -> CallResult<(RunningCall, Arc<ScopedCache>)> {
        Ok((self.begin_call()?, Arc::clone(&self.table.get(handle)?.0)))
    }

    /// The part of [`LarderView::begin`] that counts the call.
    pub(super) fn begin_call(&self) -> CallResult<RunningCall> {
        let refused = |max| CallError::Limit(format!("too many concurrent calls: the limit is {max}"));
        self.ctx.calls.begin().map_err(refused)
    }

    /// Adds a resource to the table, within the plugin's quota.
    pub(super) fn push<T: LimitedResource>(&mut self, resource: T) -> CallResult<Resource<T>> {
        let quota = T::quota(self.ctx);
        if quota.held >= quota.max {
            return Err(CallError::Limit(format!("too many {}: the limit is {}", T::NAME, quota.max)));
        }
        let handle = self.table.push(resource)?;
        quota.held = quota.held.saturating_add(1);
        Ok(handle)
    }

    /// Removes a resource from the table.
    pub(super) fn delete<T: LimitedResource>(
        &mut self,
        handle: Resource<T>,
    ) -> Result<T, wasmtime::component::ResourceTableError> {
        let resource = self.table.delete(handle)?;
        let quota = T::quota(self.ctx);
        quota.held = quota.held.saturating_sub(1);
        Ok(resource)
    }

    /// As [`LarderCtx::report`].
    pub(super) fn report<T>(&mut self, cache: &ScopedCache, outcome: Result<T, CacheError>) -> CallResult<T> {
        self.ctx.report(cache, outcome)
    }

    /// `name` is what the plugin asked for; `None` for the default cache.
    fn push_opened(
        &mut self,
        name: Option<&str>,
        opened: Result<ScopedCache, OpenError>,
    ) -> CallResult<Resource<OpenCache>> {
        let cache = opened.map_err(|error| {
            self.ctx.log_refused(name, error);
            CallError::Plugin(match error {
                OpenError::NoSuchCache => wit::Error::NoSuchCache,
                OpenError::NotGranted => wit::Error::AccessDenied,
            })
        })?;
        self.push(OpenCache(Arc::new(cache)))
    }
}

impl LarderCtx {
    /// Converts a cache error to the plugin's error, which is short and stable. The full error is logged.
    pub(super) fn report<T>(&mut self, cache: &ScopedCache, outcome: Result<T, CacheError>) -> CallResult<T> {
        outcome.map_err(|error| {
            self.log(cache, &error);
            CallError::Plugin(match error.handling().error {
                PluginError::InvalidArgument(rule) => wit::Error::InvalidArgument(rule.to_owned()),
                PluginError::ValueTooLarge(max) => wit::Error::ValueTooLarge(u64::try_from(max).unwrap_or(u64::MAX)),
                PluginError::AccessDenied => wit::Error::AccessDenied,
                PluginError::Timeout => wit::Error::Timeout,
                PluginError::Unavailable => wit::Error::Unavailable,
                PluginError::Other(message) => wit::Error::Other(message.to_owned()),
            })
        })
    }

    /// Logs the error of a call. A mistake of the plugin or its grant is a warning the first time.
    fn log(&mut self, cache: &ScopedCache, error: &CacheError) {
        let level = match Mistake::of(error) {
            Some(mistake) => Some(self.level_of(mistake)),
            None => error.handling().level,
        };
        if let Some(level) = level {
            write_line(&self.plugin, &mut self.log_lines, level, cache.name(), || one_line(&error.to_string()));
        }
    }

    /// Logs why the plugin did not get a cache. `name` is what it asked for; `None` for the default cache.
    fn log_refused(&mut self, name: Option<&str>, error: OpenError) {
        let level = self.level_of(error.into());
        let caches = &self.caches;
        let cache = name.map_or_else(|| caches.default_name().to_owned(), short_line);
        write_line(&self.plugin, &mut self.log_lines, level, &cache, || {
            let default = if name.is_none() { "default " } else { "" };
            match error {
                OpenError::NoSuchCache => {
                    let meant = did_you_mean(&cache, caches.names());
                    format!("the plugin asked for the cache `{cache}`: there are only {}{meant}", list(caches.names()))
                }
                OpenError::NotGranted => format!(
                    "the plugin asked for the {default}cache `{cache}`, which is not granted to it: granted are {}",
                    list(caches.granted())
                ),
            }
        });
    }

    /// Logs the reason of an error that the plugin gets without it. `error` is its name there.
    pub(super) fn log_reason(&mut self, mistake: Mistake, cache: &str, error: &str, reason: &str) {
        let level = self.level_of(mistake);
        write_line(&self.plugin, &mut self.log_lines, level, &short_line(cache), || {
            format!("the plugin gets `{error}` without the reason: {}", one_line(reason))
        });
    }

    fn level_of(&self, mistake: Mistake) -> Level {
        if self.mistakes.is_first(&self.plugin, mistake) { Level::WARN } else { Level::DEBUG }
    }
}

/// Logs one line, which is a warning or for debugging, within the instance's quota of log lines.
fn write_line(plugin: &str, lines: &mut Quota, level: Level, cache: &str, text: impl FnOnce() -> String) {
    let is_warning = level == Level::WARN;
    let is_logged = if is_warning { tracing::enabled!(Level::WARN) } else { tracing::enabled!(Level::DEBUG) };
    if !is_logged || lines.held > lines.max {
        return;
    }
    lines.held = lines.held.saturating_add(1);
    if lines.held > lines.max {
        tracing::warn!(plugin, "this instance has caused {} log lines: further ones are suppressed", lines.max);
    } else if is_warning {
        tracing::warn!(plugin, cache, "{}", text());
    } else {
        tracing::debug!(plugin, cache, "{}", text());
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
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

impl LarderView<'_> {
    pub(super) fn open(&mut self, name: &str) -> CallResult<Resource<OpenCache>> {
        let opened = self.ctx.caches.open(name).cloned();
        self.push_opened(Some(name), opened)
    }

    pub(super) fn open_default(&mut self) -> CallResult<Resource<OpenCache>> {
        let opened = self.ctx.caches.open_default().cloned();
        self.push_opened(None, opened)
    }

    /// Makes the calls of a handle wait for room for their answers. A call that other calls of the instance wait for must not
    /// do so.
    pub(super) fn limit_answers(&mut self, handle: Resource<OpenCache>) -> CallResult<Resource<OpenCache>> {
        let answers = Arc::clone(&self.ctx.answers);
        let OpenCache(cache) = self.table.get_mut(&handle)?;
        *cache = Arc::new(ScopedCache::clone(cache).with_answer_limit(answers));
        Ok(handle)
    }

    pub(super) fn drop_cache(&mut self, handle: Resource<OpenCache>) -> wasmtime::Result<()> {
        self.delete(handle)?;
        Ok(())
    }

    /// What the plugin gets of `get-or-set`: the value, or a handle to the vacancy.
    pub(super) fn entry(
        &mut self,
        cache: Arc<ScopedCache>,
        found: Result<Entry, CacheError>,
    ) -> CallResult<wit::Entry> {
        match self.report(&cache, found)? {
            Entry::Occupied(value) => Ok(wit::Entry::Occupied(value)),
            Entry::Vacant(vacancy) => Ok(wit::Entry::Vacant(self.push(HeldVacancy(Some((cache, vacancy))))?)),
        }
    }

    /// What the plugin gets of `get-or-refresh`.
    pub(super) fn freshness(
        &mut self,
        cache: Arc<ScopedCache>,
        found: Result<Freshness, CacheError>,
    ) -> CallResult<wit::Freshness> {
        Ok(match self.report(&cache, found)? {
            Freshness::Fresh(value) => wit::Freshness::Fresh(value),
            Freshness::Stale { value, refresh: None } => {
                wit::Freshness::Stale(wit::StaleValue { value, refresh: None })
            }
            Freshness::Stale { value, refresh: Some(vacancy) } => {
                let refresh = match self.push(HeldVacancy(Some((cache, vacancy)))) {
                    Ok(refresh) => Some(refresh),
                    // The plugin holds too many vacancies to refresh the value, but it may have it.
                    Err(CallError::Limit(_)) => None,
                    Err(other) => return Err(other),
                };
                wit::Freshness::Stale(wit::StaleValue { value, refresh })
            }
            Freshness::Vacant(vacancy) => wit::Freshness::Vacant(self.push(HeldVacancy(Some((cache, vacancy))))?),
        })
    }

    /// Takes a vacancy out of the table. `None` if the request that took it has ended.
    pub(super) fn take_vacancy(
        &mut self,
        handle: Resource<HeldVacancy>,
    ) -> CallResult<Option<(Arc<ScopedCache>, Vacancy)>> {
        let HeldVacancy(vacancy) = self.delete(handle)?;
        Ok(vacancy)
    }

    pub(super) fn drop_vacancy(&mut self, handle: Resource<HeldVacancy>) -> wasmtime::Result<()> {
        self.delete(handle)?;
        Ok(())
    }
}
