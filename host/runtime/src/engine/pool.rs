//! The pool of wasmtime: memories, tables and stacks of instances that are reserved once.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::config::Loading;
use crate::sandbox::MAX_TABLE_ELEMENTS;

/// Memory for instances that is reserved once, so that creating an instance needs no system call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool {
    /// The maximum number of plugin instances at a time.
    pub(super) instances: usize,
    /// The maximum linear memory of one instance, in bytes.
    pub(super) max_memory: u64,
    /// What one instance may consist of.
    pub(super) counts: Loading,
}

// Decision: docs/decisions/0077-memories-are-given-back-between-instances.md
/// How much of the tables of all instances together is cleared and kept between two instances instead of being returned
/// to the system, in bytes.
const KEPT_TABLES: usize = 32 << 20;

/// How much of one table is kept at most, in bytes: 8,192 elements.
const KEPT_OF_ONE: usize = 64 << 10;

/// How much of the stack of each instance is cleared and kept, in bytes. Most runs use less.
pub(super) const KEPT_STACK: usize = 32 << 10;

impl Pool {
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
    pub(super) fn reserve(mut self, config: &mut Config) -> wasmtime::Result<(Engine, Loading)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_that_a_pool_keeps_have_one_bound_whatever_its_instances() {
        for instances in [1, 7, 256, 300, 100_000] {
            for max_tables in [1, 3, 32, 65_536] {
                let counts = Loading { max_tables, ..Loading::default() };
                let kept = Pool { instances, max_memory: 1 << 20, counts }.kept_of_each_table();
                assert!(kept * instances * max_tables <= KEPT_TABLES, "{instances} x {max_tables}: {kept}");
                assert!(kept <= KEPT_OF_ONE && kept.is_multiple_of(page_size()), "{kept}");
            }
        }
    }
}
