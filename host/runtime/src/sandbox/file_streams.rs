//! Streams to and from files: their number, their buffers and what they write are limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use wasmtime_wasi::p2::bindings::filesystem::types::DirectoryEntry;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::{ChargedBlock, DirQuota};

/// Counts the open file streams of an instance. Each holds a file open.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileStreams(Arc<AtomicUsize>);

/// An open file stream. It is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(FileStreams);

impl FileStreams {
    pub(crate) fn open(&self) -> OpenStream {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that reads a file, at most a chunk at a time.
pub(crate) struct FileInput {
    pub(crate) stream: DynInputStream,
    pub(crate) chunk: usize,
    pub(crate) _open: OpenStream,
}

/// A stream that writes a file, at most a chunk at a time, within the quota.
pub(crate) struct FileOutput {
    pub(crate) stream: DynOutputStream,
    pub(crate) chunk: usize,
    pub(crate) quota: Arc<DirQuota>,
    /// The offset of the next write, and the block that the last one was charged; `None` if it appends.
    pub(crate) position: Option<(u64, ChargedBlock)>,
    pub(crate) _open: OpenStream,
}

/// The entries of a directory that a plugin has not read yet.
pub(crate) struct Listing {
    pub(crate) entries: std::vec::IntoIter<DirectoryEntry>,
    /// The memory of all entries, in bytes.
    pub(crate) weight: usize,
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream.read(size.min(self.chunk))
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream.blocking_read(size.min(self.chunk)).await
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

impl FileOutput {
    /// Takes a write from the quota.
    fn admit(&mut self, bytes: usize) -> StreamResult<()> {
        if bytes > self.chunk {
            return Err(StreamError::trap("write exceeded the budget that `check-write` returned"));
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let taken = match &mut self.position {
            Some((offset, charged)) => {
                let taken = self.quota.take_next(charged, *offset, bytes);
                *offset = offset.saturating_add(bytes);
                taken
            }
            None => self.quota.take(bytes),
        };
        taken.map_err(|error| StreamError::LastOperationFailed(error.into()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for FileOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.admit(bytes.len())?;
        self.stream.write(bytes)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.admit(bytes.len())?;
        self.stream.blocking_write_and_flush(bytes).await
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.stream.check_write()?.min(self.chunk))
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}
