//! The bytes of a connection: notes when a write is pending, and closes without losing the last answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::frames::Frames;
use super::{ConnectionState, NEVER, Wish};
use crate::pace::{MAX_READ, Pace};
use crate::write_deadline::{Progress, WriteProgress, total_len};

/// What is read and discarded of a connection that closes, in bytes.
const MAX_DISCARDED: usize = 1 << 20;

/// The first bytes of HTTP/2.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// A stream that can be broken such that the client sees it.
pub(in crate::serve) trait Reset {
    /// Makes the stream end with a reset when it is dropped. What is buffered for the client is discarded.
    fn reset_on_drop(&self);
}

impl Reset for TcpStream {
    fn reset_on_drop(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!("cannot reset a connection: {error}");
        }
    }
}

#[cfg(test)]
impl Reset for tokio::io::DuplexStream {
    fn reset_on_drop(&self) {}
}

/// The I/O of a connection.
pub(super) struct WatchedIo<I: Reset> {
    io: I,
    state: Arc<ConnectionState>,
    has_read: bool,
    frames: Frames,
    /// A client that floods the connection with frames does not keep the thread.
    pace: Pace,
    progress: WriteProgress,
    is_shut_down: bool,
    discarded: usize,
}

impl<I: Reset> WatchedIo<I> {
    pub(super) fn new(io: I, state: Arc<ConnectionState>) -> Self {
        Self {
            io,
            state,
            has_read: false,
            frames: Frames::new(),
            pace: Pace::default(),
            progress: WriteProgress::default(),
            is_shut_down: false,
            discarded: 0,
        }
    }

    /// Notes the outcome of a write of `len` bytes.
    fn note_write(&mut self, len: usize, written: &Poll<io::Result<usize>>) {
        let blocked = &self.state.blocked_since;
        match self.progress.note(len, written) {
            Progress::Complete => blocked.store(NEVER, Ordering::Release),
            Progress::Begins => blocked.store(self.state.now(), Ordering::Release),
            Progress::GoesOn => {}
        }
    }
}

impl<I: Reset> Drop for WatchedIo<I> {
    fn drop(&mut self) {
        if self.state.is_broken.load(Ordering::Relaxed) {
            self.io.reset_on_drop();
        }
    }
}

impl<I: AsyncRead + Reset + Unpin> AsyncRead for WatchedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.pace.poll(context, MAX_READ));
        // The first bytes tell the protocol.
        let is_http1 = this.has_read && !this.state.is_http2.load(Ordering::Relaxed);
        let room = if is_http1 { usize::MAX } else { ready!(this.state.backlog.poll_room(context)) };
        let before = buffer.filled().len();
        let polled = if buffer.remaining() <= room {
            Pin::new(&mut this.io).poll_read(context, buffer)
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            let polled = Pin::new(&mut this.io).poll_read(context, &mut part);
            let read = part.filled().len();
            buffer.advance(read);
            polled
        };
        let read = buffer.filled().get(before..).unwrap_or_default();
        this.pace.note(polled.is_ready().then_some(read.len()));
        if !read.is_empty() {
            if !this.has_read {
                this.has_read = true;
                this.state.is_http2.store(read.starts_with(HTTP2), Ordering::Relaxed);
            }
            if this.state.is_http2.load(Ordering::Relaxed) {
                this.state.backlog.add(this.frames.pass(read));
            }
            this.state.has_unread.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Reset + Unpin> AsyncWrite for WatchedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.note_write(bytes.len(), &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.note_write(total_len(slices), &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    /// Closes the side of the host. If the client is still sending, such as the rest of a request that was refused, what
    /// it sends is discarded until it closes its side too: closing before would reset the connection, and the client
    /// could lose the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut_down {
            ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
            this.is_shut_down = true;
            let state = &this.state;
            let has_unread = state.has_unread.load(Ordering::Relaxed) && !state.is_http2.load(Ordering::Relaxed);
            if !has_unread || state.wishes(Wish::ShutDown) {
                return Poll::Ready(Ok(()));
            }
            // From here on, the deadline of a closing connection applies.
            state.idle_since.store(state.now(), Ordering::Release);
            state.wish(Wish::ShutDown);
        }
        let mut buffer = [0; 4096];
        while this.discarded < MAX_DISCARDED {
            let mut buffer = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.io).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            this.discarded = this.discarded.saturating_add(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
