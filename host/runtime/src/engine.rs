//! The wasmtime engine: its settings, its pool of instances and its epoch ticker.

use std::time::Duration;

use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::config::{Loading, Sandbox};
use crate::error::Error;
use crate::sandbox::MAX_TABLE_ELEMENTS;

/// The interval at which a computing plugin yields to timers and other plugins.
const TICK: Duration = Duration::from_millis(5);

/// Memory for instances that is reserved once, so that creating an instance needs no system call.
#[derive(Debug, Clone, Copy)]
struct InstancePool {
    /// The maximum number of plugin instances at a time.
    instances: usize,
    /// The maximum linear memory of one instance, in bytes.
    max_memory: u64,
    /// What one instance may consist of.
    counts: Loading,
}

// Decision: docs/decisions/0077-memories-are-given-back-between-instances.md
/// How much of the tables of all instances together is cleared and kept between two instances instead of being returned
/// to the system, in bytes.
const KEPT_TABLES: usize = 32 << 20;

/// How much of one table is kept at most, in bytes: 8,192 elements.
const KEPT_OF_ONE: usize = 64 << 10;

/// How much of the stack of each instance is cleared and kept, in bytes. Most runs use less.
const KEPT_STACK: usize = 32 << 10;

impl InstancePool {
    /// The pool has room for `instances` of any components that it does not refuse when they are loaded.
    fn strategy(self) -> InstanceAllocationStrategy {
        let as_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let instances = as_u32(self.instances);
        let Loading { max_core_instances, max_memories, max_tables, .. } = self.counts;
        let [core_instances, memories, tables] = [max_core_instances, max_memories, max_tables].map(as_u32);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .max_core_instances_per_component(core_instances)
            .total_core_instances(instances.saturating_mul(core_instances))
            .max_memories_per_component(memories)
            .max_memories_per_module(memories)
            .total_memories(instances.saturating_mul(memories))
            .max_tables_per_component(tables)
            .max_tables_per_module(tables)
            .total_tables(instances.saturating_mul(tables))
            .table_elements(MAX_TABLE_ELEMENTS)
            .total_stacks(instances)
            .max_memory_size(usize::try_from(self.max_memory).unwrap_or(usize::MAX))
            // It would be the beginning of each memory, where most programs have the unused end of their stack.
            .linear_memory_keep_resident(0)
            .table_keep_resident(self.kept_of_each_table())
            .async_stack_keep_resident(KEPT_STACK)
            .pagemap_scan(Enabled::No);
        InstanceAllocationStrategy::Pooling(pool)
    }

    /// How much of each table is kept, in bytes: whole pages, because wasmtime rounds up.
    fn kept_of_each_table(self) -> usize {
        let tables = self.instances.saturating_mul(self.counts.max_tables);
        let kept = KEPT_TABLES.checked_div(tables).unwrap_or(KEPT_TABLES).min(KEPT_OF_ONE);
        kept.saturating_sub(kept.checked_rem(page_size()).unwrap_or(0))
    }

    /// Creates an engine with this pool. If the address space is too small, components may have fewer memories.
    fn reserve(mut self, config: &mut wasmtime::Config) -> wasmtime::Result<(Engine, Loading)> {
        loop {
            match Engine::new(config.allocation_strategy(self.strategy())) {
                Ok(engine) => return Ok((engine, self.counts)),
                Err(error) if self.counts.max_memories <= 1 => return Err(error),
                Err(_) => self.counts.max_memories >>= 1,
            }
        }
    }
}

/// The size of a page of this machine, in bytes.
fn page_size() -> usize {
    #[cfg(unix)]
    return rustix::param::page_size();
    #[cfg(not(unix))]
    4096
}

// Decision: docs/decisions/0094-a-component-of-wasi-0-3-has-an-engine-of-its-own.md
/// What a component needs of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// One call of an instance runs at a time: WASI 0.2. Calls between plugin and host are cheaper.
    Sequential,
    /// Calls of one instance run at the same time: `async func`, streams and futures, and so WASI 0.3.
    Concurrent,
}

/// The settings on which compiled code depends.
fn settings(kind: EngineKind) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    config.concurrency_support(kind == EngineKind::Concurrent);
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

/// Creates an engine whose plugins can be interrupted. With `instances`, it has room for that many at a time. Also
/// returns what a component may consist of, which is less than configured if the address space is too small.
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
    let counts = sandbox.loading;
    let created = match instances {
        Some(instances) => {
            let pool = InstancePool { instances, max_memory: sandbox.max_memory, counts };
            pool.reserve(&mut config).or_else(|error| {
                tracing::warn!("cannot reserve memory for {instances} plugin instances: {error}");
                let on_demand = config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
                Engine::new(on_demand).map(|engine| (engine, counts))
            })
        }
        None => Engine::new(&config).map(|engine| (engine, counts)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_that_a_pool_keeps_have_one_bound_whatever_its_instances() {
        for instances in [1, 7, 256, 300, 100_000] {
            for max_tables in [1, 3, 32, 65_536] {
                let counts = Loading { max_tables, ..Loading::default() };
                let kept = InstancePool { instances, max_memory: 1 << 20, counts }.kept_of_each_table();
                assert!(kept * instances * max_tables <= KEPT_TABLES, "{instances} x {max_tables}: {kept}");
                assert!(kept <= KEPT_OF_ONE && kept.is_multiple_of(page_size()), "{kept}");
            }
        }
    }
}
