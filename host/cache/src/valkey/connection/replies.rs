//! The replies of a server: reads them from a stream, one after the other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use redis::{ErrorKind, RedisError, RedisResult, Value, ValueCodec};
use tokio::io::AsyncRead;
use tokio_util::codec::Decoder;

/// A buffer that grew beyond this size for a large value is freed when it is empty.
pub(in crate::valkey) const KEPT_BUFFER: usize = 64 << 10;

/// The least room for a read, in bytes.
const CHUNK: usize = 16 << 10;

/// The most digits of a length that is read here.
const MAX_DIGITS: usize = 10;

/// Bytes of a stream that are not yet handed out as replies.
#[derive(Default)]
pub(in crate::valkey) struct Replies {
    bytes: BytesMut,
    /// The client's parser, for the replies other than strings and `OK`. It takes several times as long.
    codec: ValueCodec,
    /// True if the codec has the beginning of a reply.
    is_in_codec: bool,
    /// The number of bytes without which the next reply is known to be incomplete.
    needed: usize,
    /// True if the buffer grew for a large value.
    is_large: bool,
}

/// What is at the start of the bytes.
enum Start {
    /// A complete reply, and its length.
    Complete(Value, usize),
    /// The beginning of a reply, of at least this length.
    Incomplete(usize),
    /// A reply for the codec.
    Other,
    /// No reply.
    Invalid,
}

impl Replies {
    /// The next reply, if all of it was read.
    ///
    /// # Errors
    ///
    /// The bytes are no reply.
    pub(in crate::valkey) fn next(&mut self) -> RedisResult<Option<Value>> {
        if self.bytes.len() < self.needed {
            return Ok(None);
        }
        self.needed = 0;
        if !self.is_in_codec {
            match start(&self.bytes) {
                Start::Complete(reply, len) => {
                    self.bytes.advance(len);
                    return Ok(Some(reply));
                }
                Start::Incomplete(len) => {
                    self.needed = len;
                    return Ok(None);
                }
                Start::Other => {}
                Start::Invalid => {
                    return Err(RedisError::from((ErrorKind::Parse, "the server's reply is not RESP")));
                }
            }
        }
        let reply = self.codec.decode(&mut self.bytes)?;
        self.is_in_codec = reply.is_none();
        Ok(reply)
    }

    /// Reads more bytes. Returns their number, 0 at the end of the stream.
    pub(in crate::valkey) fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.is_large && self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        // The reply limit has checked the length.
        self.bytes.reserve(self.needed.saturating_sub(self.bytes.len()).max(CHUNK));
        self.is_large = self.bytes.capacity() > KEPT_BUFFER;
        tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.bytes)
    }
}

fn start(bytes: &[u8]) -> Start {
    match bytes {
        [b'$', rest @ ..] => string(bytes, rest),
        [b'+', b'O', b'K', b'\r', b'\n', ..] => Start::Complete(Value::Okay, 5),
        [b'_', b'\r', b'\n', ..] => Start::Complete(Value::Nil, 3),
        [b'+' | b'-' | b':' | b'_' | b'*' | b'%' | b'~' | b'>' | b'|' | b',' | b'#' | b'!' | b'=' | b'(', ..] => {
            Start::Other
        }
        [] => Start::Incomplete(1),
        _ => Start::Invalid,
    }
}

/// The string at the start of the bytes. `rest` is without the first byte.
fn string(bytes: &[u8], rest: &[u8]) -> Start {
    let mut len = 0_usize;
    let mut digits = rest.iter().take(MAX_DIGITS);
    let mut header = 2_usize;
    loop {
        header = header.saturating_add(1);
        match digits.next() {
            Some(digit @ b'0'..=b'9') => {
                len = len.saturating_mul(10).saturating_add(usize::from(digit.saturating_sub(b'0')));
            }
            Some(b'\r') if header > 3 => break,
            None if rest.len() < MAX_DIGITS => return Start::Incomplete(bytes.len().saturating_add(1)),
            Some(_) | None => return Start::Other,
        }
    }
    let end = header.saturating_add(len);
    let total = end.saturating_add(2);
    match (bytes.get(header..end), bytes.get(end..total)) {
        (Some(string), Some(b"\r\n")) => Start::Complete(Value::BulkString(string.to_vec()), total),
        (_, None) => Start::Incomplete(total),
        (_, Some(_)) => Start::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// The replies in these bytes, which are read in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> RedisResult<Vec<Value>> {
        let mut replies = Replies::default();
        let mut found = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let filled = replies.poll_fill(&mut piece, &mut Context::from_waker(Waker::noop()));
                assert!(matches!(filled, Poll::Ready(Ok(1..))));
                while let Some(reply) = replies.next()? {
                    found.push(reply);
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_are_those_of_the_clients_parser_whatever_the_pieces() {
        let long = format!("${}\r\n{}\r\n", 100_000, "x".repeat(100_000));
        let all = [
            "+OK\r\n",
            "$5\r\nab\r\nc\r\n",
            "$0\r\n\r\n",
            "_\r\n",
            "$-1\r\n",
            ":12\r\n",
            "+PONG\r\n",
            "+OKAY\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n_\r\n",
            "-WRONGTYPE no\r\n",
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            &long,
            "$3\r\nend\r\n",
        ];
        let expected: Vec<Value> =
            all.iter().map(|reply| redis::parse_redis_value(reply.as_bytes()).unwrap()).collect();
        for piece in [1, 2, 3, 7, 64, 4096, 1 << 20] {
            assert_eq!(read(all.concat().as_bytes(), piece).unwrap(), expected, "{piece}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bad in ["$x\r\n", "$\r\n", "$3\r\nabcde\r\n", "$99999999999999999999\r\n", "hello\r\n"] {
            assert!(read(bad.as_bytes(), 1).is_err(), "{bad}");
        }
    }
}
