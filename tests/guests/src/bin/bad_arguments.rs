//! Breaks every rule for arguments in every call, and asserts that the call returns the right error and changes nothing.

use larder::{Cache, Duration, Entry, Error};

const MEBIBYTE: usize = 1 << 20;

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    keys(&cache)?;
    values(&cache)?;
    durations(&cache)?;
    patterns(&cache)?;
    batches(&cache)?;
    println!("all refused");
    Ok(())
}

/// Asserts that the outcome is an `InvalidArgument` that contains these words.
fn refused<T>(outcome: Result<T, Error>, words: &str) {
    match outcome {
        Err(Error::InvalidArgument(rule)) => assert!(rule.contains(words), "`{rule}` lacks `{words}`"),
        Err(other) => panic!("{other:?} instead of `{words}`"),
        Ok(_) => panic!("no error instead of `{words}`"),
    }
}

fn keys(cache: &Cache) -> Result<(), Error> {
    let too_long = "k".repeat(1025);
    let bad = [
        ("", "key: must not be empty"),
        (too_long.as_str(), "key: must not be longer than 1024 bytes, but has 1025"),
        ("a\nb", "key: must not hold control characters"),
        ("\0", "key: must not hold control characters"),
        ("other\u{1f}key", "key: must not hold control characters"),
        ("\u{7f}", "key: must not hold control characters"),
    ];
    for (key, words) in bad {
        refused(cache.get_bytes(key), words);
        refused(cache.get_many_bytes(&["good", key]), words);
        refused(cache.set_bytes(key, b"v"), words);
        refused(cache.set_many(&[("good", 1), (key, 2)], Duration::Default), words);
        refused(cache.entry(key), words);
        refused(cache.clear(key), words);
    }
    assert_eq!(cache.get_bytes("good")?, None, "a refused batch stores nothing");
    for key in ["k".repeat(1024), "ä".repeat(512), " ".to_owned(), "*?[\\]{}".to_owned()] {
        cache.set_bytes(&key, b"v")?;
        assert_eq!(cache.get_bytes(&key)?.as_deref(), Some(b"v".as_slice()));
        assert!(cache.clear(&key)?);
    }
    Ok(())
}

fn values(cache: &Cache) -> Result<(), Error> {
    let too_large = vec![b'x'; MEBIBYTE + 1];
    let limit = Error::ValueTooLarge(MEBIBYTE as u64);
    cache.set_bytes("large", b"before")?;
    assert_eq!(cache.set_bytes("large", &too_large), Err(limit.clone()));
    assert_eq!(cache.get_bytes("large")?.as_deref(), Some(b"before".as_slice()), "a refused value changes nothing");
    let text = "x".repeat(MEBIBYTE);
    let outcome = cache.set_many(&[("small", "x"), ("large", text.as_str())], Duration::Default);
    assert_eq!(outcome, Err(limit.clone()), "with its JSON quotes the value exceeds the limit");
    assert_eq!(cache.get_bytes("small")?, None, "a refused batch stores nothing");
    let Entry::Vacant(vacancy) = cache.entry("filled")? else { panic!("`filled` already has a value") };
    assert_eq!(vacancy.fill(&too_large, Duration::Default), Err(limit));
    let computed = cache.get_or_set("computed", Duration::Default, || text.clone())?;
    assert!(computed == text, "the caller gets the value although it cannot be stored");
    assert_eq!(cache.get_bytes("computed")?, None);
    cache.set_bytes("largest", &too_large[1..])?;
    assert_eq!(cache.get_bytes("largest")?.map(|value| value.len()), Some(MEBIBYTE));
    Ok(())
}

fn durations(cache: &Cache) -> Result<(), Error> {
    let words = "duration: must not be zero";
    refused(cache.set_bytes_with_duration("zero", b"v", Duration::Milliseconds(0)), words);
    refused(cache.set_bytes_with_duration("zero", b"v", std::time::Duration::ZERO), words);
    refused(cache.set_many(&[("zero", 1)], Duration::Milliseconds(0)), words);
    let Entry::Vacant(vacancy) = cache.entry("zero")? else { panic!("`zero` already has a value") };
    refused(vacancy.fill(b"v", Duration::Milliseconds(0)), words);
    assert_eq!(cache.get_bytes("zero")?, None);
    for duration in [Duration::Milliseconds(u64::MAX), Duration::Milliseconds(i64::MAX as u64), Duration::Unlimited] {
        cache.set_bytes_with_duration("for-ever", b"v", duration)?;
        assert_eq!(cache.get_bytes("for-ever")?.as_deref(), Some(b"v".as_slice()), "{duration:?}");
        assert!(cache.clear("for-ever")?);
        let Entry::Vacant(vacancy) = cache.entry("for-ever")? else { panic!("`for-ever` has a value after a clear") };
        assert!(vacancy.fill(b"v", duration)?, "{duration:?}");
        assert!(cache.clear("for-ever")?, "{duration:?}");
        cache.set_many(&[("for-ever", 1)], duration)?;
        assert_eq!(cache.get("for-ever")?, Some(1), "{duration:?}");
        assert!(cache.clear("for-ever")?, "{duration:?}");
    }
    Ok(())
}

fn patterns(cache: &Cache) -> Result<(), Error> {
    refused(cache.clear_pattern(""), "pattern: must not be empty");
    refused(cache.clear_pattern("*".repeat(1025)), "pattern: must not be longer than 1024 bytes, but has 1025");
    refused(cache.clear_pattern("a\u{1f}*"), "pattern: must not hold control characters");
    refused(cache.clear_pattern("\u{7f}"), "pattern: must not hold control characters");
    // A matcher with exponential backtracking would not finish.
    let long = "a".repeat(1024);
    cache.set_bytes(&long, b"v")?;
    assert_eq!(cache.clear_pattern("*".repeat(1000) + "b")?, 0);
    assert_eq!(cache.clear_pattern("*a".repeat(500) + "b")?, 0);
    assert_eq!(cache.clear_pattern("?".repeat(1023))?, 0);
    assert_eq!(cache.clear_pattern("[")?, 0);
    assert!(cache.get_bytes(&long)?.is_some());
    assert!(cache.clear_pattern("*".repeat(1000))? >= 1);
    assert_eq!(cache.get_bytes(&long)?, None);
    Ok(())
}

fn batches(cache: &Cache) -> Result<(), Error> {
    let keys: Vec<String> = (0..1025).map(|n| format!("batch:{n}")).collect();
    refused(cache.get_many_bytes(&keys), "keys: must not be more than 1024, but are 1025");
    let entries: Vec<(&str, usize)> = keys.iter().map(String::as_str).zip(0..).collect();
    refused(cache.set_many(&entries, Duration::Default), "entries: must not be more than 1024, but are 1025");
    cache.set_many(&entries[1..], Duration::Default)?;
    let found = cache.get_many::<usize>(&keys[1..])?;
    assert!(found.into_iter().eq((1..1025).map(Some)));
    assert_eq!(cache.get_bytes("batch:0")?, None);
    Ok(())
}
