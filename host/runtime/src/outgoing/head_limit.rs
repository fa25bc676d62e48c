//! The limit on what a host sends before the head of its response.
//!
//! hyper limits one head, but skips any number of interim responses (`103 Early Hints`) within one poll.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connector::Stream;
use crate::pace::{MAX_READ, Pace};

/// The bytes that may still arrive before the head of the response is complete.
#[derive(Debug, Clone)]
pub(super) struct HeadLimit(Arc<AtomicUsize>);

impl HeadLimit {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(max)))
    }

    /// The head is complete: what follows is the body, which is streamed.
    pub(super) fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, read: usize) {
        let take = |left: usize| (left != usize::MAX).then(|| left.saturating_sub(read));
        let _lifted = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }
}

/// A stream within the limit.
pub(super) struct LimitedStream {
    stream: Box<dyn Stream>,
    limit: HeadLimit,
    pace: Pace,
}

impl LimitedStream {
    pub(super) fn new(stream: Box<dyn Stream>, limit: HeadLimit) -> Self {
        Self { stream, limit, pace: Pace::default() }
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.limit.is_exceeded() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        ready!(self.pace.poll(context, MAX_READ));
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        self.pace.note(polled.is_ready().then_some(read));
        self.limit.take(read);
        polled
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
