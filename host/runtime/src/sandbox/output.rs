//! What a plugin writes to stdout and stderr: bounded, and with its name where many write.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::error::one_line;

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
    /// Where many plugins write, each line has the name of its own.
    lines: Option<Arc<Lines>>,
}

/// Where an [`Output`] goes.
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

/// Puts what a plugin writes together to lines.
#[derive(Debug)]
struct Lines {
    to: Stdio,
    plugin: String,
    begun: Mutex<Vec<u8>>,
}

/// The longest line that is kept until its end comes, in bytes.
const MAX_LINE: usize = 8 * 1024;

impl Lines {
    fn new(to: Stdio, plugin: &str) -> Self {
        Self { to, plugin: one_line(plugin), begun: Mutex::new(Vec::new()) }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whole = String::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(part);
            if part.ends_with(b"\n") || begun.len() >= MAX_LINE {
                whole.push_str(&self.line(&begun));
                begun.clear();
            }
        }
        self.to.write_all(whole.as_bytes())
    }

    /// A line for the host's stream. No byte of it can begin one that looks like another plugin's.
    fn line(&self, bytes: &[u8]) -> String {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        format!("{}: {}\n", self.plugin, one_line(&String::from_utf8_lossy(text)))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let begun = std::mem::take(self.begun.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !begun.is_empty() {
            // Nobody is left to be told that the stream is closed.
            let _closed = self.to.write_all(self.line(&begun).as_bytes());
        }
    }
}

impl Output {
    /// What is written goes out as it is.
    pub(crate) fn new(to: Stdio, bound: &Arc<OutputBound>) -> Self {
        Self { to, bound: Arc::clone(bound), lines: None }
    }

    /// What is written goes out in whole lines, each behind the plugin's name.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "one plugin alone has the streams to itself"))]
    pub(crate) fn named(to: Stdio, bound: &Arc<OutputBound>, plugin: &str) -> Self {
        Self { lines: Some(Arc::new(Lines::new(to, plugin))), ..Self::new(to, bound) }
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

    #[test]
    fn a_line_has_the_name_in_front_and_no_control_characters() {
        let lines = Lines::new(Stdio::Stderr, "shop");
        assert_eq!(lines.line(b"one\n"), "shop: one\n");
        assert_eq!(lines.line(b"\x1b[2Jdesk: \xff\r\n"), "shop: \\u{1b}[2Jdesk: \u{fffd}\\r\n");
    }
}
