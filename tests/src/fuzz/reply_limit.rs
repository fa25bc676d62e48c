//! The replies of a server, before the client parses them.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use larder_host::cache::valkey::limit_replies;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::tokio_runtime;

/// The limits, in bytes: small, so that short inputs exceed them.
const STRING_LIMIT: u64 = 10;
const REPLY_LIMIT: u64 = 24;

/// How many bytes arrive at once, and how many are read at once. The first pair splits the input at every byte.
const SPLITS: [(usize, usize); 6] = [(1, 1), (1, 4096), (2, 3), (3, 64), (7, 1), (4096, 4096)];

static TOKIO: LazyLock<tokio::runtime::Runtime> = LazyLock::new(tokio_runtime);

/// The limiter ends, and its output is that of [`limited`], however the input is split: replies within the limits pass
/// byte for byte, and no string over the limits passes. A malformed input breaks the connection and passes on only the
/// replies before it. A second limiter finds nothing to replace in the output.
pub fn reply_limit(data: &[u8]) {
    let expected = limited(data);
    for (arriving, reading) in SPLITS {
        let (output, error) = TOKIO.block_on(pass(data, arriving, reading));
        match error {
            None => {
                assert!(!expected.is_malformed, "{arriving} {reading}: passed a malformed reply");
                assert_eq!(output, expected.output, "{arriving} {reading}");
            }
            Some(kind) => {
                assert!(expected.is_malformed, "{arriving} {reading}: {kind:?} for a well-formed reply");
                assert_eq!(kind, ErrorKind::InvalidData, "{arriving} {reading}");
                assert!(expected.output.starts_with(&output), "{arriving} {reading}: {output:?}");
            }
        }
    }
    let again = limited(&expected.output);
    assert!(!again.is_malformed && again.output == expected.output, "a second limiter changes the output");
}

/// The output of the limiter for bytes that arrive and are read in pieces, and the error that ends it.
async fn pass(data: &[u8], arriving: usize, reading: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let mut limiter = limit_replies(Pieces { data, size: arriving, is_ready: false }, STRING_LIMIT, REPLY_LIMIT);
    let (mut output, mut piece) = (Vec::new(), vec![0; reading]);
    loop {
        match limiter.read(&mut piece).await {
            Ok(0) => return (output, None),
            Ok(len) => output.extend_from_slice(&piece[..len]),
            Err(error) => return (output, Some(error.kind())),
        }
        // At least 4 bytes of a header become at most 42 bytes of an error.
        assert!(output.len() <= data.len() * 16, "the output grows without end");
    }
}

/// Bytes that arrive in pieces. Every other read must wait.
struct Pieces<'a> {
    data: &'a [u8],
    size: usize,
    is_ready: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let len = self.size.min(self.data.len()).min(out.remaining());
        let (piece, rest) = self.data.split_at(len);
        out.put_slice(piece);
        self.data = rest;
        Poll::Ready(Ok(()))
    }
}

/// What a limiter must pass on.
struct Limited {
    output: Vec<u8>,
    /// Whether the input after that is not RESP.
    is_malformed: bool,
}

/// The output of a limiter, computed from the whole input at once.
fn limited(data: &[u8]) -> Limited {
    let mut output = Vec::new();
    let mut rest = data;
    let (mut elements, mut sum) = (1_u64, 0_u64);
    while let Some(kind) = rest.first() {
        if !b"$!=*~>%|".contains(kind) {
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
            output.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        } else {
            let Some(end) = rest.iter().take(32).position(|&byte| byte == b'\n') else {
                // The header is incomplete, or longer than any header.
                return Limited { output, is_malformed: rest.len() >= 32 };
            };
            let (header, behind) = rest.split_at(end + 1);
            let Some(number) = str::from_utf8(header[1..].trim_ascii_end()).ok().and_then(length) else {
                return Limited { output, is_malformed: true };
            };
            rest = behind;
            match (kind, number) {
                (_, Length::Null) => output.extend_from_slice(header),
                (b'$' | b'!' | b'=', Length::Number(len)) => {
                    let with_end = usize::try_from(len.saturating_add(2)).unwrap_or(usize::MAX).min(rest.len());
                    let (string, behind) = rest.split_at(with_end);
                    rest = behind;
                    if len > STRING_LIMIT {
                        output.extend(format!("-LARDERTOOLONG {len} {STRING_LIMIT}\r\n").bytes());
                    } else if sum + len > REPLY_LIMIT {
                        output.extend(format!("-LARDERTOOLONG {} {REPLY_LIMIT}\r\n", sum + len).bytes());
                    } else {
                        sum += len;
                        output.extend_from_slice(header);
                        output.extend_from_slice(string);
                    }
                    if (string.len() as u64) < len.saturating_add(2) {
                        return Limited { output, is_malformed: false };
                    }
                }
                (kind, Length::Number(count)) => {
                    let count = match kind {
                        b'%' => count.saturating_mul(2),
                        b'|' => count.saturating_mul(2).saturating_add(1),
                        _ => count,
                    };
                    elements = elements.saturating_add(count);
                    output.extend_from_slice(header);
                }
            }
        }
        elements -= 1;
        if elements == 0 {
            (elements, sum) = (1, 0);
        }
    }
    Limited { output, is_malformed: false }
}

enum Length {
    Null,
    Number(u64),
}

/// The length in a header: digits, or a negative number for null.
fn length(number: &str) -> Option<Length> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let len = digits.parse().ok()?;
    Some(if number.starts_with('-') { Length::Null } else { Length::Number(len) })
}
