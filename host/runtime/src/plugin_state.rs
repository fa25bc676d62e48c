//! The data of a plugin's store.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::linker::{LarderCtx, LarderView};
#[cfg(feature = "serve")]
use crate::outgoing::Http;
use crate::sandbox::{DirQuota, Files, MemoryLimit, OutputLimit, Shares, weight};
#[cfg(feature = "serve")]
use crate::sandbox::{Room, has_open_message};
#[cfg(feature = "serve")]
use crate::trace::TraceContext;

/// The data of a plugin's store.
pub(crate) struct PluginState {
    pub(crate) wasi: WasiCtx,
    /// The WASI resources.
    pub(crate) table: ResourceTable,
    pub(crate) larder: LarderCtx,
    /// The cache handles and vacancies. Their number has limits of its own.
    pub(crate) larder_table: ResourceTable,
    pub(crate) memory: MemoryLimit,
    /// What the host may hold for the instance.
    pub(crate) shares: Shares,
    pub(crate) files: Files,
    pub(crate) dir_quota: Arc<DirQuota>,
    pub(crate) output: Arc<OutputLimit>,
    #[cfg(feature = "serve")]
    pub(crate) http: Http,
    /// At least what the resources in the table hold, in bytes, as far as [`PluginState::charge`] knows.
    #[cfg(feature = "serve")]
    pub(crate) charged: usize,
}

impl PluginState {
    /// Makes the plugin's own requests part of the trace.
    #[cfg(feature = "serve")]
    pub(crate) fn set_trace(&mut self, trace: Option<TraceContext>) {
        self.http.set_trace(trace);
    }

    /// Ends a request of an instance that may answer more: what holds for each request begins anew, and its vacancies
    /// are given back. Returns what the instance may still take, or `None` if it holds a message that only its own end
    /// ends.
    #[cfg(feature = "serve")]
    pub(crate) fn end_request(&mut self) -> Option<Room> {
        self.output.begin_anew();
        self.end_work();
        self.set_trace(None);
        (!has_open_message(&mut self.table)).then(|| self.room())
    }

    /// Ends the work of an instance that goes on: no request and no task of the plugin is left that would end its lines or
    /// fill its vacancies.
    #[cfg(feature = "serve")]
    pub(crate) fn end_work(&mut self) {
        self.output.end_lines();
        self.larder().end_work();
    }

    /// What the instance may still take.
    #[cfg(feature = "serve")]
    pub(crate) fn room(&mut self) -> Room {
        let [handles, vacancies] = self.larder().free_handles();
        let (entries, weighed) = (self.table.iter_mut().count(), weight(&mut self.table, self.shares));
        Room {
            is_exceeded: self.memory.is_exceeded,
            memory: self.memory.left(),
            entries: self.shares.entries().saturating_sub(entries),
            weight: self.shares.weighed().saturating_sub(weighed),
            handles,
            vacancies,
        }
    }

    pub(crate) fn larder(&mut self) -> LarderView<'_> {
        LarderView { ctx: &mut self.larder, table: &mut self.larder_table }
    }

    /// Charges the instance for a resource that was added to the table or has grown, by this many bytes at most. The
    /// table is weighed only when the sum of all charges reaches the share: with many requests at the same time it is long.
    ///
    /// # Errors
    ///
    /// As [`PluginState::weigh`].
    #[cfg(feature = "serve")]
    pub(crate) fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.charged = self.charged.saturating_add(bytes);
        if self.charged > self.shares.weighed() {
            self.charged = weight(&mut self.table, self.shares);
            self.weigh()?;
        }
        Ok(())
    }

    /// Weighs what the host holds for the instance, after a resource was added to the table.
    ///
    /// # Errors
    ///
    /// The trap, if it is more than the share of `max_memory`.
    pub(crate) fn weigh(&mut self) -> wasmtime::Result<()> {
        let streams = self.files.count().saturating_mul(self.shares.chunk());
        let files = streams.saturating_add(self.files.path_bytes());
        let (held, max) = (files.saturating_add(weight(&mut self.table, self.shares)), self.shares.weighed());
        if held <= max {
            return Ok(());
        }
        Err(self
            .memory
            .exceed(format!("its open files and HTTP messages take over {}", bytesize::ByteSize(max as u64))))
    }
}

#[cfg(feature = "serve")]
impl Drop for PluginState {
    /// Aborts unfinished requests before the fields are dropped, and with them the bodies.
    fn drop(&mut self) {
        self.http.abort();
    }
}

impl WasiView for PluginState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[cfg(feature = "serve")]
impl wasmtime_wasi_http::WasiHttpView for PluginState {
    fn http(&mut self) -> wasmtime_wasi_http::WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
    }
}
