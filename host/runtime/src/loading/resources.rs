//! Checks what each instance of a component needs, so that no request of it fails for lack of room.

use bytesize::ByteSize;
use wasmtime::component::Component;

use super::refusal::Refusal;
use crate::config::Loading;
use crate::sandbox::MAX_TABLE_ELEMENTS;

/// The size of a page of WebAssembly memory.
const PAGE: u64 = 1 << 16;

/// What each instance of a component may need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) counts: Loading,
    /// `max_memory` of `[sandbox]`.
    pub(super) max_memory: u64,
}

impl Room {
    /// Checks a component. Core instances are not checked here: without a pool they are counted as they are created.
    pub(super) fn check(&self, component: &Component) -> Result<(), Refusal> {
        // `None` is a component that imports modules, which no linker of ours provides.
        let Some(needed) = component.resources_required() else { return Ok(()) };
        let Self { counts, max_memory } = *self;
        if usize::try_from(needed.num_memories).unwrap_or(usize::MAX) > counts.max_memories {
            return Err(too_many("memories", "max_memories", counts.max_memories));
        }
        if usize::try_from(needed.num_tables).unwrap_or(usize::MAX) > counts.max_tables {
            return Err(too_many("tables", "max_tables", counts.max_tables));
        }
        let memory = needed.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE);
        if memory > max_memory {
            return Err(over_limit(&format!(
                "it starts with {} of memory, more than {}; raise `max_memory` of `[sandbox]`",
                ByteSize(memory),
                ByteSize(max_memory)
            )));
        }
        let elements = needed.max_initial_table_size.unwrap_or(0);
        if usize::try_from(elements).unwrap_or(usize::MAX) > MAX_TABLE_ELEMENTS {
            return Err(table_too_large());
        }
        Ok(())
    }

    /// The refusal for an error of the pool of instances, which checks each component that is loaded, or `None` for
    /// another error.
    pub(super) fn refusal(&self, error: &wasmtime::Error) -> Option<Refusal> {
        let text = error.root_cause().to_string();
        let has = |words: &str| text.contains(words);
        let Self { counts, max_memory } = *self;
        if has("core module instances, which exceeds") {
            Some(too_many("core instances", "max_core_instances", counts.max_core_instances))
        } else if has("Wasm linear memories, which exceeds") || has("defined memories count of") {
            Some(too_many("memories", "max_memories", counts.max_memories))
        } else if has("tables, which exceeds") || has("defined tables count of") {
            Some(too_many("tables", "max_tables", counts.max_tables))
        } else if has("memory has a minimum byte size of") {
            Some(over_limit(&format!(
                "it starts with more than {} of memory; raise `max_memory` of `[sandbox]`",
                ByteSize(max_memory)
            )))
        } else if has("has a minimum element size of") {
            Some(table_too_large())
        } else if has("instance allocation for this") {
            Some(over_limit("its globals and functions need more than 1 MiB of the host's memory for each instance"))
        } else {
            None
        }
    }
}

fn too_many(what: &str, key: &str, max: usize) -> Refusal {
    over_limit(&format!("it has more than {max} {what}; raise `{key}` of `[sandbox]`, or link it from fewer parts"))
}

fn table_too_large() -> Refusal {
    over_limit(&format!("one of its tables starts with more than {MAX_TABLE_ELEMENTS} elements"))
}

fn over_limit(reason: &str) -> Refusal {
    Refusal::new("over-limit", reason)
}
