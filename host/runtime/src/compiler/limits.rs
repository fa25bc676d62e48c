//! The limits that the process sets itself.

use std::path::Path;

use crate::default_limits::MAX_COMPILE_MEMORY;

/// The memory of the process for a value of `max_compile_memory`. The default becomes a quarter of the container's memory,
/// so that two such processes meet their own limits before the container meets its limit and is ended as a whole. A value
/// that the operator has written is taken as it is.
pub(crate) fn memory(configured: Option<u64>) -> u64 {
    memory_in(container_memory(), configured)
}

fn memory_in(container: Option<u64>, configured: Option<u64>) -> u64 {
    let default = || container.map_or(MAX_COMPILE_MEMORY, |container| MAX_COMPILE_MEMORY.min(container >> 2));
    configured.unwrap_or_else(default)
}

/// The memory limit of this process's control group, if it has one.
fn container_memory() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    // A limit on any group above holds as well.
    let above = root.join(group);
    let second = above.ancestors().take_while(|group| group.starts_with(root));
    let limits = second.map(|group| group.join("memory.max")).chain([root.join("memory/memory.limit_in_bytes")]);
    limits.filter_map(|path| read(&path)).min()
}

/// Limits the memory and the processor time of this process, and makes it give way to the host.
#[cfg(target_os = "linux")]
pub(super) fn limit_this_process(memory: u64, seconds: u64) -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit};

    /// What allocators and the program itself reserve beyond the memory that is used, in bytes. mimalloc reserves a GiB.
    const RESERVED: u64 = 2 << 30;
    /// Enough for the standard streams and what the standard library looks up.
    const MAX_FILES: u64 = 32;
    /// Lets the host's threads go first and still makes progress beside busy ones.
    const NICENESS: i32 = 5;

    set_parent_process_death_signal(Some(Signal::KILL))?;
    let reserved = memory.saturating_mul(2).saturating_add(RESERVED);
    // The kernel ends the process by a signal of its own at the lower limit, and by SIGKILL at the upper one.
    let seconds_upper = seconds.saturating_add(5);
    let limits = [
        // The memory that this process may write to. `RLIMIT_AS` also counts what is reserved only.
        (Resource::Data, memory, memory),
        (Resource::As, reserved, reserved),
        (Resource::Cpu, seconds, seconds_upper),
        (Resource::Core, 0, 0),
        (Resource::Nofile, MAX_FILES, MAX_FILES),
    ];
    for (resource, current, maximum) in limits {
        // A lower limit that holds already stays.
        let held = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(current.min(held)), maximum: Some(maximum.min(held)) })?;
    }
    // Best effort: neither bounds anything by itself.
    let _unchanged = nice(NICENESS);
    let _unchanged = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// This system has no limits that a process can set itself and rely on.
#[cfg(not(target_os = "linux"))]
pub(super) fn limit_this_process(_memory: u64, _seconds: u64) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_becomes_a_quarter_of_the_container() {
        let gibibytes = |count: u64| count << 30;
        assert_eq!(memory_in(None, None), gibibytes(2));
        assert_eq!(memory_in(Some(gibibytes(4)), None), gibibytes(1));
        assert_eq!(memory_in(Some(gibibytes(64)), None), gibibytes(2));
        // Written out, although it equals the default.
        assert_eq!(memory_in(Some(gibibytes(4)), Some(gibibytes(2))), gibibytes(2));
    }
}
