//! A stream that is lent to the Redis crate for its login, and comes back.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that is lent until this is dropped.
#[derive(Debug)]
pub(in crate::valkey) struct Lent<S> {
    /// Present until the drop.
    stream: Option<S>,
    returned: Arc<Mutex<Option<S>>>,
}

/// Where a lent stream comes back.
#[derive(Debug)]
pub(in crate::valkey) struct Returned<S>(Arc<Mutex<Option<S>>>);

impl<S> Lent<S> {
    /// Lends a stream.
    pub(in crate::valkey) fn lend(stream: S) -> (Self, Returned<S>) {
        let returned = Arc::new(Mutex::new(None));
        (Self { stream: Some(stream), returned: Arc::clone(&returned) }, Returned(returned))
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.get_mut().stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S> Returned<S> {
    /// The stream, if it is no longer lent.
    pub(in crate::valkey) fn take(self) -> io::Result<S> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        *self.returned.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
