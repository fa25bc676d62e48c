//! Executes cache operations. Each argument is one operation, and the plugin prints one line per operation.
//!
//! The operations are `set K V [MS]`, `set-large K BYTES`, `get-or-set K V`, `open NAME`, `open-default`, and those of
//! `larder_test_guests::execute`. One space separates the words. The first operation uses the default cache.

use larder::{Cache, Duration, Entry, Error};
use larder_test_guests::{format_error, format_value};

fn main() {
    let mut cache = Cache::default();
    for operation in std::env::args().skip(1) {
        let words: Vec<&str> = operation.split(' ').collect();
        match words.as_slice() {
            ["open", name] => cache = Cache::open(name),
            ["open-default"] => cache = Cache::default(),
            words => match &cache {
                Ok(cache) => println!("{}", execute(cache, words).unwrap_or_else(|error| format_error(&error))),
                Err(error) => println!("{}", format_error(error)),
            },
        }
    }
    if let Err(error) = cache {
        println!("{}", format_error(&error));
    }
}

fn execute(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["set-large", key, bytes] => {
            let value = vec![b'x'; bytes.parse().expect("a number of bytes")];
            cache.set_bytes(key, &value).map(|()| "ok".to_owned())?
        }
        ["set", key, value, ms] => {
            let duration = match *ms {
                "unlimited" => Duration::Unlimited,
                ms => Duration::Milliseconds(ms.parse().expect("a number of milliseconds")),
            };
            cache.set_bytes_with_duration(key, value.as_bytes(), duration).map(|()| "ok".to_owned())?
        }
        ["get-or-set", key, value] => match cache.entry(key)? {
            Entry::Occupied(found) => format_value(Some(found)),
            Entry::Vacant(vacancy) => format!("filled {}", vacancy.fill(value.as_bytes(), Duration::Default)?),
        },
        words => larder_test_guests::execute(cache, words)?,
    })
}
