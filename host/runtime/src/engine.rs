//! The wasmtime engines: their settings, where the memories of instances come from, and their epoch tickers.

#[cfg(target_os = "linux")]
mod cleared;
#[cfg(target_os = "linux")]
mod mapping;
mod pool;

use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy};

use crate::config::{Loading, Sandbox};
use crate::error::Error;
use pool::Pool;

/// The interval at which a computing plugin yields to timers and other plugins.
const TICK: Duration = Duration::from_millis(5);

// Decision: docs/decisions/0094-a-component-of-wasi-0-3-has-an-engine-of-its-own.md
// Decision: docs/decisions/0111-small-components-have-memories-of-our-own.md
/// What a component needs of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineKind {
    /// Calls of one instance run at the same time: `async func`, streams and futures, and so WASI 0.3. Without that, calls
    /// between plugin and host are cheaper.
    pub(crate) is_concurrent: bool,
    /// What its memories begin with is little, and copied. Otherwise it is mapped, so that instances share what none writes.
    pub(crate) is_small: bool,
}

/// The settings on which compiled code depends.
fn settings(kind: EngineKind) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.concurrency_support(kind.is_concurrent);
    config.memory_init_cow(!kind.is_small);
    // Interfaces that are imported under labels: `import team-a: wasi:keyvalue/store`.
    config.wasm_component_model_implements(true);
    config
}

/// Creates an engine that only compiles, for the engines of [`new_engine`].
///
/// # Errors
///
/// If this machine cannot run wasmtime.
pub(crate) fn compiling_engine(kind: EngineKind) -> wasmtime::Result<Engine> {
    Engine::new(&settings(kind))
}

/// Creates an engine whose plugins can be interrupted. With `instances`, it has room for that many at a time, unless it
/// is that of large components of WASI 0.3. Also returns what a component may consist of, which is less than configured if
/// the address space is too small.
///
/// # Errors
///
/// [`Error::Engine`] if this machine cannot run wasmtime. A pool that is too large causes a warning; that costs time,
/// not correctness.
pub(crate) fn new_engine(
    kind: EngineKind,
    instances: Option<usize>,
    sandbox: &Sandbox,
) -> Result<(Engine, Loading), Error> {
    let mut config = settings(kind);
    // Else a stack that one plugin has used deeply stays in memory.
    config.async_stack_zeroing(true);
    let is_provided = instances.is_some_and(|instances| are_provided(&mut config, kind, instances, sandbox));
    let created = match instances {
        // An instance of a concurrent engine may use any number of stacks, of which a pool has one for each.
        Some(instances) if !is_provided && !kind.is_concurrent => {
            let pool = Pool { instances, max_memory: sandbox.max_memory, counts: sandbox.loading };
            pool.reserve(&mut config).or_else(|error| {
                tracing::warn!("cannot reserve memory for {instances} plugin instances: {error}");
                let on_demand = config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
                Engine::new(on_demand).map(|engine| (engine, sandbox.loading))
            })
        }
        _ => Engine::new(&config).map(|engine| (engine, sandbox.loading)),
    };
    let (engine, counts) = created.map_err(|error| Error::Engine(error.to_string()))?;
    let ticking = engine.weak();
    std::thread::Builder::new()
        .name("larder-ticker".to_owned())
        .spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .map_err(|error| Error::Engine(error.to_string()))?;
    Ok((engine, counts))
}

/// How large a memory with room of its own may become, in bytes: as far as wasmtime reserves address space for one.
#[cfg(target_os = "linux")]
const RESERVED: u64 = 1 << 32;

/// Provides the memories and stacks of small components from those of earlier instances. False if this machine cannot, or
/// memories may be too large.
#[cfg(target_os = "linux")]
fn are_provided(config: &mut Config, kind: EngineKind, instances: usize, sandbox: &Sandbox) -> bool {
    if !kind.is_small || cfg!(not(target_pointer_width = "64")) || sandbox.max_memory > RESERVED {
        return false;
    }
    let provided = cleared::provide(config, instances);
    if let Err(error) = &provided {
        tracing::info!("instances take more time to create: /proc/self/pagemap cannot be read: {error}");
    }
    provided.is_ok()
}

#[cfg(not(target_os = "linux"))]
fn are_provided(_config: &mut Config, _kind: EngineKind, _instances: usize, _sandbox: &Sandbox) -> bool {
    false
}
