//! Rules for untrusted text: what keys, namespaces and patterns may contain, and how text is printed.

use crate::error::CacheError;

/// Escapes control characters, so that untrusted text cannot begin a new line in a log or send control sequences to a
/// terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Checks a key, a namespace or a pattern: 1 to `max` bytes without control characters.
pub(crate) fn check_text(argument: &str, text: &str, max: usize) -> Result<(), CacheError> {
    // A fold has no early exit, so the compiler can check many bytes at once.
    let has_control = || text.bytes().fold(false, |found, byte| found | byte.is_ascii_control());
    let broken = if text.is_empty() {
        "must not be empty".to_owned()
    } else if text.len() > max {
        format!("must not be longer than {max} bytes, but has {}", text.len())
    } else if has_control() {
        "must not hold control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(CacheError::InvalidArgument(format!("{argument}: {broken}")))
}
