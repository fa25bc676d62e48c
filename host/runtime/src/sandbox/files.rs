//! What an instance uses of files: the number of streams, their buffers, what they write, and the paths of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    /// What open streams hold open.
    open: AtomicUsize,
    /// The bytes of the paths of running calls.
    paths: AtomicUsize,
    /// Those that wait for it are running calls too.
    threads: Arc<Semaphore>,
}

/// How many calls of WASI 0.3 have a thread of the host at a time. The others wait.
const THREADS: usize = 16;

/// An open file stream, or a call that opens one file. It is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    files: Files,
    descriptors: usize,
}

/// The paths of a running call. They are counted until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldPaths {
    files: Files,
    bytes: usize,
}

/// A running call that has a thread, or waits in the queue for one. If it is dropped before its end, because the plugin
/// cancels it, its work is still in the queue, so what it holds is given back behind it.
#[derive(Debug)]
pub(crate) struct FileCall(Option<(HeldPaths, OwnedSemaphorePermit)>);

impl Default for Use {
    fn default() -> Self {
        let threads = Arc::new(Semaphore::new(THREADS));
        Self { open: AtomicUsize::new(0), paths: AtomicUsize::new(0), threads }
    }
}

impl Files {
    /// Counts a stream that holds this many files open.
    pub(crate) fn open(&self, descriptors: usize) -> OpenStream {
        self.0.open.fetch_add(descriptors, Ordering::Relaxed);
        OpenStream { files: self.clone(), descriptors }
    }

    /// How many files the streams hold open.
    pub(crate) fn count(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
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
    /// Waits until the call may have a thread of the host.
    pub(crate) async fn begin(self) -> FileCall {
        let permit = Arc::clone(&self.files.0.threads).acquire_owned().await;
        // It is never closed.
        FileCall(permit.ok().map(|permit| (self, permit)))
    }
}

impl FileCall {
    /// Ends a call whose work is done.
    pub(crate) fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.files.0.open.fetch_sub(self.descriptors, Ordering::Relaxed);
    }
}

impl Drop for HeldPaths {
    fn drop(&mut self) {
        self.files.0.paths.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for FileCall {
    fn drop(&mut self) {
        if let Some(held) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(held));
        }
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn a_call_waits_until_another_has_ended_and_a_cancelled_one_ends_behind_its_work() {
        let files = Files::default();
        let mut running = Vec::new();
        for _ in 0..THREADS {
            running.push(files.hold_paths(10).begin().await);
        }
        let mut further = pin!(files.hold_paths(10).begin());
        assert!(matches!(further.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        assert_eq!(files.path_bytes(), 10 * (THREADS + 1));
        running.pop().unwrap().end();
        running.push(further.await);
        let mut further = pin!(files.hold_paths(10).begin());
        drop(running.pop());
        // By a thread, in its turn.
        let call = further.as_mut().await;
        assert_eq!(files.path_bytes(), 10 * THREADS);
        call.end();
        running.into_iter().for_each(FileCall::end);
        assert_eq!(files.path_bytes(), 0);
    }
}
