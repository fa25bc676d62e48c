//! Carries out cache operations that it reads from standard input, and answers each line with a line.
//!
//! `get K`, `set K V`, `get-or-set K V`, `compute K V`, `clear K`, `clear-pattern P`, `clear-all`; words are divided by
//! one space. So a test can change the world between two operations of one plugin.

use larder::{Cache, Duration, Entry, Error};

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        println!("{}", carry_out(&cache, &words).unwrap_or_else(|error| format!("error {error:?}")));
    }
    Ok(())
}

fn carry_out(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get", key] => show(cache.get_bytes(key)?),
        ["get-many", keys @ ..] => cache.get_many_bytes(keys)?.into_iter().map(show).collect::<Vec<_>>().join(" "),
        ["set", key, value] => cache.set_bytes(key, value.as_bytes()).map(|()| "ok".to_owned())?,
        ["get-or-set", key, value] => match cache.entry(key)? {
            Entry::Occupied(found) => show(Some(found)),
            Entry::Vacant(vacancy) => match vacancy.fill(value.as_bytes(), Duration::Default) {
                Ok(stored) => format!("vacant, filled {stored}"),
                Err(error) => format!("vacant, error {error:?}"),
            },
        },
        ["compute", key, value] => cache.get_or_set(key, Duration::Default, || format!("computed {value}"))?,
        ["clear", key] => cache.clear(key)?.to_string(),
        ["clear-pattern", pattern] => cache.clear_pattern(pattern)?.to_string(),
        ["clear-all"] => cache.clear_all()?.to_string(),
        other => panic!("no such operation: {other:?}"),
    })
}

fn show(value: Option<Vec<u8>>) -> String {
    value.map_or("miss".to_owned(), |value| format!("hit {}", String::from_utf8_lossy(&value)))
}
