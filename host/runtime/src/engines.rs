//! The engines of a runtime, each with the linker of its plugins.

use std::sync::OnceLock;

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::config::{Loading, Sandbox};
use crate::engine::{EngineKind, new_engine};
use crate::error::Error;
use crate::host_calls::{add_concurrent_limits, add_limits};
use crate::linker::{add_concurrent_to_linker, add_to_linker};
use crate::plugin_state::PluginState;

/// An engine, and what its plugins may import.
pub(crate) struct LinkedEngine {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<PluginState>,
    /// What a component may consist of: less than configured if the address space is too small.
    pub(crate) counts: Loading,
}

/// The engines of a runtime.
pub(crate) struct Engines {
    small: LinkedEngine,
    /// Created for the first component that needs it, as the others are.
    large: OnceLock<LinkedEngine>,
    small_concurrent: OnceLock<LinkedEngine>,
    large_concurrent: OnceLock<LinkedEngine>,
    instances: Option<usize>,
    sandbox: Sandbox,
}

impl Engines {
    /// Creates the engine of small components. With `instances`, engines have room for that many at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if this machine cannot run wasmtime.
    pub(crate) fn new(instances: Option<usize>, sandbox: Sandbox) -> Result<Self, Error> {
        let kind = EngineKind { is_concurrent: false, is_small: true };
        let small = LinkedEngine::new(kind, instances, &sandbox)?;
        let [large, small_concurrent, large_concurrent] = [const { OnceLock::new() }; 3];
        Ok(Self { small, large, small_concurrent, large_concurrent, instances, sandbox })
    }

    /// The engine of this kind. Created at the first call.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] if this machine cannot run wasmtime.
    pub(crate) fn get(&self, kind: EngineKind) -> Result<&LinkedEngine, Error> {
        let cell = match (kind.is_concurrent, kind.is_small) {
            (false, true) => return Ok(&self.small),
            (false, false) => &self.large,
            (true, true) => &self.small_concurrent,
            (true, false) => &self.large_concurrent,
        };
        if let Some(engine) = cell.get() {
            return Ok(engine);
        }
        let new = LinkedEngine::new(kind, self.instances, &self.sandbox)?;
        Ok(cell.get_or_init(|| new))
    }
}

impl LinkedEngine {
    fn new(kind: EngineKind, instances: Option<usize>, sandbox: &Sandbox) -> Result<Self, Error> {
        let (engine, counts) = new_engine(kind, instances, sandbox)?;
        let linker = linker(&engine, kind).map_err(|error| Error::Engine(error.to_string()))?;
        Ok(Self { engine, linker, counts })
    }
}

/// All that plugins on an engine may import.
fn linker(engine: &Engine, kind: EngineKind) -> wasmtime::Result<Linker<PluginState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    #[cfg(feature = "serve")]
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    add_limits(&mut linker)?;
    if kind.is_concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        #[cfg(feature = "serve")]
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        add_concurrent_limits(&mut linker)?;
        add_concurrent_to_linker(&mut linker, PluginState::larder)?;
    }
    add_to_linker(&mut linker, PluginState::larder)?;
    Ok(linker)
}
