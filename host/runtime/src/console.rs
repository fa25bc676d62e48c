//! Standard output and standard error of the process: one bounded queue each, which a thread of its own writes.
//!
//! No caller waits in a write: a reader that stalls, a full disk or a closed pipe holds up only the writer thread. The
//! output of plugins and the log of the program `larder` share the queues, so their lines keep their order.

mod backlog;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use backlog::Backlog;
use queue::{Origin, Queue};

/// A standard stream of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

static STDOUT: Queue = Queue::new(Stream::Stdout);
static STDERR: Queue = Queue::new(Stream::Stderr);

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn queue(self) -> &'static Queue {
        match self {
            Self::Stdout => &STDOUT,
            Self::Stderr => &STDERR,
        }
    }

    pub(crate) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::IsTerminal::is_terminal(&io::stdout()),
            Self::Stderr => io::IsTerminal::is_terminal(&io::stderr()),
        }
    }

    /// Queues whole lines of a plugin, or drops and counts them.
    pub(crate) fn write_lines(self, plugin: &Arc<str>, lines: Vec<u8>) {
        self.queue().offer(Origin::Plugin(Arc::clone(plugin)), lines);
    }

    /// Queues the output of a run. The caller has checked that the backlog has room.
    pub(crate) fn write_run(self, backlog: &Arc<Backlog>, bytes: Vec<u8>) {
        self.queue().push(backlog, bytes);
    }
}

/// Queues a line of the host, with its line end. Never waits: if the queue has no room, the line is dropped and counted
/// in [`DROPPED_LOG_LINES`](crate::metrics::DROPPED_LOG_LINES).
pub fn write(stream: Stream, line: &[u8]) {
    stream.queue().offer(Origin::Host, line.to_vec());
}

/// Writes all bytes, and waits, without blocking a thread, until the operating system has them.
///
/// # Errors
///
/// That of the write, such as [`io::ErrorKind::BrokenPipe`] if the reader has closed the pipe.
pub async fn write_all(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    let backlog = Arc::new(Backlog::default());
    for chunk in bytes.chunks(Backlog::MAX) {
        backlog.written().await?;
        stream.write_run(&backlog, chunk.to_vec());
    }
    backlog.written().await
}

/// Blocks until both streams have been written, at most for this long. Call it before the process exits: it would lose
/// what is still queued. Returns true if everything was written.
pub fn flush(timeout: Duration) -> bool {
    let deadline = Instant::now().checked_add(timeout);
    let both = [&STDOUT, &STDERR].map(|queue| queue.flush(deadline));
    both.iter().all(|is_written| *is_written)
}

/// Prepares both streams for a server: sets the size of each queue in bytes, `max_queued_output` of `[serve]`, and
/// exports the counters of what is lost, which are 0.
#[cfg(feature = "serve")]
pub(crate) fn prepare<'a>(max_queued: u64, plugins: impl IntoIterator<Item = &'a str>) {
    let plugins = plugins.into_iter().map(|plugin| Origin::Plugin(plugin.into()));
    let origins: Vec<Origin> = std::iter::once(Origin::Host).chain(plugins).collect();
    for queue in [&STDOUT, &STDERR] {
        queue.set_max(max_queued);
        origins.iter().for_each(|origin| queue.count(origin, 0));
    }
}
