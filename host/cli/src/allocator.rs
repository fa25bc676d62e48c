//! The settings of the system's allocator under `larder serve`: it gives back what requests held.

// Decision: docs/decisions/0073-what-a-request-held-is-given-back-at-once.md
// Decision: docs/decisions/0088-the-program-keeps-the-systems-allocator.md

/// Fixes the thresholds of glibc's allocator at a sixteenth of `max_memory`: a larger block is memory of its own, which
/// goes back to the system when it is freed, and a heap keeps no more at its end. By itself the allocator raises them, up
/// to 32 and 64 MiB, to the size of the blocks that it sees freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the standard library has no function for it")]
pub(crate) fn fix_thresholds(max_memory: u64) {
    /// The threshold that the allocator begins with, and the largest that it accepts, in bytes.
    const RANGE: (u64, u64) = (128 << 10, 32 << 20);
    /// The maximum number of blocks with memory of their own: the system allows a process 65,530 mappings by default.
    const MAX_BLOCKS: i32 = 16_384;
    let bytes = max_memory.checked_div(16).unwrap_or(0).clamp(RANGE.0, RANGE.1);
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    for (setting, value) in
        [(libc::M_MMAP_THRESHOLD, bytes), (libc::M_TRIM_THRESHOLD, bytes), (libc::M_MMAP_MAX, MAX_BLOCKS)]
    {
        // SAFETY: the function takes two numbers. It sets a number that other threads only read, and refuses what it does
        // not know.
        let _is_set = unsafe { libc::mallopt(setting, value) };
    }
}

/// Other allocators have settings of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn fix_thresholds(_max_memory: u64) {}
