//! The output of a plugin on stdout and stderr: limited, and under `larder serve` with its name before each line.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::cache::text::one_line;

/// Limits the output of one run on stdout and stderr together.
#[derive(Debug)]
pub(crate) struct OutputLimit {
    left: AtomicU64,
    is_exceeded: AtomicBool,
}

impl OutputLimit {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(max), is_exceeded: AtomicBool::new(false) })
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

/// The host's stdout or stderr for a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    to: Stdio,
    limit: Arc<OutputLimit>,
    /// If several plugins write, each line starts with the name of its plugin.
    lines: Option<Arc<Lines>>,
}

/// The stream that an [`Output`] writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stdio {
    Stdout,
    Stderr,
}

impl Stdio {
    fn write_all(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().write_all(bytes),
            Self::Stderr => io::stderr().write_all(bytes),
        }
    }
}

/// Collects the output of a plugin into lines.
#[derive(Debug)]
struct Lines {
    to: Stdio,
    plugin: String,
    partial: Mutex<Vec<u8>>,
}

/// A longer line is written in parts, so that little output is buffered. In bytes.
const MAX_LINE: usize = 8 * 1024;

impl Lines {
    fn new(to: Stdio, plugin: &str) -> Self {
        Self { to, plugin: one_line(plugin), partial: Mutex::new(Vec::new()) }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let mut complete = String::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(part);
            if part.ends_with(b"\n") || partial.len() >= MAX_LINE {
                complete.push_str(&self.line(&partial));
                partial.clear();
            }
        }
        self.to.write_all(complete.as_bytes())
    }

    /// Formats a line for the host's stream. It cannot contain a line break that would start a line of another plugin.
    fn line(&self, bytes: &[u8]) -> String {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        format!("{}: {}\n", self.plugin, one_line(&String::from_utf8_lossy(text)))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let partial = std::mem::take(self.partial.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !partial.is_empty() {
            // The plugin has ended, and the error cannot be reported.
            let _closed = self.to.write_all(self.line(&partial).as_bytes());
        }
    }
}

impl Output {
    /// Writes the output unchanged.
    pub(crate) fn new(to: Stdio, limit: &Arc<OutputLimit>) -> Self {
        Self { to, limit: Arc::clone(limit), lines: None }
    }

    /// Writes whole lines, each after the plugin's name.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only the HTTP server runs several plugins"))]
    pub(crate) fn prefixed(to: Stdio, limit: &Arc<OutputLimit>, plugin: &str) -> Self {
        Self { lines: Some(Arc::new(Lines::new(to, plugin))), ..Self::new(to, limit) }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.lines {
            Some(lines) => lines.write(bytes),
            None => self.to.write_all(bytes),
        }
    }

    fn flush_all(&self) -> io::Result<()> {
        match self.to {
            Stdio::Stdout => io::stdout().flush(),
            Stdio::Stderr => io::stderr().flush(),
        }
    }

    /// Writes as much as the limit allows, and returns the number of bytes.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.limit.take(bytes.len());
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

/// The maximum of one write in bytes, as for wasmtime's own streams.
const MAX_WRITE: usize = 64 * 1024;

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.write_some(&bytes).map_err(stream_error)?;
        if written == bytes.len() {
            return Ok(());
        }
        // Keeps the output that was within the limit.
        self.flush_all().map_err(stream_error)?;
        Err(StreamError::trap("the plugin exceeded its output limit"))
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

/// If the reader has closed a pipe, the plugin gets a closed stream, as any program does.
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
        let lines = Lines::new(Stdio::Stderr, "shop");
        assert_eq!(lines.line(b"one\n"), "shop: one\n");
        assert_eq!(lines.line(b"\x1b[2Jdesk: \xff\r\n"), "shop: \\u{1b}[2Jdesk: \u{fffd}\\r\n");
    }
}
