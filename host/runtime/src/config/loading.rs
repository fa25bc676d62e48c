//! The keys of `[sandbox]` that bound how a plugin is loaded and what its component may consist of.

use std::time::Duration;

use crate::config::document::{Fault, Section};
use crate::config::sandbox::count;
use crate::config::units::{Count, PositiveDuration, Size};
use crate::default_limits;

/// The limits of loading a plugin. Start from [`Loading::default`] and set the fields that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loading {
    /// The maximum size of a plugin's file, in bytes. A larger file is refused before it is read. Defaults to 64 MiB.
    pub max_plugin_bytes: u64,
    /// The maximum memory of the process that compiles a plugin, in bytes. Has no effect without a
    /// [compiler process](crate::CompilerProcess). Defaults to `None`: 2 GiB, or a quarter of the container's memory in a
    /// container with less than 8 GiB.
    pub max_compile_memory: Option<u64>,
    /// The maximum time to compile a plugin: of the clock, and of the processors together. Has no effect without a
    /// [compiler process](crate::CompilerProcess). Defaults to 2 minutes.
    pub compile_timeout: Duration,
    /// The maximum number of core instances of a component, 1 to 65,536. Defaults to 64.
    pub max_core_instances: usize,
    /// The maximum number of memories of a component, 1 to 65,536. Each reserves more than 4 GiB of address space.
    /// Defaults to 8.
    pub max_memories: usize,
    /// The maximum number of tables of a component, 1 to 65,536. Defaults to 32.
    pub max_tables: usize,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            max_plugin_bytes: default_limits::MAX_PLUGIN_BYTES,
            max_compile_memory: None,
            compile_timeout: default_limits::COMPILE_TIMEOUT,
            max_core_instances: default_limits::MAX_CORE_INSTANCES,
            max_memories: default_limits::MAX_MEMORIES,
            max_tables: default_limits::MAX_TABLES,
        }
    }
}

/// The keys as they are written.
pub(super) struct RawLoading {
    pub(super) max_plugin_bytes: Option<Size>,
    pub(super) max_compile_memory: Option<Size>,
    pub(super) compile_timeout: Option<PositiveDuration>,
    pub(super) max_core_instances: Option<Count>,
    pub(super) max_memories: Option<Count>,
    pub(super) max_tables: Option<Count>,
}

impl RawLoading {
    pub(super) fn validate(self, section: &Section<'_>) -> Result<Loading, Fault> {
        let default = Loading::default();
        let count = |key: &str, written, default| count(section, key, written, default);
        Ok(Loading {
            max_plugin_bytes: self.max_plugin_bytes.map_or(default.max_plugin_bytes, |size| size.0),
            max_compile_memory: self.max_compile_memory.map(|size| size.0),
            compile_timeout: self.compile_timeout.map_or(default.compile_timeout, |duration| duration.0),
            max_core_instances: count("max_core_instances", self.max_core_instances, default.max_core_instances)?,
            max_memories: count("max_memories", self.max_memories, default.max_memories)?,
            max_tables: count("max_tables", self.max_tables, default.max_tables)?,
        })
    }
}
