//! The lines of the log: cut to a bounded length, and queued for stderr without waiting for its reader.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;

use larder_host::cache::text::{changes_layout, one_line};
use larder_host::console::{self, Stream};

use crate::telemetry::LogFormat;

/// The maximum length of a line in bytes. The log quotes texts that plugins, clients and servers choose.
const MAX_LINE: usize = 8 * 1024;

/// Takes the lines of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogWriter(pub(crate) LogFormat);

impl io::Write for LogWriter {
    /// Takes one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (line, len) = (&*escaped(line, self.0), line.len());
        match (beginning(line), self.0) {
            (None, _) => console::write(Stream::Stderr, line),
            (Some(beginning), LogFormat::Text) => console::write(Stream::Stderr, format!("{beginning} …\n").as_bytes()),
            (Some(beginning), LogFormat::Json) => {
                let message = format!("a log line of {} bytes was cut", line.len());
                let object = serde_json::json!({ "level": "WARN", "message": message, "beginning": beginning });
                console::write(Stream::Stderr, format!("{object}\n").as_bytes());
            }
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line without characters that would show its parts in another order or on another line. They can be part of texts
/// of other crates, too.
fn escaped(line: &[u8], format: LogFormat) -> Cow<'_, [u8]> {
    let text = match std::str::from_utf8(line) {
        Ok(text) if text.contains(changes_layout) => text,
        _ => return Cow::Borrowed(line),
    };
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match format {
            _ if !changes_layout(character) => escaped.push(character),
            LogFormat::Text => escaped.extend(character.escape_default()),
            // Within a string: no other part of JSON has such characters.
            LogFormat::Json => {
                let _infallible = write!(escaped, "\\u{:04x}", u32::from(character));
            }
        }
    }
    Cow::Owned(escaped.into_bytes())
}

/// The beginning of a line that is too long.
fn beginning(line: &[u8]) -> Option<String> {
    let beginning = line.get(..MAX_LINE).filter(|_| line.len() > MAX_LINE)?;
    Some(beginning.utf8_chunks().next().map(|chunk| chunk.valid().to_owned()).unwrap_or_default())
}

/// Prints a message on stderr as one line, after the name of the program.
pub(crate) fn print_error(message: &str) {
    // Names in a plugin's file are part of some messages. A line break in a name must not forge a log line.
    let line = format!("larder: {}\n", one_line(message));
    let _taken = io::Write::write(&mut LogWriter(LogFormat::Text), line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_its_parts_in_their_order() {
        let escaped = |line: &str, format| String::from_utf8(escaped(line.as_bytes(), format).into_owned()).unwrap();
        assert_eq!(escaped("a\u{202e}b\u{2028}c\n", LogFormat::Text), "a\\u{202e}b\\u{2028}c\n");
        let line = escaped("{\"message\":\"a\u{202e}b\"}\n", LogFormat::Json);
        assert_eq!(line, "{\"message\":\"a\\u202eb\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["message"], "a\u{202e}b");
        assert_eq!(escaped("\u{1b}[32mgrün\u{1b}[0m\n", LogFormat::Text), "\u{1b}[32mgrün\u{1b}[0m\n");
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(beginning("é".repeat(MAX_LINE / 2).as_bytes()), None);
        let cut = beginning(format!("a{}", "é".repeat(MAX_LINE)).as_bytes()).unwrap();
        assert_eq!(cut.len(), MAX_LINE - 1);
    }
}
