//! The limit on what one run of a plugin writes below its directories.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use metrics::Counter;

/// Limits the bytes that one run writes to disk. Deleting a file gives nothing back.
#[derive(Debug)]
pub(crate) struct DirQuota {
    left: AtomicU64,
    /// The file of the last write at an offset without a stream, by its number among the handles.
    last: Mutex<(u32, ChargedBlock)>,
    refused: Counter,
}

/// The end of the last block that a sequence of writes to one file was charged: the next write shares it if it goes on
/// there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ChargedBlock(u64);

/// What a new file, directory or link takes on disk, in bytes: a block, for its name and its metadata.
pub(crate) const NEW_FILE: u64 = BLOCK;

/// The least that a write takes on disk, in bytes: a file with a byte here and there has a block for each.
const BLOCK: u64 = 4 << 10;

impl DirQuota {
    /// A quota of `max` bytes. `refused` counts the writes over it.
    pub(crate) fn new(max: u64, refused: Counter) -> Self {
        Self { left: AtomicU64::new(max), last: Mutex::default(), refused }
    }

    /// Takes the blocks of a write at an offset of a file, which has this number among the handles. A write that goes on
    /// where the last one ended shares its block, unless another file was written in between.
    ///
    /// # Errors
    ///
    /// As [`DirQuota::take`].
    pub(crate) fn take_at(&self, file: u32, offset: u64, bytes: u64) -> io::Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != file {
            *last = (file, ChargedBlock::default());
        }
        self.take_next(&mut last.1, offset, bytes)
    }

    /// Takes the blocks of a write at an offset, for a sequence of writes to one file.
    ///
    /// # Errors
    ///
    /// As [`DirQuota::take`].
    pub(crate) fn take_next(&self, charged: &mut ChargedBlock, offset: u64, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let end = offset.saturating_add(bytes).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        let start = offset.saturating_sub(offset.checked_rem(BLOCK).unwrap_or(0));
        let goes_on = start.saturating_add(BLOCK) == charged.0;
        let from = if goes_on { charged.0 } else { start };
        self.take(end.saturating_sub(from))?;
        *charged = ChargedBlock(end);
        Ok(())
    }

    /// Takes the bytes of a write.
    ///
    /// # Errors
    ///
    /// "No space left on device" if fewer are left. Then none is taken.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<()> {
        let take = |left: u64| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Ok(());
        }
        self.refused.increment(1);
        Err(no_space())
    }
}

/// The error of a full disk, which a plugin can tell from others.
fn no_space() -> io::Error {
    const ENOSPC: i32 = 28;
    if cfg!(unix) { io::Error::from_raw_os_error(ENOSPC) } else { io::ErrorKind::StorageFull.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_at_an_offset_takes_whole_blocks_and_the_next_one_shares_the_last() {
        let quota = DirQuota::new(3 * BLOCK, Counter::noop());
        quota.take_at(1, 0, 10).unwrap();
        for offset in 10..BLOCK {
            quota.take_at(1, offset, 1).unwrap();
        }
        assert_eq!(quota.left.load(Ordering::Relaxed), 2 * BLOCK);
        // Far away, and in another file.
        quota.take_at(1, 1 << 40, 1).unwrap();
        quota.take_at(2, 1 << 40, 1).unwrap();
        assert!(quota.take_at(1, 1 << 40, 1).is_err());
        assert!(quota.take_at(2, u64::MAX, u64::MAX).is_err());
        quota.take_at(2, 1 << 40, 0).unwrap();
    }

    /// As two open streams do.
    #[test]
    fn two_files_that_are_written_in_turns_take_no_more_than_one_after_the_other() {
        let quota = DirQuota::new(2 * BLOCK, Counter::noop());
        let mut files = [ChargedBlock::default(); 2];
        for offset in 0..BLOCK {
            files.iter_mut().for_each(|charged| quota.take_next(charged, offset, 1).unwrap());
        }
        assert_eq!(quota.left.load(Ordering::Relaxed), 0);
        assert!(quota.take_next(&mut files[0], BLOCK, 1).is_err());
    }

    #[test]
    fn a_write_over_the_quota_is_refused_and_a_smaller_one_is_not() {
        let quota = DirQuota::new(10, Counter::noop());
        quota.take(6).unwrap();
        assert_eq!(quota.take(5).unwrap_err().kind(), io::ErrorKind::StorageFull);
        quota.take(4).unwrap();
        assert!(quota.take(1).is_err());
        quota.take(0).unwrap();
    }
}
