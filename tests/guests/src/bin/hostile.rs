//! Reaches and exceeds limits. Each argument is one operation, and the plugin prints one result per operation.
//!
//! The operations are `handles`, `vacancies`, `key N`, `pattern N`, `batch N`, `batch-bytes KEYS BYTES`, `write STREAM N`,
//! `flood N BYTES`, `fail N`, `compute`, `compute-and-call`, `sleep MS`, `hold`, `hold K MS`, and those of
//! `larder_test_guests::execute`. One space separates the words. An operation may end with ` => RESULT`: then the result
//! must be this, and is not printed.

use std::hint::black_box;
use std::io::Write;
use std::time::Duration as StdDuration;

use larder::{Cache, Duration, Entry, Error};
use larder_test_guests::{execute, format_error};

fn main() {
    let cache = Cache::default().expect("a default cache");
    for operation in std::env::args().skip(1) {
        let (operation, expected) = match operation.split_once(" => ") {
            Some((operation, expected)) => (operation, Some(expected)),
            None => (operation.as_str(), None),
        };
        let words: Vec<&str> = operation.split(' ').collect();
        let outcome = attack(&cache, &words).unwrap_or_else(|error| format_error(&error));
        if let Some(expected) = expected {
            assert_eq!(outcome, expected, "{operation}");
        } else if !outcome.is_empty() {
            println!("{outcome}");
        }
    }
}

fn attack(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["handles"] => {
            let (held, error) = hoard(|_| Cache::default());
            // The handle that all operations use counts too.
            format!("{} {}", held.len() + 1, format_error(&error))
        }
        ["vacancies"] => {
            let (mut held, error) = hoard(|n| cache.entry(format!("key:{n}")));
            let count = held.len();
            // Dropping one vacancy allows another.
            held.pop();
            let Entry::Vacant(_another) = cache.entry("another")? else { panic!("`another` has a value") };
            format!("{count} {}", format_error(&error))
        }
        ["key", bytes] => cache.set_bytes("k".repeat(number(bytes)), b"v").map(|()| "ok".to_owned())?,
        ["pattern", bytes] => cache.clear_pattern("p".repeat(number(bytes)))?.to_string(),
        ["batch", keys] => {
            let keys: Vec<String> = (0..number(keys)).map(|n| n.to_string()).collect();
            let entries: Vec<(&str, u8)> = keys.iter().map(|key| (key.as_str(), 1)).collect();
            let stored = cache.set_many(&entries, Duration::Default).map(|()| "ok".to_owned());
            let read = cache.get_many_bytes(&keys).map(|values| values.len().to_string());
            let say = |outcome: Result<String, Error>| outcome.unwrap_or_else(|error| format_error(&error));
            format!("{} {}", say(stored), say(read))
        }
        // The JSON of a number is its digits, so a number of N digits is a value of N bytes.
        ["batch-bytes", keys, bytes] => {
            let (keys, bytes) = (number(keys), number(bytes));
            let value = 10_u64.pow(u32::try_from(bytes).expect("few digits") - 1);
            let keys: Vec<String> = (0..keys).map(|n| format!("{n:04}")).collect();
            let entries: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), value)).collect();
            cache.set_many(&entries, Duration::Default).map(|()| "ok".to_owned())?
        }
        ["write", stream, bytes] => {
            let text = vec![b'x'; number(bytes)];
            match *stream {
                "stdout" => std::io::stdout().write_all(&text).and_then(|()| std::io::stdout().flush()),
                _ => std::io::stderr().write_all(&text),
            }
            .expect("can write");
            String::new()
        }
        ["flood", count, bytes] => {
            let value = vec![b'x'; number(bytes)];
            (0..number(count)).try_for_each(|n| cache.set_bytes(format!("flood:{n}"), &value))?;
            "flooded".to_owned()
        }
        ["fail", count] => {
            let failed = (0..number(count)).filter(|n| cache.set_bytes(format!("k{n}"), b"v").is_err()).count();
            format!("{failed} failed")
        }
        ["compute"] => loop {
            black_box(());
        },
        ["compute-and-call"] => loop {
            cache.get_bytes("k")?;
        },
        ["sleep", ms] => {
            std::thread::sleep(StdDuration::from_millis(number(ms) as u64));
            "slept".to_owned()
        }
        // Holds the vacancy of `slow` until enough instances of this plugin wait for it that a read exceeds the limit on
        // concurrent calls. Then it fills the vacancy.
        ["hold"] => {
            let Entry::Vacant(vacancy) = cache.entry("slow")? else { panic!("`slow` already has a value") };
            cache.set_bytes("held", b"")?;
            let refusal = loop {
                match cache.get_bytes("held") {
                    Ok(_) => std::thread::sleep(StdDuration::from_millis(1)),
                    Err(refusal) => break refusal,
                }
            };
            assert!(vacancy.fill(b"\"held\"", Duration::Default)?);
            format_error(&refusal)
        }
        // Holds the vacancy of a key for a number of milliseconds, and fills it.
        ["hold", key, ms] => {
            let Entry::Vacant(vacancy) = cache.entry(key)? else { panic!("`{key}` already has a value") };
            std::thread::sleep(StdDuration::from_millis(number(ms) as u64));
            format!("filled {}", vacancy.fill(b"v", Duration::Default)?)
        }
        words => execute(cache, words)?,
    })
}

/// Calls `take` until it fails, and returns everything it took and the error.
fn hoard<T>(take: impl Fn(usize) -> Result<T, Error>) -> (Vec<T>, Error) {
    let mut held = Vec::new();
    loop {
        match take(held.len()) {
            Ok(another) => held.push(another),
            Err(error) => return (held, error),
        }
        assert!(held.len() < 100_000, "the host enforces no limit");
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}
