//! Carries out cache operations given as arguments, one each, and prints what came of it, one line each.
//!
//! `get K`, `set K V [MS]`, `get-or-set K V`, `clear K`, `clear-pattern P`, `clear-all`, `open NAME`, `open-default`
//! ...; words are divided by one space. The first operation works on the default cache.

use larder::{Cache, Duration, Entry, Error};

fn main() {
    let mut cache = Cache::default();
    for operation in std::env::args().skip(1) {
        let words: Vec<&str> = operation.split(' ').collect();
        match words.as_slice() {
            ["open", name] => cache = Cache::open(name),
            ["open-default"] => cache = Cache::default(),
            words => match &cache {
                Ok(cache) => println!("{}", carry_out(cache, words).unwrap_or_else(|error| describe(&error))),
                Err(error) => println!("{}", describe(error)),
            },
        }
    }
    if let Err(error) = cache {
        println!("{}", describe(&error));
    }
}

fn carry_out(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get", key] => show(cache.get_bytes(key)?),
        ["get-many", keys @ ..] => cache.get_many_bytes(keys)?.into_iter().map(show).collect::<Vec<_>>().join(" "),
        ["set", key, value] => cache.set_bytes(key, value.as_bytes()).map(|()| "ok".to_owned())?,
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
            Entry::Occupied(found) => show(Some(found)),
            Entry::Vacant(vacancy) => format!("filled {}", vacancy.fill(value.as_bytes(), Duration::Default)?),
        },
        ["clear", key] => cache.clear(key)?.to_string(),
        ["clear-pattern", pattern] => cache.clear_pattern(pattern)?.to_string(),
        ["clear-all"] => cache.clear_all()?.to_string(),
        other => panic!("no such operation: {other:?}"),
    })
}

fn show(value: Option<Vec<u8>>) -> String {
    value.map_or("miss".to_owned(), |value| format!("hit {}", String::from_utf8_lossy(&value)))
}

fn describe(error: &Error) -> String {
    format!("error {error:?}")
}
