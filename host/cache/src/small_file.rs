//! Files that others write: opened without waiting, and small ones read whole. An operator may replace a password or a
//! certificate while the host runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a regular file of at most `max` bytes. Does not wait for the writer of a FIFO, and reads no device.
///
/// # Errors
///
/// The error of the file system, or the rule that the file breaks: it is longer, or it is not a regular file.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open_without_waiting(path)?;
    let metadata = file.metadata()?;
    // Reading a directory fails with the system's own message.
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > max {
        return Err(io::Error::other(format!("it is longer than {} KiB", max >> 10)));
    }
    Ok(bytes)
}

/// Opens a file for reading. Does not wait for the writer of a FIFO, and takes no terminal.
///
/// # Errors
///
/// The error of the file system.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed(),
    );
    options.open(path)
}
