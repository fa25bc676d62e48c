//! Address space whose beginning can be used, and which is cleared for its next user.

#![allow(unsafe_code, reason = "memory is mapped, protected and cleared by its address")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::ptr::{self, NonNull};

use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::param::page_size;

/// The size of an entry of the page map, in bytes.
const ENTRY: usize = size_of::<u64>();

/// How many entries are read at a time.
const AT_A_TIME: usize = 512;

/// How many pages of a mapping are looked at: 16 MiB with pages of 4 KiB. All after them are given back.
const LOOKED_AT: usize = 4_096;

/// The bits of an entry that are set if the page has content: in memory, or anywhere else. A page that is in swap or that the
/// kernel is moving has the second one. Source: `Documentation/admin-guide/mm/pagemap.rst` of Linux.
const HAS_CONTENT: u64 = 1 << 63 | 1 << 62;

/// The page map of this process: which of its pages have content. An anonymous page without an entry is one of zeros.
#[derive(Debug)]
pub(super) struct PageMap(File);

impl PageMap {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// If the system has none, or does not show it to this process.
    pub(super) fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Reads the entries from this page on.
    fn read(&self, page: usize, entries: &mut [u8]) -> io::Result<()> {
        let offset = page.checked_mul(ENTRY).and_then(|offset| u64::try_from(offset).ok());
        self.0.read_exact_at(entries, offset.ok_or(io::ErrorKind::InvalidInput)?)
    }
}

/// A mapping of its own. Its beginning can be used; the rest cannot, nor what is before it. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<c_void>,
    /// How many bytes are before the base.
    before: usize,
    /// How many there are from the base on.
    size: usize,
    /// How many of them can be used: whole pages.
    usable: usize,
    /// How many could be used since all pages after them were given back. What cannot be used any more is clear.
    touched: usize,
}

// SAFETY: a mapping is not bound to a thread, and only its owner changes it.
unsafe impl Send for Mapping {}
// SAFETY: all that changes it needs `&mut`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes, none of which can be used yet, and `before` ones that never can. Both are multiples of the size of
    /// a page.
    ///
    /// # Errors
    ///
    /// If the system has no room for them.
    pub(super) fn new(before: usize, size: usize) -> io::Result<Self> {
        let whole = before.checked_add(size).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the system chooses where, and nothing is there.
        let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), flags)? };
        // SAFETY: it is within the mapping.
        let base = NonNull::new(unsafe { start.byte_add(before) }).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { base, before, size, usable: 0, touched: 0 };
        // One byte that is written would give all of a huge page content. A system may know no huge pages.
        // SAFETY: it is this mapping, and has no content.
        let _not_known = unsafe { mm::madvise(start, whole, Advice::LinuxNoHugepage) };
        Ok(mapping)
    }

    /// The first byte that can be used.
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr().cast()
    }

    /// How many bytes never can be used, and how many there are after them.
    pub(super) fn layout(&self) -> (usize, usize) {
        (self.before, self.size)
    }

    /// Lets the first `usable` bytes be used, rounded up to whole pages, and no others.
    ///
    /// # Errors
    ///
    /// If there are fewer, or the system has no memory for them.
    pub(super) fn set_usable(&mut self, usable: usize) -> io::Result<()> {
        let usable = usable.checked_next_multiple_of(page_size()).filter(|usable| *usable <= self.size);
        let usable = usable.ok_or(io::ErrorKind::OutOfMemory)?;
        if usable > self.usable {
            self.protect(self.usable, usable, MprotectFlags::READ | MprotectFlags::WRITE)?;
        } else if usable < self.usable {
            self.protect(usable, self.usable, MprotectFlags::empty())?;
        }
        self.usable = usable;
        self.touched = self.touched.max(usable);
        Ok(())
    }

    fn protect(&mut self, from: usize, to: usize, flags: MprotectFlags) -> io::Result<()> {
        // SAFETY: the pages are within the mapping, whose owner does not use them meanwhile.
        unsafe { mm::mprotect(self.base.as_ptr().byte_add(from), to.saturating_sub(from), flags)? };
        Ok(())
    }

    /// Clears all that can be used, and returns how many bytes of the mapping stay in memory. From the beginning, pages that
    /// have content are overwritten with zeros, up to `max_kept` bytes; all that follows is given back to the system.
    ///
    /// # Errors
    ///
    /// If the system refuses. The mapping may then still have its content.
    pub(super) fn clear(&mut self, pages: &PageMap, max_kept: usize) -> io::Result<usize> {
        let page = page_size();
        let first = self.base.as_ptr().addr().checked_div(page).unwrap_or_default();
        let count = self.touched.checked_div(page).unwrap_or_default().min(LOOKED_AT);
        let mut entries = [0; AT_A_TIME * ENTRY];
        let mut kept = 0_usize;
        for begin in (0..count).step_by(AT_A_TIME) {
            let len = count.saturating_sub(begin).min(AT_A_TIME).saturating_mul(ENTRY);
            let entries = entries.get_mut(..len).unwrap_or_default();
            pages.read(first.saturating_add(begin), entries)?;
            for (index, _) in entries.as_chunks().0.iter().enumerate().filter(|(_, entry)| has_content(**entry)) {
                let from = begin.saturating_add(index).saturating_mul(page);
                if kept.saturating_add(page) > max_kept {
                    self.give_back(from, self.touched)?;
                    self.touched = self.usable.max(from);
                    return Ok(kept);
                }
                self.overwrite(from, from.saturating_add(page));
                kept = kept.saturating_add(page);
            }
        }
        self.give_back(count.saturating_mul(page), self.touched)?;
        Ok(kept)
    }

    /// Clears all that can be used. The last `max_kept` bytes are overwritten with zeros, and all before them is given back
    /// to the system. Returns how many bytes stay in memory.
    ///
    /// # Errors
    ///
    /// If the system refuses. The mapping may then still have its content.
    pub(super) fn clear_but_end(&mut self, max_kept: usize) -> io::Result<usize> {
        let max_kept = max_kept.saturating_sub(max_kept.checked_rem(page_size()).unwrap_or_default());
        let from = self.usable.saturating_sub(max_kept);
        self.overwrite(from, self.usable);
        self.give_back(0, from)?;
        Ok(self.usable.saturating_sub(from))
    }

    /// Overwrites what can be used from one offset to another with zeros.
    fn overwrite(&mut self, from: usize, to: usize) {
        let to = to.min(self.usable);
        if from < to {
            // SAFETY: the pages can be used, and their owner does not use them meanwhile.
            unsafe { self.base().byte_add(from).write_bytes(0, to.saturating_sub(from)) };
        }
    }

    /// Gives the pages from one offset to another back to the system. They have zeros when they are used again.
    fn give_back(&mut self, from: usize, to: usize) -> io::Result<()> {
        if from < to {
            // SAFETY: the pages are within the mapping, which is private and anonymous, and its owner does not use them
            // meanwhile.
            unsafe {
                mm::madvise(self.base.as_ptr().byte_add(from), to.saturating_sub(from), Advice::LinuxDontNeed)?;
            };
        }
        Ok(())
    }
}

fn has_content(entry: [u8; ENTRY]) -> bool {
    u64::from_ne_bytes(entry) & HAS_CONTENT != 0
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: all of it is this mapping, which nobody uses any more.
        let unmapped =
            unsafe { mm::munmap(self.base.as_ptr().byte_sub(self.before), self.before.saturating_add(self.size)) };
        debug_assert!(unmapped.is_ok(), "a mapping can be unmapped");
    }
}

#[cfg(test)]
mod tests;
