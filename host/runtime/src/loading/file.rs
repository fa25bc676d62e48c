//! Reads a plugin's file: without waiting for a writer, and not more than the limit.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use bytesize::ByteSize;

use super::absent;
use super::refusal::Refusal;
use crate::cache::small_file::open_without_waiting;

/// The time to read a file. A file system on a network may not answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a regular file of at most `max` bytes, or gives up after [`READ_TIMEOUT`]. Then a thread stays until the file
/// system answers: no read can be interrupted.
pub(super) fn read_in_time(path: &Path, max: u64) -> Result<Vec<u8>, Refusal> {
    let (sender, receiver) = channel();
    let path = path.to_owned();
    let reading = Builder::new().name("larder-reader".to_owned()).spawn(move || {
        // The receiver is gone after the timeout.
        let _received = sender.send(read(&path, max));
    });
    reading.map_err(|error| Refusal::unreadable(&format!("cannot start a thread to read it: {error}")))?;
    receiver.recv_timeout(READ_TIMEOUT).unwrap_or_else(|_| {
        let timeout = humantime::format_duration(READ_TIMEOUT);
        Err(Refusal::unreadable(&format!("its file system did not deliver it within {timeout}")))
    })
}

/// Reads a regular file of at most `max` bytes. Its size is checked before it is read.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, Refusal> {
    let unreadable = |error: std::io::Error| Refusal::unreadable(&error.to_string());
    let too_large = |size: u64| {
        let [size, max] = [size, max].map(ByteSize);
        let reason = format!("it has {size}, more than {max}; raise `max_plugin_bytes` of `[sandbox]`, or strip it");
        Refusal::new("too-large", &reason)
    };
    let mut file = open_without_waiting(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Refusal::unreadable(&format!("{error}{}", absent::advice(path))),
        _ => unreadable(error),
    })?;
    let metadata = file.metadata().map_err(unreadable)?;
    // Reading a directory fails with the system's own message.
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(Refusal::unreadable("it is not a regular file; put the component itself in its place"));
    }
    if metadata.len() > max {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    let expected = usize::try_from(metadata.len()).unwrap_or(usize::MAX).saturating_add(1);
    bytes.try_reserve_exact(expected).map_err(|error| Refusal::unreadable(&error.to_string()))?;
    // One byte more than allowed: the file may have grown.
    (&mut file).take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    match u64::try_from(bytes.len()) {
        Ok(read) if read <= max => Ok(bytes),
        _ => Err(too_large(file.metadata().map_or(u64::MAX, |metadata| metadata.len()))),
    }
}
