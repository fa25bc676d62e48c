//! The data of a plugin's store.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::linker::{LarderCtx, LarderView};
#[cfg(feature = "serve")]
use crate::outgoing::Http;
use crate::sandbox::{MemoryLimit, OutputLimit};
#[cfg(feature = "serve")]
use crate::trace::TraceContext;

/// The data of a plugin's store.
pub(crate) struct PluginState {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) larder: LarderCtx,
    pub(crate) memory: MemoryLimit,
    pub(crate) output: Arc<OutputLimit>,
    #[cfg(feature = "serve")]
    pub(crate) http: Http,
}

impl PluginState {
    /// Makes the plugin's own requests part of the trace.
    #[cfg(feature = "serve")]
    pub(crate) fn set_trace(&mut self, trace: Option<TraceContext>) {
        self.http.set_trace(trace);
    }

    pub(crate) fn larder(&mut self) -> LarderView<'_> {
        LarderView { ctx: &mut self.larder, table: &mut self.table }
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
