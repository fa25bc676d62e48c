//! What stops a plugin that takes too much: of memory, of the processor, of what it writes.

use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::ResourceLimiter;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bounds the linear memory of one instance, all its memories together, and likewise its tables.
#[derive(Debug)]
pub(crate) struct MemoryBound {
    max: u64,
    used: u64,
    table_elements: usize,
    /// Whether the plugin ever asked for more.
    pub(crate) is_exceeded: bool,
}

/// The most elements of all tables: far above what a compiler makes, and small beside the memory.
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// The most core instances of one component: far above what tools that put components together make.
const MAX_INSTANCES: usize = 1_000;

/// The most tables of one component.
const MAX_TABLES: usize = 1_000;

/// The most memories of one component. Each takes gigabytes of address space, however little of it is used.
const MAX_MEMORIES: usize = 100;

impl MemoryBound {
    pub(crate) fn new(max: u64) -> Self {
        Self { max, used: 0, table_elements: 0, is_exceeded: false }
    }
}

impl ResourceLimiter for MemoryBound {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let growth = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        let wanted = self.used.saturating_add(growth);
        if wanted > self.max {
            self.is_exceeded = true;
            return Ok(false);
        }
        self.used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        if wanted > MAX_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// The future's outcome, or `None` when polling it has taken longer than `max` in all.
///
/// A plugin gives way every few milliseconds, so one that computes without end is stopped soon after. What waits is not
/// polled, and is not counted.
pub(crate) async fn within_cpu_time<F: Future>(max: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut used = Duration::ZERO;
    std::future::poll_fn(|context| {
        let started = Instant::now();
        let polled = future.as_mut().poll(context);
        used = used.saturating_add(started.elapsed());
        match polled {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if used > max => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Bounds what one run writes to stdout and stderr together.
#[derive(Debug)]
pub(crate) struct OutputBound {
    left: AtomicU64,
    is_exceeded: AtomicBool,
}

impl OutputBound {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(max), is_exceeded: AtomicBool::new(false) })
    }

    /// Whether the plugin ever wanted to write more.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }

    /// How many of these bytes may be written yet.
    fn take(&self, wanted: usize) -> usize {
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)))
            .unwrap_or(0);
        if wanted > before {
            self.is_exceeded.store(true, Ordering::Relaxed);
        }
        usize::try_from(wanted.min(before)).unwrap_or(usize::MAX)
    }
}

/// The host's stdout or stderr, as a plugin may write to it.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    to: Stdio,
    bound: Arc<OutputBound>,
}

/// Where an [`Output`] goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stdio {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) fn new(to: Stdio, bound: &Arc<OutputBound>) -> Self {
        Self { to, bound: Arc::clone(bound) }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self.to {
            Stdio::Stdout => io::stdout().write_all(bytes),
            Stdio::Stderr => io::stderr().write_all(bytes),
        }
    }

    fn flush_all(&self) -> io::Result<()> {
        match self.to {
            Stdio::Stdout => io::stdout().flush(),
            Stdio::Stderr => io::stderr().flush(),
        }
    }

    /// Writes what may be written yet, and says how much that was.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.bound.take(bytes.len());
        self.write_all(bytes.get(..allowed).unwrap_or_default())?;
        Ok(allowed)
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        match self.to {
            Stdio::Stdout => io::IsTerminal::is_terminal(&io::stdout()),
            Stdio::Stderr => io::IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// What may be written in one call: as much as wasmtime's own streams take.
const MAX_WRITE: usize = 64 * 1024;

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.write_some(&bytes).map_err(stream_error)?;
        if written == bytes.len() {
            return Ok(());
        }
        // What the plugin wrote before is not lost with it.
        self.flush_all().map_err(stream_error)?;
        Err(StreamError::trap("the plugin wrote too much"))
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.flush_all().map_err(stream_error)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

/// A reader that has gone is a closed stream to the plugin, as it is to any other program.
fn stream_error(error: io::Error) -> StreamError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => StreamError::Closed,
        _ => StreamError::LastOperationFailed(error.into()),
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(match self.write_some(bytes) {
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::QuotaExceeded.into()),
            outcome => outcome,
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.flush_all())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_an_instance_count_together() {
        let mut bound = MemoryBound::new(100);
        assert!(bound.memory_growing(0, 60, None).unwrap());
        assert!(!bound.memory_growing(0, 60, None).unwrap());
        assert!(bound.is_exceeded);
        assert!(bound.memory_growing(0, 40, None).unwrap());
        assert!(!bound.memory_growing(60, usize::MAX, None).unwrap());
    }

    #[tokio::test]
    async fn waiting_is_no_cpu_time() {
        let wait = tokio::time::sleep(Duration::from_millis(50));
        assert_eq!(within_cpu_time(Duration::from_millis(20), wait).await, Some(()));
    }

    #[tokio::test]
    async fn the_time_of_all_polls_counts_together() {
        let spin = async {
            loop {
                std::thread::sleep(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(within_cpu_time::<_>(Duration::from_millis(20), spin).await, None::<()>);
    }

    #[test]
    fn output_is_counted_over_both_streams_up_to_the_last_byte() {
        let bound = OutputBound::new(10);
        assert_eq!(bound.take(6), 6);
        assert_eq!(bound.take(4), 4);
        assert!(!bound.is_exceeded());
        assert_eq!(bound.take(1), 0);
        assert!(bound.is_exceeded());
        let bound = OutputBound::new(10);
        assert_eq!(bound.take(usize::MAX), 10);
        assert!(bound.is_exceeded());
    }
}
