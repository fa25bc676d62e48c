//! A plugin that exports the HTTP handler.

use std::sync::Arc;

use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::access_log::RequestMetrics;
use super::instances::Instances;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::plugin_state::PluginState;

/// A plugin that exports the HTTP handler.
pub(super) struct Handler {
    pub(super) plugin: Plugin,
    pub(super) proxy: ProxyPre<PluginState>,
    /// `None` if each request gets an instance of its own.
    pub(super) instances: Option<Arc<Instances>>,
    pub(super) metrics: RequestMetrics,
}

impl Handler {
    pub(super) fn new(plugin: Plugin, instances: Option<Arc<Instances>>) -> Result<Self, Error> {
        let proxy = ProxyPre::new(plugin.pre().clone()).map_err(|_| {
            plugin.load_error("it exports no `wasi:http/incoming-handler` of WASI 0.2, so it cannot answer requests")
        })?;
        let metrics = RequestMetrics::new(plugin.name());
        Ok(Self { plugin, proxy, instances, metrics })
    }
}
