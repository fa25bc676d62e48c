//! The WIT interface on a wasmtime linker: a ctx that the embedder owns, a view lent for one call, and
//! [`add_to_linker`]. Holds no caching logic: it converts, calls and converts back.

mod cache;
mod call_limit;
mod interface;
mod wit;

use std::fmt;
use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};

use crate::cache::PluginCaches;

pub use call_limit::CallLimit;

/// What one plugin instance holds of the caches. One per store.
#[derive(Debug)]
pub struct LarderCtx {
    /// The plugin's name, for the log.
    plugin: String,
    caches: PluginCaches,
    handles: Count,
    vacancies: Count,
    log_lines: Count,
    calls: Arc<CallLimit>,
}

/// What bounds one plugin instance.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The most cache handles held at a time. Defaults to 1,024.
    pub max_handles: usize,
    /// The most vacancies held at a time. Defaults to 256.
    pub max_vacancies: usize,
    /// The most lines of the log that the instance's calls cause. Defaults to 100.
    pub max_log_lines: usize,
    /// The calls of all instances of the plugin, shared by them. Defaults to 1,024 of this instance alone.
    pub calls: Arc<CallLimit>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_handles: 1024, max_vacancies: 256, max_log_lines: 100, calls: CallLimit::new(1024) }
    }
}

/// How many of a kind a plugin instance has, and may have.
#[derive(Debug)]
struct Count {
    held: usize,
    max: usize,
}

impl LarderCtx {
    /// A ctx for one plugin instance, which may open `caches`.
    pub fn new(plugin: impl Into<String>, caches: PluginCaches, bounds: Bounds) -> Self {
        let Bounds { max_handles, max_vacancies, max_log_lines, calls } = bounds;
        let count = |max| Count { held: 0, max };
        let (handles, vacancies, log_lines) = (count(max_handles), count(max_vacancies), count(max_log_lines));
        Self { plugin: plugin.into(), caches, handles, vacancies, log_lines, calls }
    }
}

/// A ctx and the store's resource table, lent for one call.
pub struct LarderView<'a> {
    /// The instance's ctx.
    pub ctx: &'a mut LarderCtx,
    /// The store's resource table.
    pub table: &'a mut ResourceTable,
}

impl fmt::Debug for LarderView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LarderView").field("ctx", &self.ctx).finish_non_exhaustive()
    }
}

/// Adds `larder:cache/cache` to a linker; `view` finds the ctx and the table in the store's data.
///
/// The interface suspends the plugin while a call is under way, so instances are made and called with wasmtime's async
/// functions.
///
/// # Errors
///
/// Wasmtime's, when the linker has the interface already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> LarderView<'_>,
) -> wasmtime::Result<()> {
    interface::add_to_linker(linker, view)
}
