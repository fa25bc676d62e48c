//! Carries out cache operations that it reads from standard input, and answers each line with a line.
//!
//! `get K`, `set K V`, `get-or-set K V`, `compute K V`, `clear K`, `clear-pattern P`, `clear-all`; words are divided by
//! one space. So a test can change the world between two operations of one plugin.

use larder::{Cache, Duration, Entry, Error};
use larder_test_guests::{describe, show};

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        println!("{}", carry_out(&cache, &words).unwrap_or_else(|error| describe(&error)));
    }
    Ok(())
}

fn carry_out(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get-or-set", key, value] => match cache.entry(key)? {
            Entry::Occupied(found) => show(Some(found)),
            Entry::Vacant(vacancy) => match vacancy.fill(value.as_bytes(), Duration::Default) {
                Ok(stored) => format!("vacant, filled {stored}"),
                Err(error) => format!("vacant, {}", describe(&error)),
            },
        },
        ["compute", key, value] => cache.get_or_set(key, Duration::Default, || format!("computed {value}"))?,
        words => larder_test_guests::carry_out(cache, words)?,
    })
}
