//! The thread that writes the queue of one stream, and reports what was lost.

use std::io::{self, Write};
use std::time::Duration;

use super::Stream;
use super::queue::{Lost, Queue, Work};
use crate::cache::text::one_line;

/// The pause before the next attempt on a stream that its owner has made non-blocking, and that takes nothing now.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The most plugins that one report names.
const MAX_NAMES: usize = 3;

/// A larger buffer is not kept. A batch is larger only for a single long chunk.
const KEPT_BUFFER: usize = 128 * 1024;

/// Writes the queue. Never returns.
pub(super) fn run(queue: &Queue, stream: Stream) {
    let mut buffer = Vec::new();
    loop {
        match queue.next(&mut buffer) {
            Work::Write(batch) => {
                let (written, outcome) = write(stream, &buffer);
                queue.complete(batch, &buffer, written, outcome.err().as_ref());
                buffer.clear();
                buffer.shrink_to(KEPT_BUFFER);
                queue.linger();
            }
            Work::Report(lost) => report(stream, &lost),
        }
    }
}

/// Writes to the stream as the standard library knows it, so that the order is kept with what an embedding program
/// prints. Returns how much was written.
fn write(stream: Stream, bytes: &[u8]) -> (usize, io::Result<()>) {
    match stream {
        Stream::Stdout => write_to(&mut io::stdout().lock(), bytes),
        Stream::Stderr => write_to(&mut io::stderr().lock(), bytes),
    }
}

fn write_to(stream: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written: usize = 0;
    loop {
        let rest = bytes.get(written..).unwrap_or_default();
        let outcome = if rest.is_empty() { stream.flush().map(|()| None) } else { stream.write(rest).map(Some) };
        match outcome {
            Ok(None) => return (written, Ok(())),
            Ok(Some(0)) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(Some(more)) => written = written.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
            // What is still in the buffer of the standard library counts as lost.
            Err(error) => return (if rest.is_empty() { 0 } else { written }, Err(error)),
        }
    }
}

/// Logs what was lost. The line joins the queue of standard error like any other.
fn report(stream: Stream, lost: &Lost) {
    let stream = stream.name();
    let mut parts: Vec<String> = lost
        .bytes
        .iter()
        .take(MAX_NAMES)
        .map(|(plugin, bytes)| format!("{bytes} bytes of output of plugin `{}`", one_line(plugin)))
        .collect();
    let others = lost.bytes.values().skip(MAX_NAMES).fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    if others > 0 {
        parts.push(format!("{others} bytes of output of other plugins"));
    }
    if lost.lines > 0 {
        parts.push(format!("{} log lines", lost.lines));
    }
    let parts = parts.join(", ");
    match &lost.error {
        Some(error) => {
            tracing::warn!("cannot write to {stream}: {error}; dropped {parts}, and what follows until it can")
        }
        None => tracing::warn!("dropped {parts}: {stream} was not read fast enough or could not be written"),
    }
}
