//! What the plugins that carry out written operations have in common.

use larder::{Cache, Error};

/// Carries out `get K`, `get-many K …`, `set K V`, `clear K`, `clear-pattern P` or `clear-all`, and says what came of it.
pub fn carry_out(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get", key] => show(cache.get_bytes(key)?),
        ["get-many", keys @ ..] => cache.get_many_bytes(keys)?.into_iter().map(show).collect::<Vec<_>>().join(" "),
        ["set", key, value] => cache.set_bytes(key, value.as_bytes()).map(|()| "ok".to_owned())?,
        ["clear", key] => cache.clear(key)?.to_string(),
        ["clear-pattern", pattern] => cache.clear_pattern(pattern)?.to_string(),
        ["clear-all"] => cache.clear_all()?.to_string(),
        other => panic!("no such operation: {other:?}"),
    })
}

/// A value, or that there is none.
pub fn show(value: Option<Vec<u8>>) -> String {
    value.map_or("miss".to_owned(), |value| format!("hit {}", String::from_utf8_lossy(&value)))
}

/// An error by its name.
pub fn describe(error: &Error) -> String {
    format!("error {error:?}")
}
