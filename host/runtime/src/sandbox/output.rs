//! The output of a plugin on stdout and stderr: limited, and under `larder serve` with its name before each line.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::cache::text::one_line;
use crate::console::{Backlog, Stream};

/// Limits the output of one run on stdout and stderr together.
#[derive(Debug)]
pub(crate) struct OutputLimit {
    #[cfg(feature = "serve")]
    max: u64,
    left: AtomicU64,
    is_exceeded: AtomicBool,
    stdout: Arc<Backlog>,
    stderr: Arc<Backlog>,
    /// The prefixed lines on stdout and stderr.
    lines: [OnceLock<Arc<Lines>>; 2],
}

impl OutputLimit {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            #[cfg(feature = "serve")]
            max,
            left: AtomicU64::new(max),
            is_exceeded: AtomicBool::new(false),
            stdout: Arc::default(),
            stderr: Arc::default(),
            lines: Default::default(),
        })
    }

    /// Gives the next of several requests that an instance answers the whole limit.
    #[cfg(feature = "serve")]
    pub(crate) fn begin_anew(&self) {
        self.left.store(self.max, Ordering::Relaxed);
    }

    /// Writes the lines that have no end yet.
    #[cfg(feature = "serve")]
    pub(crate) fn end_lines(&self) {
        self.lines.iter().filter_map(OnceLock::get).for_each(|lines| lines.end());
    }

    /// Waits until the output of a run is written, or cannot be.
    pub(crate) async fn written(&self) {
        self.stdout.ready(true).await;
        self.stderr.ready(true).await;
    }

    /// True once the plugin has tried to write more.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }

    /// Takes up to `wanted` bytes of the remaining output, and returns how many.
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

// Decision: docs/decisions/0056-output-that-is-not-read-is-dropped-under-serve.md
/// The host's stdout or stderr for a plugin. No write waits for the reader of the stream.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    to: Stream,
    limit: Arc<OutputLimit>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The output of one run, unchanged and without loss: the plugin waits until there is room.
    Run {
        backlog: Arc<Backlog>,
        /// The bytes that the last `check-write` of this stream allowed.
        permit: usize,
        is_flushing: bool,
    },
    /// Several plugins write: each line starts with the name of its plugin, and is dropped if there is no room.
    Lines(Arc<Lines>),
}

/// Collects the output of a plugin into lines.
#[derive(Debug)]
struct Lines {
    to: Stream,
    plugin: Arc<str>,
    partial: Mutex<Vec<u8>>,
}

/// A longer line is written in parts, so that little output is buffered. In bytes.
const MAX_LINE: usize = 8 * 1024;

/// Lines are queued when they have this length together. In bytes.
const MAX_CHUNK: usize = 16 * 1024;

impl Lines {
    fn new(to: Stream, plugin: &Arc<str>) -> Self {
        Self { to, plugin: Arc::clone(plugin), partial: Mutex::new(Vec::new()) }
    }

    fn write(&self, mut bytes: &[u8]) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let mut complete = Vec::new();
        while !bytes.is_empty() {
            let max = MAX_LINE.saturating_sub(partial.len()).clamp(1, bytes.len());
            let end = bytes.iter().take(max).position(|byte| *byte == b'\n').map_or(max, |line| line.saturating_add(1));
            let (part, rest) = bytes.split_at(end);
            bytes = rest;
            partial.extend_from_slice(part);
            if part.ends_with(b"\n") || partial.len() >= MAX_LINE {
                complete.extend_from_slice(self.line(&partial).as_bytes());
                partial.clear();
            }
            if complete.len() >= MAX_CHUNK {
                self.to.write_lines(&self.plugin, std::mem::take(&mut complete));
            }
        }
        self.to.write_lines(&self.plugin, complete);
    }

    /// Writes the line that has no end yet.
    fn end(&self) {
        let partial = std::mem::take(&mut *self.partial.lock().unwrap_or_else(PoisonError::into_inner));
        if !partial.is_empty() {
            self.to.write_lines(&self.plugin, self.line(&partial).into_bytes());
        }
    }

    /// Formats a line for the host's stream. It cannot contain a line break that would start a line of another plugin.
    fn line(&self, bytes: &[u8]) -> String {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        format!("{}: {}\n", one_line(&self.plugin), one_line(&String::from_utf8_lossy(text)))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end();
    }
}

impl Output {
    /// Writes the output unchanged.
    pub(crate) fn new(to: Stream, limit: &Arc<OutputLimit>) -> Self {
        let backlog = match to {
            Stream::Stdout => &limit.stdout,
            Stream::Stderr => &limit.stderr,
        };
        let kind = Kind::Run { backlog: Arc::clone(backlog), permit: 0, is_flushing: false };
        Self { to, limit: Arc::clone(limit), kind }
    }

    /// Writes whole lines, each after the plugin's name.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only the HTTP server runs several plugins"))]
    pub(crate) fn prefixed(to: Stream, limit: &Arc<OutputLimit>, plugin: &Arc<str>) -> Self {
        let [stdout, stderr] = &limit.lines;
        let slot = match to {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let lines = Arc::clone(slot.get_or_init(|| Arc::new(Lines::new(to, plugin))));
        Self { to, limit: Arc::clone(limit), kind: Kind::Lines(lines) }
    }

    /// Queues as much as the limit allows, and returns the number of bytes. The caller has checked that there is room.
    fn write_some(&self, bytes: &[u8]) -> usize {
        let allowed = self.limit.take(bytes.len());
        let bytes = bytes.get(..allowed).unwrap_or_default();
        match &self.kind {
            Kind::Lines(lines) => lines.write(bytes),
            Kind::Run { backlog, .. } => self.to.write_run(backlog, bytes.to_vec()),
        }
        allowed
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.to.is_terminal()
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

/// The maximum of one write in bytes, as for wasmtime's own streams.
const MAX_WRITE: usize = 64 * 1024;

#[wasmtime_wasi::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if let Kind::Run { backlog, permit, is_flushing } = &mut self.kind {
            let room = backlog.room(false).map_err(stream_error)?;
            // Another stream of the same run may have used the room that this one was promised.
            let allowed = room.max(*permit);
            if bytes.len() > allowed || backlog.is_overfull() {
                return Err(StreamError::trap("the plugin wrote more than `check-write` allowed"));
            }
            *permit = permit.saturating_sub(bytes.len());
            *is_flushing = false;
        }
        if self.write_some(&bytes) == bytes.len() {
            return Ok(());
        }
        Err(StreamError::trap("the plugin exceeded its output limit"))
    }

    fn flush(&mut self) -> StreamResult<()> {
        if let Kind::Run { backlog, is_flushing, .. } = &mut self.kind {
            backlog.check().map_err(stream_error)?;
            *is_flushing = true;
        }
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let Kind::Run { backlog, permit, is_flushing } = &mut self.kind else { return Ok(MAX_WRITE) };
        *permit = backlog.room(*is_flushing).map_err(stream_error)?.min(MAX_WRITE);
        if *permit > 0 {
            *is_flushing = false;
        }
        Ok(*permit)
    }

    /// As the default, but reports at once that the reader has closed the pipe.
    async fn blocking_write_and_flush(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        loop {
            let permit = self.write_ready().await?;
            let chunk = bytes.split_to(bytes.len().min(permit));
            self.write(chunk)?;
            if bytes.is_empty() {
                break;
            }
        }
        self.flush()?;
        self.write_ready().await.map(drop)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if let Kind::Run { backlog, is_flushing, .. } = &self.kind {
            backlog.ready(*is_flushing).await;
        }
    }
}

/// If the reader has closed a pipe, the plugin gets a closed stream, as any program does.
fn stream_error(error: io::Error) -> StreamError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => StreamError::Closed,
        _ => StreamError::LastOperationFailed(error.into()),
    }
}

/// Any error is that of a closed pipe: wasmtime logs each other one, as often as the plugin writes.
fn closed(_error: io::Error) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// What WASI 0.3 writes to.
impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut len = bytes.len();
        if let Kind::Run { backlog, .. } = &self.kind {
            ready!(backlog.poll_ready(context, false));
            len = len.min(backlog.room(false).map_err(closed)?);
        }
        Poll::Ready(match self.write_some(bytes.get(..len).unwrap_or_default()) {
            0 if !bytes.is_empty() => Err(io::ErrorKind::BrokenPipe.into()),
            written => Ok(written),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Kind::Run { backlog, .. } = &self.kind {
            ready!(backlog.poll_ready(context, true));
            backlog.check().map_err(closed)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_limited_to_the_exact_number_of_bytes() {
        let limit = OutputLimit::new(10);
        assert_eq!(limit.take(6), 6);
        assert_eq!(limit.take(4), 4);
        assert!(!limit.is_exceeded());
        assert_eq!(limit.take(1), 0);
        assert!(limit.is_exceeded());
        let limit = OutputLimit::new(10);
        assert_eq!(limit.take(usize::MAX), 10);
        assert!(limit.is_exceeded());
    }

    #[test]
    fn a_line_starts_with_the_plugin_name_and_has_no_control_characters() {
        let lines = Lines::new(Stream::Stderr, &Arc::from("shop"));
        assert_eq!(lines.line(b"one\n"), "shop: one\n");
        assert_eq!(lines.line(b"\x1b[2Jdesk: \xff\r\n"), "shop: \\u{1b}[2Jdesk: \u{fffd}\\r\n");
    }
}
