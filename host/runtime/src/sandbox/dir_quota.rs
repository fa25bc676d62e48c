//! The limit on what one run of a plugin writes below its directories.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;

/// Limits the bytes that one run writes to disk. Deleting a file gives nothing back.
#[derive(Debug)]
pub(crate) struct DirQuota {
    left: AtomicU64,
    refused: Counter,
}

/// What a new file, directory or link takes on disk, in bytes: a block, for its name and its metadata.
pub(crate) const NEW_FILE: u64 = 4 << 10;

impl DirQuota {
    /// A quota of `max` bytes. `refused` counts the writes over it.
    pub(crate) fn new(max: u64, refused: Counter) -> Self {
        Self { left: AtomicU64::new(max), refused }
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
    fn a_write_over_the_quota_is_refused_and_a_smaller_one_is_not() {
        let quota = DirQuota::new(10, Counter::noop());
        quota.take(6).unwrap();
        assert_eq!(quota.take(5).unwrap_err().kind(), io::ErrorKind::StorageFull);
        quota.take(4).unwrap();
        assert!(quota.take(1).is_err());
        quota.take(0).unwrap();
    }
}
