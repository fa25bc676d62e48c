//! What the end of the process means, in words for the operator.

use std::process::ExitStatus;

use bytesize::ByteSize;

use super::exchange::Bounds;
use crate::loading::{CompiledForm, Refusal};

/// The exit status of a process that the component made run out of memory.
pub(super) const OUT_OF_MEMORY: u8 = 3;

/// The exit status of a process whose compiler refused the component.
pub(super) const REFUSED: u8 = 4;

/// How the process ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// True if the host killed it at the deadline.
    pub(super) is_late: bool,
    /// What it wrote to standard error.
    pub(super) message: String,
}

/// Returns the compiled form, or why there is none.
pub(super) fn judge(compiled: CompiledForm, ended: &Ended, bounds: Bounds) -> Result<CompiledForm, Refusal> {
    if ended.is_late || is_out_of_time(ended.status) {
        let time = humantime::format_duration(bounds.time);
        let reason = format!("compiling it takes more than {time}; raise `compile_timeout` of `[sandbox]`");
        return Err(Refusal::new("timed-out", &reason));
    }
    if compiled.len() > bounds.compiled {
        let max = ByteSize(bounds.compiled);
        let reason = format!("its compiled form has more than {max}; raise `max_plugin_bytes` of `[sandbox]`");
        return Err(Refusal::new("too-large", &reason));
    }
    let message = ended.message.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    if ended.status.success() {
        return Ok(compiled);
    }
    if ended.status.code() == Some(i32::from(REFUSED)) {
        return Err(Refusal::not_a_component(message));
    }
    if is_out_of_memory(ended) {
        let memory = ByteSize(bounds.memory);
        let reason = format!("compiling it needs more than {memory}; raise `max_compile_memory` of `[sandbox]`");
        return Err(Refusal::new("out-of-memory", &reason));
    }
    if signal(ended.status) == Some(KILLED) {
        return Err(Refusal::new("killed", KILLED_REASON));
    }
    let reason = format!("the compiler crashed on it ({}): {message}", ended.status);
    Err(Refusal::new("crashed", &reason))
}

/// The process met its own limit.
fn is_out_of_memory(ended: &Ended) -> bool {
    // The standard library writes this and aborts.
    ended.status.code() == Some(i32::from(OUT_OF_MEMORY)) || ended.message.contains("memory allocation of")
}

/// SIGKILL, which this host has not sent: the kernel does if the machine or the container has no memory left.
const KILLED: i32 = 9;

const KILLED_REASON: &str = "its compiler was killed (signal 9), by the system for lack of memory or by hand";

#[cfg(target_os = "linux")]
fn is_out_of_time(status: ExitStatus) -> bool {
    signal(status) == Some(rustix::process::Signal::XCPU.as_raw())
}

#[cfg(not(target_os = "linux"))]
fn is_out_of_time(_status: ExitStatus) -> bool {
    false
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_status: ExitStatus) -> Option<i32> {
    None
}
