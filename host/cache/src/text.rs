//! Rules for untrusted text: what keys, namespaces and patterns may contain, and how text is printed.

use crate::error::CacheError;

/// Escapes control characters, line and paragraph separators and what changes the direction of text, so that untrusted
/// text cannot begin a new line in a log, send control sequences to a terminal, or show its parts in another order.
pub fn one_line(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || changes_layout(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The most characters that a message shows of another program's text.
const MAX_SHOWN: usize = 300;

/// [`one_line`] of the beginning of a text of any length that another program sent. Shows at most 300 characters.
pub fn short_line(text: &str) -> String {
    let text = text.trim_end();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", one_line(text.get(..end).unwrap_or_default())),
        None => one_line(text),
    }
}

/// True for the characters that are no control characters and yet change where others are shown: U+2028 and U+2029, which
/// separate lines and paragraphs, and those with the Unicode property `Bidi_Control`.
pub fn changes_layout(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_another_program_is_cut_and_escaped() {
        assert_eq!(short_line("ERR no\r\n"), "ERR no");
        assert_eq!(short_line("a\nb\x1b[31m"), "a\\nb\\u{1b}[31m");
        let cut = short_line(&"ü".repeat(100_000));
        assert_eq!(cut.chars().count(), 301);
        assert!(cut.ends_with('…'));
    }

    #[test]
    fn one_line_has_no_character_that_breaks_or_reorders_it() {
        let unsafe_characters = "\n\r\t\0\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\
                                 \u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        for character in unsafe_characters.chars() {
            assert_eq!(one_line(&format!("a{character}b")), format!("a{}b", character.escape_default()));
        }
        let text = "Größe: 5 µs, עברית, עִבְרִית, 👨\u{200d}👩, \u{200b}\u{200c}";
        assert_eq!(one_line(text), text);
    }
}
