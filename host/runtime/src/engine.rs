//! The wasmtime engine: its settings, its epoch ticker and the compilation cache on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::Error;

/// The environment variable that names the directory of the compilation cache, or is `off`.
const COMPILED_VARIABLE: &str = "LARDER_COMPILED";

/// The interval at which a computing plugin yields to timers and other plugins.
const TICK: Duration = Duration::from_millis(10);

/// Memory for instances that is reserved once, so that creating an instance needs no system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstancePool {
    /// The maximum number of plugin instances at a time.
    pub(crate) instances: usize,
    /// The maximum linear memory of one instance, in bytes.
    pub(crate) max_memory: u64,
}

/// The core instances, memories and tables reserved for each plugin instance: the modules linked into a component each
/// have their own. A memory reserves gigabytes of address space.
const CORE_INSTANCES: u32 = 16;
const MEMORIES: u32 = 2;
const TABLES: u32 = 4;

/// How much of the memories of all instances is cleared and kept between two instances instead of being returned to the
/// system, in bytes.
const KEPT_MEMORY: usize = 32 << 20;

/// How much of one memory is kept at most, in bytes. Clearing more takes longer than the page faults that it saves.
const KEPT_OF_ONE: usize = 256 << 10;

/// How much of the stack of each instance is cleared and kept, in bytes.
const KEPT_STACK: usize = 32 << 10;

impl InstancePool {
    fn strategy(self) -> InstanceAllocationStrategy {
        let instances = u32::try_from(self.instances).unwrap_or(u32::MAX);
        let kept = KEPT_MEMORY.checked_div(self.instances).unwrap_or(KEPT_MEMORY).min(KEPT_OF_ONE);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
            .total_memories(instances.saturating_mul(MEMORIES))
            .total_tables(instances.saturating_mul(TABLES))
            .total_stacks(instances)
            .max_memory_size(usize::try_from(self.max_memory).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(kept)
            .async_stack_keep_resident(KEPT_STACK);
        InstanceAllocationStrategy::Pooling(pool)
    }
}

/// Creates an engine whose plugins can be interrupted. The compilation cache is in the directory that
/// [`COMPILED_VARIABLE`] names, or in the user's cache directory.
///
/// Compiled code is loaded without validation, so the directory must belong to the user: it is created with access for
/// the user only, and is not used if other users can write to it.
///
/// # Errors
///
/// [`Error::Engine`] if this machine cannot run wasmtime. A directory that cannot be used and a pool that is too large
/// cause a warning; they cost time, not correctness.
pub(crate) fn new_engine(pool: Option<InstancePool>) -> Result<Engine, Error> {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    // Else a stack that one plugin has used deeply stays in memory.
    config.async_stack_zeroing(true);
    if let Some(directory) = compiled_directory() {
        match open_cache(&directory) {
            Ok(cache) => {
                config.cache(Some(cache));
            }
            Err(reason) => {
                tracing::warn!("cannot keep compiled plugins in `{}`: {reason}", directory.display());
            }
        }
    }
    let engine = match pool {
        Some(pool) => Engine::new(config.allocation_strategy(pool.strategy())).or_else(|error| {
            tracing::warn!("cannot reserve memory for {} plugin instances: {error}", pool.instances);
            Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand))
        }),
        None => Engine::new(&config),
    };
    let engine = engine.map_err(|error| Error::Engine(error.to_string()))?;
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
    Ok(engine)
}

fn compiled_directory() -> Option<PathBuf> {
    let absolute = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    match std::env::var_os(COMPILED_VARIABLE) {
        Some(off) if off == "off" => None,
        Some(directory) if !directory.is_empty() => std::path::absolute(directory).ok(),
        _ => absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|base| base.join("larder").join("compiled")),
    }
}

fn open_cache(directory: &Path) -> Result<wasmtime::Cache, String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|error| error.to_string())?;
    #[cfg(unix)]
    {
        let mode = std::fs::metadata(directory).map_err(|error| error.to_string())?;
        if std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o022 != 0 {
            return Err("other users can write to it".to_owned());
        }
    }
    let mut config = wasmtime::CacheConfig::new();
    config.with_directory(directory);
    wasmtime::Cache::new(config).map_err(|error| error.to_string())
}

/// Reads and compiles a plugin's file.
///
/// # Errors
///
/// [`Error::Load`] if the file cannot be read or is not a valid component.
pub(crate) fn load_component(engine: &Engine, path: &Path) -> Result<Component, Error> {
    let failed = |reason: String| Error::Load { path: path.display().to_string(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            return Err(failed(
                "this is a core WebAssembly module, not a component; build it for the target `wasm32-wasip2`"
                    .to_owned(),
            ));
        }
        Some([0, b'a', b's', b'm', ..]) => {}
        _ => return Err(failed("this is not a WebAssembly file".to_owned())),
    }
    Component::from_binary(engine, &bytes)
        .map_err(|error| failed(format!("this is not a valid component: {}", error.root_cause())))
}
