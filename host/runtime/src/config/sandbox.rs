//! The `[sandbox]` table: the bounds of one plugin instance.

use std::time::Duration;

use serde::Deserialize;

use crate::cache::{Key, Limits, glob::Pattern};
use crate::config::document::{Fault, Section};
use crate::config::units::{Count, Positive, Size};

/// The bounds of one plugin instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sandbox {
    /// The most linear memory in bytes. Defaults to 128 MiB.
    pub max_memory: u64,
    /// The most wall-clock time of one run. Defaults to 30 s.
    pub timeout: Duration,
    /// The most time in which the plugin, or a call of it, keeps a thread of the host busy. Defaults to 10 s.
    pub max_cpu_time: Duration,
    /// The most bytes that one run writes to stdout and stderr together. Defaults to 16 MiB.
    pub max_output: u64,
    /// The most cache handles held at a time, 1 to 65,536. Defaults to 1,024.
    pub max_handles: usize,
    /// The most vacancies held at a time, 1 to 65,536. Defaults to 256.
    pub max_vacancies: usize,
    /// The most lines of the host's log that an instance's calls cause, 1 to 65,536. Defaults to 100.
    pub max_log_lines: usize,
    /// The most HTTP requests that an instance has under way at a time, 1 to 65,536. Defaults to 16.
    pub max_outgoing_requests: usize,
    /// The most that one call may name.
    pub limits: Limits,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            max_memory: 128 << 20,
            timeout: Duration::from_secs(30),
            max_cpu_time: Duration::from_secs(10),
            max_output: 16 << 20,
            max_handles: 1024,
            max_vacancies: 256,
            max_log_lines: 100,
            max_outgoing_requests: 16,
            limits: Limits::default(),
        }
    }
}

/// The most that any count may be raised to.
pub(super) const LARGEST_COUNT: usize = 65_536;

impl Sandbox {
    pub(super) fn from_section(section: &Section<'_>) -> Result<Self, Fault> {
        section.read::<RawSandbox>()?.validate(section)
    }
}

/// The bounds of each plugin instance.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawSandbox {
    /// The most memory the plugin may have. Defaults to `"128MiB"`.
    max_memory: Option<Size>,
    /// How long a run of the plugin may take. Defaults to `"30s"`.
    timeout: Option<Positive>,
    /// How long it may keep a processor busy in one run; waiting does not count. Defaults to `"10s"`.
    max_cpu_time: Option<Positive>,
    /// How much a run may write to stdout and stderr together. Defaults to `"16MiB"`.
    max_output: Option<Size>,
    /// How many cache handles it may hold at a time. Defaults to `1024`.
    max_handles: Option<Count>,
    /// How many vacancies it may hold at a time. Defaults to `256`.
    max_vacancies: Option<Count>,
    /// How many lines of the host's log its failing calls may cause. Defaults to `100`.
    max_log_lines: Option<Count>,
    /// How many HTTP requests it may have under way at a time. Defaults to `16`.
    max_outgoing_requests: Option<Count>,
    /// The longest key it may use; may be lowered only. Defaults to `1024`.
    max_key_bytes: Option<Size>,
    /// The longest pattern it may use; may be lowered only. Defaults to `1024`.
    max_pattern_bytes: Option<Size>,
    /// The most keys of one batch. Defaults to `1024`.
    max_batch: Option<Count>,
    /// The most bytes of keys and values in one batch. Defaults to `"64MiB"`.
    max_batch_bytes: Option<Size>,
}

impl RawSandbox {
    fn validate(self, section: &Section<'_>) -> Result<Sandbox, Fault> {
        let Self {
            max_memory,
            timeout,
            max_cpu_time,
            max_output,
            max_handles,
            max_vacancies,
            max_log_lines,
            max_outgoing_requests,
            max_key_bytes,
            max_pattern_bytes,
            max_batch,
            max_batch_bytes,
        } = self;
        let default = Sandbox::default();
        let mut limits = default.limits;
        limits.max_key_bytes = length(section, "max_key_bytes", max_key_bytes, Key::MAX_LENGTH)?;
        limits.max_pattern_bytes = length(section, "max_pattern_bytes", max_pattern_bytes, Pattern::MAX_LENGTH)?;
        limits.max_batch = count(section, "max_batch", max_batch, default.limits.max_batch)?;
        if let Some(size) = max_batch_bytes {
            limits.max_batch_bytes = usize::try_from(size.0)
                .map_err(|_| section.fault("max_batch_bytes", "is more than this machine can address"))?;
        }
        Ok(Sandbox {
            max_memory: max_memory.map_or(default.max_memory, |size| size.0),
            timeout: timeout.map_or(default.timeout, |duration| duration.0),
            max_cpu_time: max_cpu_time.map_or(default.max_cpu_time, |duration| duration.0),
            max_output: max_output.map_or(default.max_output, |size| size.0),
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
        })
    }
}

/// A count from 1 to [`LARGEST_COUNT`].
pub(super) fn count(section: &Section<'_>, key: &str, written: Option<Count>, default: usize) -> Result<usize, Fault> {
    let Some(Count(written)) = written else { return Ok(default) };
    match usize::try_from(written) {
        Ok(count) if (1..=LARGEST_COUNT).contains(&count) => Ok(count),
        _ => Err(section.fault(key, &format!("must be from 1 to {LARGEST_COUNT}, but is {written}"))),
    }
}

/// A length in bytes, which may be lowered and not raised.
fn length(section: &Section<'_>, key: &str, written: Option<Size>, max: usize) -> Result<usize, Fault> {
    let Some(Size(written)) = written else { return Ok(max) };
    match usize::try_from(written) {
        Ok(length) if length <= max => Ok(length),
        _ => Err(section.fault(key, &format!("must be from 1 to {max} bytes, but is {written}"))),
    }
}
