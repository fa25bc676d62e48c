//! Durations as text, such as `"90s"` or `"1h 30m"`.

use std::time::Duration;

/// The units and their lengths in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses whole numbers with a unit each, which may be separated by spaces. `None` if the text is anything else, or zero.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text.trim(), 0_u64);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?);
        let end = after.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*length)?)?;
        rest = after.trim_start();
    }
    (total > 0).then(|| Duration::from_millis(total))
}
