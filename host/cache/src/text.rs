//! Untrusted text in one line of output.

/// Escapes control characters, so that untrusted text cannot start a line of its own in a log or a terminal.
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
