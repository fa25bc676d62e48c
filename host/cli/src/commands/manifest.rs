//! Reads the files that describe a plugin, such as `Cargo.toml`.

use std::io;
use std::path::Path;

use larder_host::cache::small_file;

/// The maximum size, in bytes. A long `Cargo.toml` has some tens of KiB.
const MAX: u64 = 1 << 20;

/// Reads a file whole. A longer one, a FIFO, a device and text that is not UTF-8 are errors.
pub(super) fn read(file: &Path) -> io::Result<String> {
    let bytes = small_file::read(file, MAX)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}
