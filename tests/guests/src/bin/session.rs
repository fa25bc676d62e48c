//! Executes cache operations from standard input, and prints one line per operation. A test can therefore change the
//! environment between two operations of one plugin instance.
//!
//! The operations are `get-or-set K V`, `compute K V`, `take K`, `refresh K`, `fill K V`, `drop K`, `churn K N`, `trap`,
//! and those of `larder_test_guests::execute`. One space separates the words. `take` and `refresh` hold a vacancy until
//! `fill`, `drop` or `trap`. For `refresh` every value that expires is stale.

use std::collections::HashMap;

use larder::{Cache, Duration, Entry, Error, Freshness, Vacancy};
use larder_test_guests::{format_error, format_value, trap};

const LONGER_THAN_ANY_LIFE: Duration = Duration::Milliseconds(24 * 60 * 60 * 1000);

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    let mut held = HashMap::new();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        println!("{}", execute(&cache, &mut held, &words).unwrap_or_else(|error| format_error(&error)));
    }
    Ok(())
}

fn execute(cache: &Cache, held: &mut HashMap<String, Vacancy>, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get-or-set", key, value] => match cache.entry(key)? {
            Entry::Occupied(found) => format_value(Some(found)),
            Entry::Vacant(vacancy) => match vacancy.fill(value.as_bytes(), Duration::Default) {
                Ok(stored) => format!("vacant, filled {stored}"),
                Err(error) => format!("vacant, {}", format_error(&error)),
            },
        },
        ["compute", key, value] => cache.get_or_set(key, Duration::Default, || format!("computed {value}"))?,
        ["take", key] => match cache.entry(key)? {
            Entry::Occupied(found) => format_value(Some(found)),
            Entry::Vacant(vacancy) => {
                held.insert((*key).to_owned(), vacancy);
                "vacant".to_owned()
            }
        },
        ["refresh", key] => match cache.freshness(key, LONGER_THAN_ANY_LIFE)? {
            Freshness::Fresh(found) | Freshness::Stale { value: found, refresh: None } => format_value(Some(found)),
            Freshness::Stale { value, refresh: Some(vacancy) } => {
                held.insert((*key).to_owned(), vacancy);
                format!("stale {}", String::from_utf8_lossy(&value))
            }
            Freshness::Vacant(vacancy) => {
                held.insert((*key).to_owned(), vacancy);
                "vacant".to_owned()
            }
        },
        ["fill", key, value] => match held.remove(*key) {
            Some(vacancy) => format!("filled {}", vacancy.fill(value.as_bytes(), Duration::Default)?),
            None => "no vacancy".to_owned(),
        },
        ["drop", key] => held.remove(*key).map_or("no vacancy", |_dropped| "dropped").to_owned(),
        // Takes and drops the vacancy of a key a number of times.
        ["churn", key, times] => {
            for _ in 0..times.parse().expect("a number") {
                let Entry::Vacant(_dropped) = cache.entry(key)? else { panic!("`{key}` has a value") };
            }
            "churned".to_owned()
        }
        ["trap"] => trap(),
        words => larder_test_guests::execute(cache, words)?,
    })
}
