//! The first exchange on a connection: a `PING`, to find out whether a Valkey or Redis server is at the address.
//!
//! The client would take any bytes for replies, and would lose what a server says before it closes the connection.
//! Only a line of limited length is read here, whatever is at the address.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::text::short_line;

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The longest reply that is read, in bytes. A server's longest reason to refuse a connection, that of the protected
/// mode, has 800 bytes.
const MAX_REPLY: usize = 4 << 10;

/// The number of bytes that are shown of a protocol without lines.
const MAX_BINARY: usize = 32;

/// The first byte of a TLS record with an alert: the answer of a TLS server to anything else.
const TLS_ALERT: u8 = 0x15;

/// Why a server was not greeted.
#[derive(Debug, thiserror::Error)]
pub(in crate::valkey) enum GreetingError {
    /// The server does not take the connection. The text is its own, shortened to one line.
    #[error("it refuses the connection: {0}")]
    Refused(String),
    /// Another kind of server is at the address. The text is what it said, shortened to one line.
    #[error("this is no Valkey or Redis server: it said `{0}`")]
    Foreign(String),
    /// The server expects TLS.
    #[error("the server speaks TLS: set `tls = true`, or begin the `url` with `valkeys:` or `rediss:`")]
    Tls,
    /// The connection was closed without a reply.
    #[error("it closed the connection without a reply: it may be no Valkey or Redis server, or expect TLS")]
    Closed,
    /// The connection broke before a reply.
    #[error("the connection broke before a reply: {0}")]
    Broken(io::Error),
}

/// Sends a `PING` and reads the reply. That the server asks for a password, is loading or cannot serve is for the client
/// to find out: it only has to be a reply of a Valkey or Redis server.
pub(in crate::valkey) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), GreetingError> {
    // A server that has closed the connection may have said why. What it said can be read although a write fails.
    let written = match stream.write_all(PING).await {
        Ok(()) => stream.flush().await,
        failed => failed,
    };
    let mut reply = Vec::with_capacity(64);
    let end = loop {
        let room = MAX_REPLY.saturating_sub(reply.len());
        match (&mut stream).take(u64::try_from(room).unwrap_or(0)).read_buf(&mut reply).await {
            Ok(0) => break None,
            Ok(_) => {
                if let Some(end) = reply.iter().position(|byte| *byte == b'\n') {
                    break Some(end);
                }
                // Whatever else is at the address may never end its line.
                if !is_reply(&reply) {
                    break None;
                }
            }
            Err(error) if !reply.is_empty() || is_closed(&error) => break None,
            Err(error) => return Err(GreetingError::Broken(written.err().unwrap_or(error))),
        }
    };
    judge(&reply, end)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
}

/// True if this can be the beginning of a reply of one line.
fn is_reply(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'+' | b'-'))
}

/// Whether the reply, with its first line break at `end`, is that of a Valkey or Redis server.
fn judge(reply: &[u8], end: Option<usize>) -> Result<(), GreetingError> {
    let line = || short_line(&String::from_utf8_lossy(reply.get(..end.unwrap_or(reply.len())).unwrap_or_default()));
    match (reply.first(), end) {
        (None, _) => Err(GreetingError::Closed),
        (Some(&TLS_ALERT), _) => Err(GreetingError::Tls),
        (Some(b'-'), _) if end.is_none() || is_refusal(reply) => {
            Err(GreetingError::Refused(line().trim_start_matches('-').to_owned()))
        }
        (Some(b'-'), Some(end)) if end.saturating_add(1) == reply.len() => Ok(()),
        // Some imitations of a server answer so.
        _ if [&b"+PONG\r\n"[..], b"+OK\r\n"].contains(&reply) => Ok(()),
        _ => Err(GreetingError::Foreign(foreign_text(reply, end))),
    }
}

/// What another kind of server said: its first line, or the first bytes of a protocol without lines, such as MySQL's, in
/// which a reader may find its version.
fn foreign_text(reply: &[u8], end: Option<usize>) -> String {
    let line = reply.get(..end.unwrap_or(reply.len())).unwrap_or_default().trim_ascii_end();
    let is_text = !line.is_empty() && !line.iter().any(u8::is_ascii_control);
    let shown = if is_text { line } else { reply.get(..MAX_BINARY).unwrap_or(reply) };
    short_line(&String::from_utf8_lossy(shown))
}

/// True for an error after which the server closes the connection: it has too many clients, or is in protected mode.
/// Other errors are about the `PING`, such as that it needs a login.
fn is_refusal(reply: &[u8]) -> bool {
    [&b"-ERR "[..], b"-DENIED "].iter().any(|code| reply.starts_with(code))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// The result for a server that sends this and closes the connection, if `closes`.
    async fn greeted(said: &[u8], closes: bool) -> Result<(), String> {
        let (mut server, client) = tokio::io::duplex(1 << 20);
        server.write_all(said).await.unwrap();
        let _open = if closes {
            drop(server);
            None
        } else {
            Some(server)
        };
        exchange(client).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_server_may_reply_with_an_error_that_the_client_can_handle() {
        for said in [
            "+PONG\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-NOPERM this user has no permissions\r\n",
            "-LOADING server is loading the dataset in memory\r\n",
            "-MASTERDOWN Link with MASTER is down\r\n",
        ] {
            assert_eq!(greeted(said.as_bytes(), false).await, Ok(()), "{said}");
        }
    }

    #[tokio::test]
    async fn the_words_of_a_server_that_refuses_the_connection_are_kept() {
        for (said, words) in [
            ("-ERR max number of clients reached\r\n", "ERR max number of clients reached"),
            ("-DENIED Valkey is running in protected mode because\r\n", "DENIED Valkey is running"),
            ("-ERR cut", "ERR cut"),
        ] {
            let refused = greeted(said.as_bytes(), true).await.unwrap_err();
            assert!(refused.starts_with("it refuses the connection: ") && refused.contains(words), "{refused}");
        }
    }

    #[tokio::test]
    async fn another_kind_of_server_is_told_by_what_it_says() {
        for (said, words) in [
            (&b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"[..], "it said `HTTP/1.1 400 Bad Request`"),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", "it said `SSH-2.0-OpenSSH_9.2p1`"),
            (b"ERROR\r\n", "it said `ERROR`"),
            (b"J\0\0\0\n8.0.36\0\x08\0\0\0", "it said `J\\u{0}\\u{0}\\u{0}\\n8.0.36\\u{0}"),
            (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", "it said `* OK"),
            (b"220 mail.example.com ESMTP\r\n", "it said `220 mail"),
            (b"+OK POP3 ready\r\n", "it said `+OK POP3 ready`"),
            (b"$4\r\nPONG\r\n", "it said `$4`"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS"),
            (b"", "closed the connection without a reply"),
        ] {
            for closes in [true, false] {
                if said.is_empty() && !closes {
                    continue;
                }
                let refused = greeted(said, closes).await.unwrap_err();
                assert!(refused.contains(words), "{refused}");
            }
        }
    }

    #[tokio::test]
    async fn text_of_a_server_is_one_short_line_without_control_characters() {
        let mut said = b"-ERR \x1b[31mred\x07\r".to_vec();
        said.resize(100 << 10, b'x');
        let refused = greeted(&said, false).await.unwrap_err();
        assert!(refused.len() < 400 && !refused.contains(char::is_control), "{refused}");
        assert!(refused.contains("\\u{1b}[31mred"), "{refused}");
    }

    /// Bytes without an end and without a line break.
    #[tokio::test]
    async fn no_more_than_a_line_is_read() {
        for first in [b'-', b'+', b'x', b'*'] {
            let (mut server, client) = tokio::io::duplex(16);
            let endless = tokio::spawn(async move {
                let mut sent = 0_usize;
                while server.write_all(&[first; 16]).await.is_ok() {
                    sent = sent.saturating_add(16);
                }
                sent
            });
            assert!(exchange(client).await.is_err());
            assert!(endless.await.unwrap() <= MAX_REPLY + 64);
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_waited_for() {
        let (_server, client) = tokio::io::duplex(64);
        let mut greeting = pin!(exchange(client));
        assert!(futures_util::poll!(greeting.as_mut()).is_pending());
    }
}
