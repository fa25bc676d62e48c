//! The reply limit: discards strings of replies that are too long while they arrive, and replaces each by an error.
//!
//! Another program may store half a gigabyte under the prefix of a cache. Without this limit the client would hold all
//! of it before anyone can check its length. The limiter reads only enough of RESP to find where strings begin and
//! where replies end; the client parses the rest.

// Decision: docs/decisions/0022-reply-sizes-are-limited-on-the-stream-below-the-client.md

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use redis::RedisError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of bytes that are read at once while bytes are held back, and the maximum while a string is discarded.
const CHUNK: usize = 8 << 10;
const DISCARD_CHUNK: usize = 128 << 10;

/// The longest header of a string or an array, in bytes. A number of 20 digits fits.
const LONGEST_HEADER: usize = 32;

/// The longest line that is passed on, in bytes: an error or a status. The rest of a longer one is discarded.
const LONGEST_LINE: usize = 16 << 10;

/// The code of the errors that replace strings. No server has such a code.
const CODE: &str = "LARDERTOOLONG";

/// The limits for a reply.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) struct ReplyLimits {
    /// The longest string, in bytes.
    pub(in crate::valkey) string: u64,
    /// The sum of the strings of one reply, in bytes.
    pub(in crate::valkey) reply: u64,
}

/// A string that was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) struct Oversized {
    /// The length of the string, or of the strings of its reply up to this one, in bytes.
    pub(in crate::valkey) len: u64,
    /// The limit that it exceeds, in bytes.
    pub(in crate::valkey) limit: u64,
}

impl Oversized {
    /// Reads the error that replaced a string; `None` for other errors.
    pub(in crate::valkey) fn read(error: &RedisError) -> Option<Self> {
        let (len, limit) = error.detail().filter(|_| error.code() == Some(CODE))?.split_once(' ')?;
        Some(Self { len: len.parse().ok()?, limit: limit.parse().ok()? })
    }

    fn line(self) -> Bytes {
        format!("-{CODE} {} {}\r\n", self.len, self.limit).into()
    }
}

/// A stream whose replies are limited. Writes pass through.
#[derive(Debug)]
pub(in crate::valkey) struct ReplyLimiter<S> {
    stream: S,
    limits: ReplyLimits,
    /// Bytes that were read and are held back: an incomplete header, or bytes behind a string that is discarded.
    incoming: BytesMut,
    /// Bytes to pass on before `incoming`.
    inserted: Bytes,
    position: Position,
    /// The number of elements until the end of the reply.
    elements_left: u64,
    /// The number of bytes that the further strings of the reply may have.
    bytes_left: u64,
}

/// The position within a reply.
#[derive(Debug, Clone, Copy)]
enum Position {
    /// At the start of an element.
    Element,
    /// In a line, of which this number of bytes was passed on.
    Line(usize),
    /// In a string, of which this number of bytes with its end is to be passed on.
    String(u64),
    /// In a string, of which this number of bytes with its end is to be discarded.
    Discarded(u64),
}

/// The header of an element.
enum Header {
    /// The header is incomplete.
    Unfinished,
    /// The element is a line.
    Line,
    /// The length of the header, and of the string that follows.
    String(usize, u64),
    /// The length of the header, and the number of elements that follow.
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
        let header = end.saturating_add(1);
        let number = bytes.get(1..end).unwrap_or_default().trim_ascii_end();
        // A negative length means null.
        if let Some((b'-', number)) = number.split_first() {
            return decimal(number).map(|_| Self::Elements(header, 0));
        }
        let len = decimal(number)?;
        Ok(match kind {
            b'$' | b'!' | b'=' => Self::String(header, len),
            b'%' => Self::Elements(header, len.saturating_mul(2)),
            // Attributes precede the element that they describe, and do not count as an element.
            b'|' => Self::Elements(header, len.saturating_mul(2).saturating_add(1)),
            _ => Self::Elements(header, len),
        })
    }
}

impl<S> ReplyLimiter<S> {
    /// Limits the replies of a stream.
    pub(in crate::valkey) fn new(stream: S, limits: ReplyLimits) -> Self {
        Self {
            stream,
            limits,
            incoming: BytesMut::new(),
            inserted: Bytes::new(),
            position: Position::Element,
            elements_left: 1,
            bytes_left: limits.reply,
        }
    }

    /// True if the next bytes of the stream may be passed on directly.
    fn is_caught_up(&self) -> bool {
        self.incoming.is_empty() && self.inserted.is_empty() && !matches!(self.position, Position::Discarded(_))
    }

    /// Follows bytes as far as they may be passed on unchanged, and returns their number. It stops at an incomplete
    /// header, and at a string that must be discarded.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0_usize;
        while let Some(rest @ [_, ..]) = bytes.get(at..) {
            let len = match self.position {
                Position::Element => match Header::read(rest)? {
                    Header::Unfinished => break,
                    Header::String(_, len) if self.oversized(len).is_some() => break,
                    Header::Line => {
                        self.position = Position::Line(0);
                        0
                    }
                    Header::String(header, len) => {
                        self.begin_string(len);
                        header
                    }
                    Header::Elements(header, count) => {
                        self.begin_elements(count);
                        header
                    }
                },
                Position::Line(passed) => {
                    let room = LONGEST_LINE.saturating_sub(passed);
                    match rest.iter().take(room).position(|&byte| byte == b'\n') {
                        Some(end) => {
                            self.end_element();
                            end.saturating_add(1)
                        }
                        None if room == 0 => break,
                        None => {
                            let len = rest.len().min(room);
                            self.position = Position::Line(passed.saturating_add(len));
                            len
                        }
                    }
                }
                Position::String(left) => {
                    let len = at_most(left, rest.len());
                    self.position = Position::String(left.saturating_sub(len as u64));
                    if left == len as u64 {
                        self.end_element();
                    }
                    len
                }
                Position::Discarded(_) => break,
            };
            at = at.saturating_add(len);
        }
        Ok(at)
    }

    fn begin_string(&mut self, len: u64) {
        self.bytes_left = self.bytes_left.saturating_sub(len);
        self.position = Position::String(len.saturating_add(2));
    }

    fn begin_elements(&mut self, count: u64) {
        self.elements_left = self.elements_left.saturating_add(count);
        self.end_element();
    }

    /// Ends an element, which may be the last of the reply.
    fn end_element(&mut self) {
        self.position = Position::Element;
        self.elements_left = self.elements_left.saturating_sub(1);
        if self.elements_left == 0 {
            self.elements_left = 1;
            self.bytes_left = self.limits.reply;
        }
    }

    /// Passes on bytes that were held back. Returns true if it needs more bytes of the stream to continue.
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
            if let Position::Discarded(left) = self.position {
                let len = at_most(left, self.incoming.len());
                self.incoming.advance(len);
                let left = left.saturating_sub(len as u64);
                if left == 0 {
                    self.end_element()
                } else {
                    self.position = Position::Discarded(left)
                }
                continue;
            }
            if let Position::Line(LONGEST_LINE) = self.position {
                match self.incoming.iter().position(|&byte| byte == b'\n') {
                    Some(end) => {
                        self.incoming.advance(end.saturating_add(1));
                        self.inserted = Bytes::from_static(b"\r\n");
                        self.end_element();
                    }
                    None => self.incoming.clear(),
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

    /// Passes on the header of an element, or an error in place of a string that is too long. Returns false if the
    /// header is incomplete.
    fn pass_header(&mut self) -> io::Result<bool> {
        let header = match Header::read(&self.incoming)? {
            Header::Unfinished => return Ok(false),
            // `follow` takes these.
            Header::Line => 0,
            Header::String(header, len) => {
                if let Some(oversized) = self.oversized(len) {
                    self.inserted = oversized.line();
                    self.incoming.advance(header);
                    self.position = Position::Discarded(len.saturating_add(2));
                    return Ok(true);
                }
                self.begin_string(len);
                header
            }
            Header::Elements(header, count) => {
                self.begin_elements(count);
                header
            }
        };
        self.inserted = self.incoming.split_to(header).freeze();
        Ok(true)
    }

    fn chunk(&self) -> usize {
        match self.position {
            Position::Discarded(left) => at_most(left, DISCARD_CHUNK).max(CHUNK),
            Position::Element | Position::Line(_) | Position::String(_) => CHUNK,
        }
    }

    /// The limit that a string of this length exceeds, if it does.
    fn oversized(&self, len: u64) -> Option<Oversized> {
        let ReplyLimits { string, reply } = self.limits;
        if len > string {
            Some(Oversized { len, limit: string })
        } else if len > self.bytes_left {
            Some(Oversized { len: reply.saturating_sub(self.bytes_left).saturating_add(len), limit: reply })
        } else {
            None
        }
    }
}

fn at_most(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}

/// Parses a number. `str::parse` would check for UTF-8 first, and this runs for every reply.
fn decimal(digits: &[u8]) -> io::Result<u64> {
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit.saturating_sub(b'0')))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|_| !digits.is_empty()).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server's reply is not RESP")
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyLimiter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        if this.is_caught_up() {
            // Almost always everything that was read is passed on, without a copy.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyLimiter<S> {
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

    /// The output for these bytes, which arrive in pieces of one size and are read in pieces of another.
    async fn limited(replies: &[u8], arriving: usize, reading: usize) -> io::Result<String> {
        let (mut server, client) = tokio::io::duplex(arriving);
        let mut limiter = ReplyLimiter::new(client, ReplyLimits { string: 10, reply: 24 });
        let sent = replies.to_vec();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut server, &sent).await });
        let mut all = Vec::new();
        loop {
            let mut piece = vec![0; reading];
            match limiter.read(&mut piece).await? {
                0 => return Ok(String::from_utf8_lossy(&all).into_owned()),
                len => all.extend_from_slice(&piece[..len]),
            }
        }
    }

    /// Whatever the pieces, `replies` become `expected`.
    async fn becomes(replies: &str, expected: &str) {
        for arriving in [1, 2, 3, 7, 64, 4096] {
            for reading in [1, 2, 5, 64, 4096] {
                let output = limited(replies.as_bytes(), arriving, reading).await.unwrap();
                assert_eq!(output, expected, "{arriving} {reading}");
            }
        }
    }

    #[tokio::test]
    async fn replies_within_the_limits_pass_unchanged() {
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
    async fn a_string_over_the_limit_becomes_an_error_and_the_next_reply_is_complete() {
        becomes("$11\r\n01234567890\r\n+OK\r\n", "-LARDERTOOLONG 11 10\r\n+OK\r\n").await;
        let nested = "*3\r\n$1\r\na\r\n$12\r\n$5\r\n\r\n*9\r\n:1\r\n$1\r\nb\r\n+OK\r\n";
        becomes(nested, "*3\r\n$1\r\na\r\n-LARDERTOOLONG 12 10\r\n$1\r\nb\r\n+OK\r\n").await;
    }

    #[tokio::test]
    async fn the_limit_of_a_reply_applies_to_the_sum_of_its_strings_and_not_to_the_next_reply() {
        let batch = "*4\r\n$9\r\n012345678\r\n$9\r\n012345678\r\n$9\r\n012345678\r\n$6\r\n012345\r\n";
        let limited = "*4\r\n$9\r\n012345678\r\n$9\r\n012345678\r\n-LARDERTOOLONG 27 24\r\n$6\r\n012345\r\n";
        becomes(&batch.repeat(2), &limited.repeat(2)).await;
        let pipelined = "$9\r\n012345678\r\n".repeat(4);
        becomes(&pipelined, &pipelined).await;
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_the_next_reply_is_complete() {
        for len in [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE] {
            let line = format!("-ERR {}", "x".repeat(len - 5));
            let replies = format!("{line}\r\n*2\r\n+{line}\r\n:1\r\n");
            for (arriving, reading) in [(1, 4096), (64, 5), (4096, 64), (1 << 20, 1 << 20)] {
                let output = limited(replies.as_bytes(), arriving, reading).await.unwrap();
                let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
                let [error, "*2", status, ":1"] = lines[..] else { panic!("{} {arriving}", lines.len()) };
                assert!(line.starts_with(error) && error.len() >= len.min(LONGEST_LINE - 1), "{}", error.len());
                assert!(output.len() <= replies.len() + 2 && status.len() <= LONGEST_LINE + 1, "{}", status.len());
            }
        }
    }

    #[tokio::test]
    async fn a_malformed_length_breaks_the_connection() {
        for bad in ["$x\r\n", "*\r\n", "$?\r\n", "$99999999999999999999999999999999999999\r\n"] {
            assert_eq!(
                limited(bad.as_bytes(), 4096, 64).await.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{bad}"
            );
        }
    }
}
