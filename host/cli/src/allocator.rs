//! The allocator of the program: of small blocks mimalloc, of others that of the system, which under `larder serve` gives
//! back what requests held.

// Decision: docs/decisions/0073-what-a-request-held-is-given-back-at-once.md
// Decision: docs/decisions/0088-small-blocks-are-of-mimalloc.md

#![allow(
    unsafe_code,
    reason = "a program's allocator is unsafe code, and the standard library has no function for its settings"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use mimalloc::MiMalloc;

/// The size of the largest small block, in bytes. mimalloc takes those up to this size from pages of 64 KiB.
const SMALL: usize = 8 << 10;

/// The allocator of the program.
pub(crate) struct Allocator;

fn is_small(size: usize) -> bool {
    size <= SMALL
}

// SAFETY: each block is of one of two allocators, which its size tells whenever it is used.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is that of both.
        unsafe { if is_small(layout.size()) { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is that of both.
        unsafe { if is_small(layout.size()) { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the layout is that with which the block was allocated.
        unsafe { if is_small(layout.size()) { MiMalloc.dealloc(block, layout) } else { System.dealloc(block, layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the layout is that with which the block was allocated. The new size with its alignment is one too, by the
        // caller's promise. A block of the other allocator is a new one, and both have the bytes that are copied.
        unsafe {
            match (is_small(layout.size()), is_small(size)) {
                (true, true) => MiMalloc.realloc(block, layout, size),
                (false, false) => System.realloc(block, layout, size),
                _ => {
                    let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !new.is_null() {
                        ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    new
                }
            }
        }
    }
}

/// Fixes the thresholds of glibc's allocator at a sixteenth of `max_memory`: a larger block is memory of its own, which
/// goes back to the system when it is freed, and a heap keeps no more at its end. By itself the allocator raises them, up
/// to 32 and 64 MiB, to the size of the blocks that it sees freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sizes on both sides of the border.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![1..3 * SMALL, SMALL - 2..SMALL + 3]
    }

    proptest! {
        #[test]
        fn a_block_that_grows_or_shrinks_past_the_border_keeps_its_bytes(sizes in prop::collection::vec(size(), 1..20)) {
            let mut block: Vec<u8> = Vec::new();
            for (value, size) in (1..).zip(sizes) {
                let kept = block.len().min(size);
                let before = block.get(..kept).unwrap().to_vec();
                block.resize(size, value);
                block.shrink_to_fit();
                prop_assert_eq!(block.get(..kept).unwrap(), before);
                prop_assert!(block.get(kept..).unwrap().iter().all(|byte| *byte == value));
            }
        }

        #[test]
        fn a_block_is_aligned_and_zeroed_as_asked(size in size(), shift in 0_u32..14) {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            // SAFETY: the size is not zero, and the block is freed with its layout.
            unsafe {
                let block = Allocator.alloc_zeroed(layout);
                prop_assert!(block.addr().is_multiple_of(layout.align()));
                prop_assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0));
                Allocator.dealloc(block, layout);
            }
        }
    }
}
