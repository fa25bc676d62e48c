//! The rule for a peer that does not take what is written to it, and a stream that follows it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A peer makes progress if it takes this much within the deadline, in bytes, or all there is. Fewer bytes would let it
/// hold a connection for as long as it likes. The same holds for a peer that sends.
pub const MIN_PROGRESS: usize = 8 << 10;

/// Whether the peer takes what is written to it.
#[derive(Debug, Default)]
pub(crate) struct WriteProgress {
    is_blocked: bool,
    /// Bytes written since the time that the caller keeps.
    progress: usize,
}

/// What a write says about the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The peer has taken all. No deadline applies.
    Complete,
    /// The peer has begun to be slow, or has made progress: the deadline begins anew.
    Begins,
    /// The deadline goes on.
    GoesOn,
}

impl WriteProgress {
    /// Notes the outcome of a write of `len` bytes.
    pub(crate) fn note(&mut self, len: usize, written: &Poll<io::Result<usize>>) -> Progress {
        let was_blocked = self.is_blocked;
        match written {
            Poll::Ready(Ok(count)) if *count >= len => {
                self.is_blocked = false;
                return Progress::Complete;
            }
            Poll::Ready(Ok(count)) => self.progress = self.progress.saturating_add(*count),
            Poll::Pending => {}
            Poll::Ready(Err(_)) => return Progress::GoesOn,
        }
        self.is_blocked = true;
        if was_blocked && self.progress < MIN_PROGRESS {
            return Progress::GoesOn;
        }
        self.progress = 0;
        Progress::Begins
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its peer takes less than [`MIN_PROGRESS`] bytes, and not
/// all, of what is written to it within a time.
#[derive(Debug)]
pub struct WriteDeadline<S> {
    stream: S,
    timeout: Duration,
    progress: WriteProgress,
    /// Set once a write has had to wait.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> WriteDeadline<S> {
    /// A stream with this time for each 8 KiB.
    pub fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, progress: WriteProgress::default(), deadline: None }
    }

    /// Applies the rule to a write of `len` bytes.
    fn checked(
        &mut self,
        context: &mut Context<'_>,
        len: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match self.progress.note(len, &written) {
            Progress::Complete => return written,
            Progress::GoesOn => {}
            Progress::Begins => {
                let now = Instant::now();
                let end = now.checked_add(self.timeout).unwrap_or(now);
                match &mut self.deadline {
                    Some(deadline) => deadline.as_mut().reset(end),
                    None => self.deadline = Some(Box::pin(sleep_until(end))),
                }
            }
        }
        if self.progress.is_blocked
            && let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.checked(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.checked(context, total_len(slices), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context).map_ok(|()| 0);
        self.checked(context, 0, flushed).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context).map_ok(|()| 0);
        self.checked(context, 0, ended).map_ok(drop)
    }
}

/// The length of a vectored write.
pub(crate) fn total_len(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().fold(0, |sum, slice| sum.saturating_add(slice.len()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Writes `len` bytes to a reader that takes `step` bytes each `pause`. Returns how it ended, and after how many
    /// seconds.
    async fn written(len: usize, step: usize, pause: Duration) -> (io::Result<()>, u64) {
        let (stream, reader) = duplex(64);
        tokio::spawn(take(reader, step, pause));
        let began = Instant::now();
        let outcome = WriteDeadline::new(stream, TIMEOUT).write_all(&vec![0; len]).await;
        (outcome, began.elapsed().as_secs())
    }

    async fn take(mut reader: DuplexStream, step: usize, pause: Duration) {
        loop {
            sleep(pause).await;
            if reader.read_exact(&mut vec![0; step]).await.is_err() {
                break;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_if_too_little_is_taken_in_the_time() {
        let hour = Duration::from_secs(3600);
        for (step, pause) in [(1, hour), (1, Duration::from_millis(500)), (64, Duration::from_millis(300))] {
            let (outcome, seconds) = written(100_000, step, pause).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut, "{step} bytes each {pause:?}");
            assert_eq!(seconds, 30, "{step} bytes each {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_everything_if_it_takes_8_kib_in_the_time() {
        let (outcome, seconds) = written(100_000, 64, Duration::from_millis(200)).await;
        outcome.unwrap();
        assert!(seconds > 300, "{seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_has_taken_all_has_no_deadline() {
        let (stream, mut reader) = duplex(64);
        let mut stream = WriteDeadline::new(stream, TIMEOUT);
        let (sent, mut received) = ([0; 100], [0; 100]);
        for _ in 0..5 {
            let (written, read) = tokio::join!(stream.write_all(&sent), reader.read_exact(&mut received));
            written.unwrap();
            read.unwrap();
            sleep(Duration::from_secs(25)).await;
        }
    }
}
