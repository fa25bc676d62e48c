//! wasmtime as we use it: the engine with its clock, and compiled components kept on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::Error;

/// The environment variable that names the folder of compiled components, or says `off`.
const COMPILED_VARIABLE: &str = "LARDER_COMPILED";

/// How often a spinning plugin gives way to timers and other plugins.
const TICK: Duration = Duration::from_millis(10);

/// Room for instances that is set aside once, so that a new one costs no call of the system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool {
    /// How many plugin instances there may be at a time.
    pub(crate) instances: usize,
    /// The most linear memory of one, in bytes.
    pub(crate) max_memory: u64,
}

/// Core instances, memories and tables that there is room for, for each plugin instance: what is linked into a component
/// has its own. A memory takes gigabytes of address space.
const CORE_INSTANCES: u32 = 16;
const MEMORIES: u32 = 2;
const TABLES: u32 = 4;

/// How much of a memory is cleared and kept, rather than given back to the system, between two instances.
const KEPT_MEMORY: usize = 1 << 20;

impl Pool {
    fn strategy(self) -> InstanceAllocationStrategy {
        let instances = u32::try_from(self.instances).unwrap_or(u32::MAX);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
            .total_memories(instances.saturating_mul(MEMORIES))
            .total_tables(instances.saturating_mul(TABLES))
            .total_stacks(instances)
            .max_memory_size(usize::try_from(self.max_memory).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(KEPT_MEMORY);
        InstanceAllocationStrategy::Pooling(pool)
    }
}

/// An engine whose plugins can be interrupted, with compiled components kept where [`COMPILED_VARIABLE`] says, else in
/// the user's cache folder.
///
/// Compiled code is loaded without being checked again, so the folder must be the user's own: it is made so that only
/// he can enter, and one that others may write to is not used.
///
/// # Errors
///
/// [`Error::Engine`], which this machine is to blame for. A folder that cannot be used, or a pool that there is no room
/// for, only costs time, and a warning.
pub(crate) fn new_engine(pool: Option<Pool>) -> Result<Engine, Error> {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    if let Some(folder) = compiled_folder() {
        match open_cache(&folder) {
            Ok(cache) => {
                config.cache(Some(cache));
            }
            Err(reason) => {
                tracing::warn!("cannot keep compiled plugins in `{}`: {reason}", folder.display());
            }
        }
    }
    let engine = match pool {
        Some(pool) => Engine::new(config.allocation_strategy(pool.strategy())).or_else(|error| {
            tracing::warn!("cannot set aside room for {} plugin instances: {error}", pool.instances);
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

fn compiled_folder() -> Option<PathBuf> {
    let absolute = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    match std::env::var_os(COMPILED_VARIABLE) {
        Some(off) if off == "off" => None,
        Some(folder) if !folder.is_empty() => std::path::absolute(folder).ok(),
        _ => absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|base| base.join("larder").join("compiled")),
    }
}

fn open_cache(folder: &Path) -> Result<Cache, String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| error.to_string())?;
    #[cfg(unix)]
    {
        let mode = std::fs::metadata(folder).map_err(|error| error.to_string())?;
        if std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o022 != 0 {
            return Err("others may write to it".to_owned());
        }
    }
    let mut config = CacheConfig::new();
    config.with_directory(folder);
    Cache::new(config).map_err(|error| error.to_string())
}

/// Reads a plugin's file.
///
/// # Errors
///
/// [`Error::Load`], saying what the file is instead of a component.
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
