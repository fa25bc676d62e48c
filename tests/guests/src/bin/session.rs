//! Carries out cache operations that it reads from standard input, and answers each line with a line.
//!
//! `get K`, `set K V`, `get-or-set K V`, `compute K V`, `clear K`, `clear-pattern P`, `clear-all`; words are divided by
//! one space. So a test can change the world between two operations of one plugin.
//!
//! A vacancy that `take K` was given is held until `fill K V` or `drop K`, or until `trap` ends the plugin on the spot.
//! `slow K V MS` computes V within a get-or-set, which takes it so many milliseconds.

use std::collections::HashMap;

use larder::{Cache, Duration, Entry, Error, Vacancy};
use larder_test_guests::{describe, show, trap};

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    let mut held = HashMap::new();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        println!("{}", carry_out(&cache, &mut held, &words).unwrap_or_else(|error| describe(&error)));
    }
    Ok(())
}

fn carry_out(cache: &Cache, held: &mut HashMap<String, Vacancy>, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get-or-set", key, value] => match cache.entry(key)? {
            Entry::Occupied(found) => show(Some(found)),
            Entry::Vacant(vacancy) => match vacancy.fill(value.as_bytes(), Duration::Default) {
                Ok(stored) => format!("vacant, filled {stored}"),
                Err(error) => format!("vacant, {}", describe(&error)),
            },
        },
        ["compute", key, value] => cache.get_or_set(key, Duration::Default, || format!("computed {value}"))?,
        ["take", key] => match cache.entry(key)? {
            Entry::Occupied(found) => show(Some(found)),
            Entry::Vacant(vacancy) => {
                held.insert((*key).to_owned(), vacancy);
                "vacant".to_owned()
            }
        },
        ["fill", key, value] => match held.remove(*key) {
            Some(vacancy) => format!("filled {}", vacancy.fill(value.as_bytes(), Duration::Default)?),
            None => "no vacancy".to_owned(),
        },
        ["drop", key] => held.remove(*key).map_or("no vacancy", |_dropped| "dropped").to_owned(),
        ["trap"] => trap(),
        words => larder_test_guests::carry_out(cache, words)?,
    })
}
