//! The state of one plugin instance: the caches it may open, its limits and what it has used of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use wasmtime::component::ResourceTable;

use super::call_limit::CallLimit;
use super::handles::HeldVacancy;
use super::mistakes::Mistakes;
use crate::cache::{AnswerLimit, PluginCaches};
use crate::default_limits;
use crate::settings::Settings;

/// The cache state of one plugin instance. Each store has its own.
#[derive(Debug)]
pub struct LarderCtx {
    /// The plugin's name, for the log.
    pub(super) plugin: String,
    pub(super) caches: PluginCaches,
    pub(super) handles: Quota,
    pub(super) vacancies: Quota,
    pub(super) log_lines: Quota,
    pub(super) calls: Arc<CallLimit>,
    pub(super) mistakes: Arc<Mistakes>,
    /// What `wasi:config` returns.
    pub(super) settings: Settings,
    /// The bytes of the arguments of asynchronous calls, without fills.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// The bytes of the values of asynchronous fills.
    pub(super) fills: Arc<AtomicUsize>,
    /// The limit on the answers of asynchronous calls.
    pub(super) answers: Arc<AnswerLimit>,
    /// As [`Bounds::max_concurrent_bytes`].
    pub(super) max_concurrent_bytes: usize,
}

/// The limits of one plugin instance. Start from [`Bounds::default`] and set the fields that differ.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bounds {
    /// The maximum number of open cache handles. Defaults to 1,024.
    pub max_handles: usize,
    /// The maximum number of vacancies held at a time. Defaults to 256.
    pub max_vacancies: usize,
    /// The maximum number of log lines that the instance's calls cause. Defaults to 100.
    pub max_log_lines: usize,
    /// The maximum number of bytes of the arguments of all asynchronous calls that run, of the values of all asynchronous
    /// fills that run, and of the answers that the plugin has not taken. A call over the first or the second is refused, and
    /// one without room for the longest answer that it may get waits. A call alone is never over it. Defaults to 16 MiB.
    pub max_concurrent_bytes: usize,
    /// The limit on concurrent calls. All instances of a plugin share it if each gets a clone of the same `Arc`.
    /// Defaults to 1,024 calls of this instance alone.
    pub calls: Arc<CallLimit>,
    /// Which mistakes were logged. Instances that share it, by clones of the same `Arc`, cause one warning for each plugin
    /// and kind of mistake. Defaults to that of this instance alone.
    pub mistakes: Arc<Mistakes>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_handles: default_limits::MAX_HANDLES,
            max_vacancies: default_limits::MAX_VACANCIES,
            max_log_lines: default_limits::MAX_LOG_LINES,
            max_concurrent_bytes: default_limits::MAX_CONCURRENT_BYTES,
            calls: CallLimit::new(default_limits::MAX_CONCURRENT_CALLS),
            mistakes: Arc::default(),
        }
    }
}

/// A limited number of resources, and how many of them are in use.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) held: usize,
    pub(super) max: usize,
}

impl LarderCtx {
    /// Creates the state of one instance of the plugin `plugin`, which may open `caches` within `bounds`.
    pub fn new(plugin: impl Into<String>, caches: PluginCaches, bounds: Bounds) -> Self {
        let Bounds { max_handles, max_vacancies, max_log_lines, max_concurrent_bytes, calls, mistakes } = bounds;
        let quota = |max| Quota { held: 0, max };
        let (handles, vacancies, log_lines) = (quota(max_handles), quota(max_vacancies), quota(max_log_lines));
        let (plugin, settings) = (plugin.into(), Settings::default());
        let (in_flight, fills, answers) = (Arc::default(), Arc::default(), AnswerLimit::new(max_concurrent_bytes));
        Self {
            plugin,
            caches,
            handles,
            vacancies,
            log_lines,
            calls,
            mistakes,
            settings,
            in_flight,
            fills,
            answers,
            max_concurrent_bytes,
        }
    }

    /// Sets the settings that `wasi:config` returns. Without this call there are none.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }
}

/// A borrow of the cache state and the resource table of a store, for one call.
pub struct LarderView<'a> {
    /// The cache state of the instance.
    pub ctx: &'a mut LarderCtx,
    /// The resource table of the store.
    pub table: &'a mut ResourceTable,
}

impl LarderView<'_> {
    /// Ends a piece of work of an instance that goes on, such as one HTTP request: gives back the vacancies that it has
    /// neither filled nor dropped, as if it had dropped them, and lets the next one cause log lines of its own. The
    /// plugin's handles stay valid and still count; a fill with such a handle stores nothing.
    pub fn end_work(&mut self) {
        self.ctx.log_lines.held = 0;
        if self.ctx.vacancies.held > 0 {
            let held = self.table.iter_mut().filter_map(|resource| resource.downcast_mut::<HeldVacancy>());
            held.for_each(|HeldVacancy(vacancy)| drop(vacancy.take()));
        }
    }

    /// How many further cache handles and vacancies the plugin may hold.
    #[cfg(feature = "serve")]
    pub(crate) fn free_handles(&self) -> [usize; 2] {
        [&self.ctx.handles, &self.ctx.vacancies].map(|quota| quota.max.saturating_sub(quota.held))
    }
}

impl fmt::Debug for LarderView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LarderView").field("ctx", &self.ctx).finish_non_exhaustive()
    }
}
