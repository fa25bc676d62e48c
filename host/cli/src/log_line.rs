//! The lines of the log: cut to a bounded length, and queued for stderr without waiting for its reader.

use std::io;

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
        match (beginning(line), self.0) {
            (None, _) => console::write(Stream::Stderr, line),
            (Some(beginning), LogFormat::Text) => console::write(Stream::Stderr, format!("{beginning} …\n").as_bytes()),
            (Some(beginning), LogFormat::Json) => {
                let message = format!("a log line of {} bytes was cut", line.len());
                let object = serde_json::json!({ "level": "WARN", "message": message, "beginning": beginning });
                console::write(Stream::Stderr, format!("{object}\n").as_bytes());
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The beginning of a line that is too long.
fn beginning(line: &[u8]) -> Option<String> {
    let beginning = line.get(..MAX_LINE).filter(|_| line.len() > MAX_LINE)?;
    Some(beginning.utf8_chunks().next().map(|chunk| chunk.valid().to_owned()).unwrap_or_default())
}

/// Prints a message on stderr as one line, after the name of the program.
pub(crate) fn print_error(message: &str) {
    // Names in a plugin's file are part of some messages. A line break in a name must not forge a log line.
    let line = format!("larder: {}\n", larder_host::cache::text::one_line(message));
    let _taken = io::Write::write(&mut LogWriter(LogFormat::Text), line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(beginning("é".repeat(MAX_LINE / 2).as_bytes()), None);
        let cut = beginning(format!("a{}", "é".repeat(MAX_LINE)).as_bytes()).unwrap();
        assert_eq!(cut.len(), MAX_LINE - 1);
    }
}
