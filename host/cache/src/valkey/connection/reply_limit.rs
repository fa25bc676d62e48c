//! The server's answers on their way in, without what is too long to take: a string over a bound is replaced by an error
//! before anything of it is kept.
//!
//! Another program may put half a gigabyte under our prefix, and the client would hold all of it before we could look.
//! This knows as much of RESP as it takes to tell where strings begin and where an answer ends; the client parses.

// Decision: docs/decisions/0022-reply-sizes-are-limited-on-the-stream-below-the-client.md

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use redis::RedisError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read from the server at once where something was held back, and at most of a string that is left out.
const CHUNK: usize = 8 << 10;
const LARGE_CHUNK: usize = 128 << 10;

/// The longest line that announces a string or an array, in bytes: a number of 20 digits fits.
const LONGEST_HEADER: usize = 32;

/// What the errors begin with that stand in place of strings. No server has such a code.
const CODE: &str = "LARDERTOOLONG";

/// What the server may send.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) struct Bounds {
    /// The longest string, in bytes.
    pub(in crate::valkey) string: u64,
    /// The most bytes of all strings of one answer.
    pub(in crate::valkey) answer: u64,
}

/// How long a string was that was left out, or its answer up to it, and the bound that this broke; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) struct LeftOut {
    pub(in crate::valkey) len: u64,
    pub(in crate::valkey) bound: u64,
}

impl LeftOut {
    /// Reads the error that stands in its place; none for any other.
    pub(in crate::valkey) fn read(error: &RedisError) -> Option<Self> {
        let (len, bound) = error.detail().filter(|_| error.code() == Some(CODE))?.split_once(' ')?;
        Some(Self { len: len.parse().ok()?, bound: bound.parse().ok()? })
    }

    fn line(self) -> Bytes {
        format!("-{CODE} {} {}\r\n", self.len, self.bound).into()
    }
}

/// A connection whose answers are bounded. Writing passes through.
#[derive(Debug)]
pub(in crate::valkey) struct Bounded<S> {
    stream: S,
    bounds: Bounds,
    /// Read and held back: a line that is not all there, or what is behind a string that is left out.
    incoming: BytesMut,
    /// What to hand on before anything else.
    inserted: Bytes,
    place: Place,
    /// How many elements are to come until the answer is whole.
    missing: u64,
    /// How many bytes of strings the answer may have yet.
    left: u64,
}

/// Where in an answer we are.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the beginning of an element.
    Element,
    /// In a line that is passed on to its end.
    Line,
    /// So many bytes of a string and its end are to be passed on.
    String(u64),
    /// So many are to be dropped.
    LeftOut(u64),
}

/// What the first line of an element says of it.
enum Header {
    /// The line is not all there.
    Unfinished,
    /// The element ends with its line.
    Line,
    /// So many bytes announce a string of this length.
    String(usize, u64),
    /// So many bytes announce that so many elements more are to come.
    Elements(usize, u64),
}

impl Header {
    fn read(bytes: &[u8]) -> io::Result<Self> {
        let kind = match bytes.first() {
            Some(kind @ (b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|')) => *kind,
            _ => return Ok(Self::Line),
        };
        let Some(end) = bytes.iter().take(LONGEST_HEADER).position(|&byte| byte == b'\n') else {
            return if bytes.len() < LONGEST_HEADER { Ok(Self::Unfinished) } else { Err(malformed()) };
        };
        let line = end.saturating_add(1);
        let number = bytes.get(1..end).unwrap_or_default().trim_ascii_end();
        // A negative length stands for nothing at all.
        if let Some((b'-', number)) = number.split_first() {
            return decimal(number).map(|_| Self::Elements(line, 0));
        }
        let len = decimal(number)?;
        Ok(match kind {
            b'$' | b'!' | b'=' => Self::String(line, len),
            b'%' => Self::Elements(line, len.saturating_mul(2)),
            // Attributes come before the element that they describe, and do not count as one.
            b'|' => Self::Elements(line, len.saturating_mul(2).saturating_add(1)),
            _ => Self::Elements(line, len),
        })
    }
}

impl<S> Bounded<S> {
    pub(in crate::valkey) fn new(stream: S, bounds: Bounds) -> Self {
        let (incoming, inserted) = (BytesMut::new(), Bytes::new());
        Self { stream, bounds, incoming, inserted, place: Place::Element, missing: 1, left: bounds.answer }
    }

    /// Whether what comes next from the server may be handed on at once.
    fn is_caught_up(&self) -> bool {
        self.incoming.is_empty() && self.inserted.is_empty() && !matches!(self.place, Place::LeftOut(_))
    }

    /// Follows what was read as far as it is handed on as it is, and says how far: up to a line that is not all there,
    /// or a string that is to be left out.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0_usize;
        while let Some(rest @ [_, ..]) = bytes.get(at..) {
            let len = match self.place {
                Place::Element => match Header::read(rest)? {
                    Header::Unfinished => break,
                    Header::String(_, len) if self.exceeded_by(len).is_some() => break,
                    Header::Line => {
                        self.place = Place::Line;
                        0
                    }
                    Header::String(line, len) => {
                        self.begin_string(len);
                        line
                    }
                    Header::Elements(line, count) => {
                        self.begin_elements(count);
                        line
                    }
                },
                Place::Line => match rest.iter().position(|&byte| byte == b'\n') {
                    Some(end) => {
                        self.end_of_element();
                        end.saturating_add(1)
                    }
                    None => rest.len(),
                },
                Place::String(left) => {
                    let len = at_most(left, rest.len());
                    self.place = Place::String(left.saturating_sub(len as u64));
                    if left == len as u64 {
                        self.end_of_element();
                    }
                    len
                }
                Place::LeftOut(_) => break,
            };
            at = at.saturating_add(len);
        }
        Ok(at)
    }

    fn begin_string(&mut self, len: u64) {
        self.left = self.left.saturating_sub(len);
        self.place = Place::String(len.saturating_add(2));
    }

    fn begin_elements(&mut self, count: u64) {
        self.missing = self.missing.saturating_add(count);
        self.end_of_element();
    }

    /// An element is whole; it may be the last one of the answer.
    fn end_of_element(&mut self) {
        self.place = Place::Element;
        self.missing = self.missing.saturating_sub(1);
        if self.missing == 0 {
            self.missing = 1;
            self.left = self.bounds.answer;
        }
    }

    /// Hands on what it can of what was held back. Says whether more must be read to go on.
    fn pass(&mut self, out: &mut ReadBuf<'_>) -> io::Result<bool> {
        while out.remaining() > 0 {
            if !self.inserted.is_empty() {
                let len = self.inserted.len().min(out.remaining());
                out.put_slice(&self.inserted.split_to(len));
                continue;
            }
            if self.incoming.is_empty() {
                return Ok(true);
            }
            if let Place::LeftOut(left) = self.place {
                let len = at_most(left, self.incoming.len());
                self.incoming.advance(len);
                let left = left.saturating_sub(len as u64);
                if left == 0 {
                    self.end_of_element()
                } else {
                    self.place = Place::LeftOut(left)
                }
                continue;
            }
            let incoming = std::mem::take(&mut self.incoming);
            let fits = incoming.get(..out.remaining()).unwrap_or(&incoming);
            let len = self.follow(fits)?;
            out.put_slice(fits.get(..len).unwrap_or_default());
            self.incoming = incoming;
            self.incoming.advance(len);
            if len == 0 && !self.pass_header()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hands on the first line of an element, or an error in place of a string that is too long. Says whether the line
    /// was there as a whole.
    fn pass_header(&mut self) -> io::Result<bool> {
        let line = match Header::read(&self.incoming)? {
            Header::Unfinished => return Ok(false),
            Header::Line => 0,
            Header::String(line, len) => {
                if let Some(left_out) = self.exceeded_by(len) {
                    self.inserted = left_out.line();
                    self.incoming.advance(line);
                    self.place = Place::LeftOut(len.saturating_add(2));
                    return Ok(true);
                }
                self.begin_string(len);
                line
            }
            Header::Elements(line, count) => {
                self.begin_elements(count);
                line
            }
        };
        self.inserted = self.incoming.split_to(line).freeze();
        Ok(true)
    }

    fn chunk(&self) -> usize {
        match self.place {
            Place::LeftOut(left) => at_most(left, LARGE_CHUNK).max(CHUNK),
            Place::Element | Place::Line | Place::String(_) => CHUNK,
        }
    }

    /// What a string of this length would be too much for.
    fn exceeded_by(&self, len: u64) -> Option<LeftOut> {
        let Bounds { string, answer } = self.bounds;
        if len > string {
            Some(LeftOut { len, bound: string })
        } else if len > self.left {
            Some(LeftOut { len: answer.saturating_sub(self.left).saturating_add(len), bound: answer })
        } else {
            None
        }
    }
}

fn at_most(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}

/// Not `parse`, which would first look whether it is text: this is done for every answer.
fn decimal(digits: &[u8]) -> io::Result<u64> {
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit.saturating_sub(b'0')))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|_| !digits.is_empty()).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server's answer is not RESP")
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        if this.is_caught_up() {
            // As a rule everything read is handed on, and then nothing is copied here.
            ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
            let read = out.filled().get(before..).unwrap_or_default();
            let len = this.follow(read)?;
            if len == read.len() {
                return Poll::Ready(Ok(()));
            }
            this.incoming.extend_from_slice(read.get(len..).unwrap_or_default());
            out.set_filled(before.saturating_add(len));
        }
        loop {
            let wants_more = this.pass(out)?;
            if out.filled().len() > before || !wants_more {
                return Poll::Ready(Ok(()));
            }
            this.incoming.reserve(this.chunk());
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.incoming);
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// What comes through of these bytes, which arrive in pieces of this size and are read in pieces of that one.
    async fn through(answers: &[u8], arriving: usize, reading: usize) -> io::Result<String> {
        let (mut server, client) = tokio::io::duplex(arriving);
        let mut bounded = Bounded::new(client, Bounds { string: 10, answer: 24 });
        let sent = answers.to_vec();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut server, &sent).await });
        let mut all = Vec::new();
        loop {
            let mut piece = vec![0; reading];
            match bounded.read(&mut piece).await? {
                0 => return Ok(String::from_utf8_lossy(&all).into_owned()),
                len => all.extend_from_slice(&piece[..len]),
            }
        }
    }

    /// Whatever the pieces, `answers` become `expected`.
    async fn becomes(answers: &str, expected: &str) {
        for arriving in [1, 2, 3, 7, 64, 4096] {
            for reading in [1, 2, 5, 64, 4096] {
                let through = through(answers.as_bytes(), arriving, reading).await.unwrap();
                assert_eq!(through, expected, "{arriving} {reading}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_within_the_bounds_passes_as_it_is() {
        for same in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "_\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$10\r\n0123456789\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n$2\r\n\r\n\r\n$-1\r\n+x\r\n",
            "%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*2\r\n,1.5\r\n#t\r\n+OK\r\n",
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n$1\r\nv\r\n",
            "|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n+OK\r\n",
            "=7\r\ntxt:abc\r\n!5\r\nERR x\r\n",
        ] {
            becomes(same, same).await;
        }
    }

    #[tokio::test]
    async fn a_string_over_the_bound_becomes_an_error_and_the_next_answer_is_whole() {
        becomes("$11\r\n01234567890\r\n+OK\r\n", "-LARDERTOOLONG 11 10\r\n+OK\r\n").await;
        let nested = "*3\r\n$1\r\na\r\n$12\r\n$5\r\n\r\n*9\r\n:1\r\n$1\r\nb\r\n+OK\r\n";
        becomes(nested, "*3\r\n$1\r\na\r\n-LARDERTOOLONG 12 10\r\n$1\r\nb\r\n+OK\r\n").await;
    }

    #[tokio::test]
    async fn an_answer_is_bounded_as_a_whole_and_the_next_one_by_itself() {
        let batch = "*4\r\n$9\r\n012345678\r\n$9\r\n012345678\r\n$9\r\n012345678\r\n$6\r\n012345\r\n";
        let bounded = "*4\r\n$9\r\n012345678\r\n$9\r\n012345678\r\n-LARDERTOOLONG 27 24\r\n$6\r\n012345\r\n";
        becomes(&batch.repeat(2), &bounded.repeat(2)).await;
        let pipelined = "$9\r\n012345678\r\n".repeat(4);
        becomes(&pipelined, &pipelined).await;
    }

    #[tokio::test]
    async fn what_is_no_length_breaks_the_connection() {
        for bad in ["$x\r\n", "*\r\n", "$?\r\n", "$99999999999999999999999999999999999999\r\n"] {
            assert_eq!(
                through(bad.as_bytes(), 4096, 64).await.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{bad}"
            );
        }
    }
}
