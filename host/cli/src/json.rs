//! Machine-readable output: one JSON object in one line.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

/// The version of the output, its key `schema`. Keys may be added under the same version.
pub(crate) const SCHEMA: u64 = 1;

/// Prints an object on stdout.
///
/// # Errors
///
/// If stdout cannot be written.
pub(crate) fn print(object: &Value) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", text(object))?;
    stdout.flush()
}

/// The object as text. All control characters are escaped, also those that JSON allows in strings, so that nothing can
/// send control sequences to a terminal.
fn text(object: &Value) -> String {
    let mut text = String::new();
    for character in object.to_string().chars() {
        if character.is_control() {
            // Outside of strings there is none.
            let _infallible = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_character_is_escaped_and_read_back() {
        let all: String = (0..0x100_u32).filter_map(char::from_u32).collect();
        let object = serde_json::json!({ "text": all, "é": ["\u{1b}[2J", "\u{9b}2J"] });
        let text = text(&object);
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), object);
    }
}
