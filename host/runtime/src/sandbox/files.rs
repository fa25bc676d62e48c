//! What an instance uses of files: the number of streams, their buffers, what they write, and the paths of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime_wasi::p2::bindings::filesystem::types::DirectoryEntry;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::{ChargedBlock, DirQuota};

/// What an instance uses of the host's files at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(Arc<Use>);

#[derive(Debug)]
struct Use {
    /// The open streams.
    streams: AtomicUsize,
    /// The bytes of the paths of running calls.
    paths: AtomicUsize,
    /// Those that wait for it are running calls too.
    threads: Semaphore,
}

/// How many calls of WASI 0.3 have a thread of the host at a time. The others wait.
const THREADS: usize = 16;

/// An open file stream. It is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Files);

/// The paths of a running call. They are counted until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldPaths {
    files: Files,
    bytes: usize,
}

impl Default for Use {
    fn default() -> Self {
        Self { streams: AtomicUsize::new(0), paths: AtomicUsize::new(0), threads: Semaphore::const_new(THREADS) }
    }
}

impl Files {
    pub(crate) fn open(&self) -> OpenStream {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    /// How many streams are open.
    pub(crate) fn streams(&self) -> usize {
        self.0.streams.load(Ordering::Relaxed)
    }

    /// Counts the bytes of a call's paths.
    pub(crate) fn hold_paths(&self, bytes: usize) -> HeldPaths {
        self.0.paths.fetch_add(bytes, Ordering::Relaxed);
        HeldPaths { files: self.clone(), bytes }
    }

    /// The bytes of the paths of all running calls.
    pub(crate) fn path_bytes(&self) -> usize {
        self.0.paths.load(Ordering::Relaxed)
    }
}

impl HeldPaths {
    /// Waits until the call may have a thread of the host. It has it until the permit is dropped.
    pub(crate) async fn thread(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.files.0.threads.acquire().await.ok()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for HeldPaths {
    fn drop(&mut self) {
        self.files.0.paths.fetch_sub(self.bytes, Ordering::Relaxed);
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
