//! The `[sandbox]` table: the limits of one plugin instance.

use std::time::Duration;

use serde::Deserialize;

use crate::cache::{Key, Limits, glob::Pattern};
use crate::config::document::{Fault, Section};
use crate::config::loading::{Loading, RawLoading};
use crate::config::units::{Count, PositiveDuration, Size};
use crate::default_limits;
use crate::sandbox::Shares;

/// The limits of one plugin instance. Start from [`Sandbox::default`] and set the fields that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sandbox {
    /// The maximum memory of the plugin, in bytes: linear memories, and 8 for each element of a table. What the host
    /// holds for the plugin has shares of the same size in total. Defaults to 128 MiB.
    pub max_memory: u64,
    /// The maximum wall-clock time of one run. Defaults to 30 s.
    pub timeout: Duration,
    /// The maximum processor time of one run, including the plugin's calls to the host. Defaults to 10 s.
    pub max_cpu_time: Duration,
    /// The maximum output of one run on stdout and stderr together, in bytes. Defaults to 16 MiB.
    pub max_output: u64,
    /// The maximum number of bytes that one run writes below its directories. A new file counts with 4 KiB, and
    /// deleting gives nothing back. A write over it fails with `insufficient-space`. Defaults to 1 GiB.
    pub max_dir_bytes: u64,
    /// The maximum number of open cache handles, 1 to 65,536. Defaults to 1,024.
    pub max_handles: usize,
    /// The maximum number of vacancies held at a time, 1 to 65,536. Defaults to 256.
    pub max_vacancies: usize,
    /// The maximum number of log lines that an instance's calls cause, 1 to 65,536. Defaults to 100.
    pub max_log_lines: usize,
    /// The maximum number of concurrent outgoing HTTP requests of an instance, 1 to 65,536. Defaults to 16.
    pub max_outgoing_requests: usize,
    /// The limits of one call.
    pub limits: Limits,
    /// The limits of loading a plugin.
    pub loading: Loading,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            max_memory: default_limits::MAX_MEMORY,
            timeout: default_limits::TIMEOUT,
            max_cpu_time: default_limits::MAX_CPU_TIME,
            max_output: default_limits::MAX_OUTPUT,
            max_dir_bytes: default_limits::MAX_DIR_BYTES,
            max_handles: default_limits::MAX_HANDLES,
            max_vacancies: default_limits::MAX_VACANCIES,
            max_log_lines: default_limits::MAX_LOG_LINES,
            max_outgoing_requests: default_limits::MAX_OUTGOING_REQUESTS,
            limits: Limits::default(),
            loading: Loading::default(),
        }
    }
}

/// The maximum of every count.
pub(super) const MAX_COUNT: usize = 65_536;

impl Sandbox {
    pub(super) fn from_section(section: &Section<'_>) -> Result<Self, Fault> {
        section.read::<RawSandbox>()?.validate(section)
    }
}

/// The limits of each plugin instance.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawSandbox {
    /// The maximum memory. Defaults to `"128MiB"`.
    max_memory: Option<Size>,
    /// The maximum wall-clock time of a run. Defaults to `"30s"`.
    timeout: Option<PositiveDuration>,
    /// The maximum processor time of a run; waiting does not count. Defaults to `"10s"`.
    max_cpu_time: Option<PositiveDuration>,
    /// The maximum output of a run on stdout and stderr together. Defaults to `"16MiB"`.
    max_output: Option<Size>,
    /// The maximum number of bytes that a run writes below its directories. Defaults to `"1GiB"`.
    max_dir_bytes: Option<Size>,
    /// The maximum number of open cache handles. Defaults to `1024`.
    max_handles: Option<Count>,
    /// The maximum number of vacancies held at a time. Defaults to `256`.
    max_vacancies: Option<Count>,
    /// The maximum number of log lines that its failing calls cause. Defaults to `100`.
    max_log_lines: Option<Count>,
    /// The maximum number of concurrent outgoing HTTP requests. Defaults to `16`.
    max_outgoing_requests: Option<Count>,
    /// The longest key; can only be lowered. Defaults to `1024`.
    max_key_bytes: Option<Size>,
    /// The longest pattern; can only be lowered. Defaults to `1024`.
    max_pattern_bytes: Option<Size>,
    /// The maximum number of keys in one batch. Defaults to `1024`.
    max_batch: Option<Count>,
    /// The maximum size of keys and values in one batch, and at most an eighth of `max_memory`. Defaults to `"8MiB"`.
    max_batch_bytes: Option<Size>,
    /// The maximum size of a plugin's file. Defaults to `"64MiB"`.
    max_plugin_bytes: Option<Size>,
    /// The maximum memory of the process that compiles a plugin. Absent: 2 GiB, or a quarter of the container's memory in a
    /// container with less than 8 GiB.
    max_compile_memory: Option<Size>,
    /// The maximum time to compile a plugin: of the clock, and of the processors together. Defaults to `"2m"`.
    compile_timeout: Option<PositiveDuration>,
    /// The maximum number of core instances of a component. Defaults to `64`.
    max_core_instances: Option<Count>,
    /// The maximum number of memories of a component. Defaults to `8`.
    max_memories: Option<Count>,
    /// The maximum number of tables of a component. Defaults to `32`.
    max_tables: Option<Count>,
}

impl RawSandbox {
    fn validate(self, section: &Section<'_>) -> Result<Sandbox, Fault> {
        let Self {
            max_memory,
            timeout,
            max_cpu_time,
            max_output,
            max_dir_bytes,
            max_handles,
            max_vacancies,
            max_log_lines,
            max_outgoing_requests,
            max_key_bytes,
            max_pattern_bytes,
            max_batch,
            max_batch_bytes,
            max_plugin_bytes,
            max_compile_memory,
            compile_timeout,
            max_core_instances,
            max_memories,
            max_tables,
        } = self;
        let loading = RawLoading {
            max_plugin_bytes,
            max_compile_memory,
            compile_timeout,
            max_core_instances,
            max_memories,
            max_tables,
        };
        let default = Sandbox::default();
        let mut limits = default.limits;
        limits.max_key_bytes = length(section, "max_key_bytes", max_key_bytes, Key::MAX_LENGTH)?;
        limits.max_pattern_bytes = length(section, "max_pattern_bytes", max_pattern_bytes, Pattern::MAX_LENGTH)?;
        limits.max_batch = count(section, "max_batch", max_batch, default.limits.max_batch)?;
        if let Some(size) = max_batch_bytes {
            limits.max_batch_bytes = usize::try_from(size.0)
                .map_err(|_| section.fault("max_batch_bytes", "is more than this machine can address"))?;
        }
        let max_memory = max_memory.map_or(default.max_memory, |size| size.0);
        limits.max_batch_bytes = limits.max_batch_bytes.min(Shares::new(max_memory).batch());
        Ok(Sandbox {
            max_memory,
            timeout: timeout.map_or(default.timeout, |duration| duration.0),
            max_cpu_time: max_cpu_time.map_or(default.max_cpu_time, |duration| duration.0),
            max_output: max_output.map_or(default.max_output, |size| size.0),
            max_dir_bytes: max_dir_bytes.map_or(default.max_dir_bytes, |size| size.0),
            max_handles: count(section, "max_handles", max_handles, default.max_handles)?,
            max_vacancies: count(section, "max_vacancies", max_vacancies, default.max_vacancies)?,
            max_log_lines: count(section, "max_log_lines", max_log_lines, default.max_log_lines)?,
            max_outgoing_requests: count(
                section,
                "max_outgoing_requests",
                max_outgoing_requests,
                default.max_outgoing_requests,
            )?,
            limits,
            loading: loading.validate(section)?,
        })
    }
}

/// Reads a count from 1 to [`MAX_COUNT`].
pub(super) fn count(section: &Section<'_>, key: &str, written: Option<Count>, default: usize) -> Result<usize, Fault> {
    let Some(Count(written)) = written else { return Ok(default) };
    match usize::try_from(written) {
        Ok(count) if (1..=MAX_COUNT).contains(&count) => Ok(count),
        _ => Err(section.fault(key, &format!("must be from 1 to {MAX_COUNT}, but is {written}"))),
    }
}

/// Reads a length in bytes, which can be lowered and not raised.
fn length(section: &Section<'_>, key: &str, written: Option<Size>, max: usize) -> Result<usize, Fault> {
    let Some(Size(written)) = written else { return Ok(max) };
    match usize::try_from(written) {
        Ok(length) if length <= max => Ok(length),
        _ => Err(section.fault(key, &format!("must be from 1 to {max} bytes, but is {written}"))),
    }
}
