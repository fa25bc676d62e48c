//! Stores values that a faulty cache could change or take for a miss, and asserts that they are returned unchanged.

use std::fmt::Debug;

use larder::{Cache, Duration, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;

    let every_byte: Vec<u8> = (0..=255).collect();
    let mebibyte: Vec<u8> = every_byte.iter().rev().copied().cycle().take(1 << 20).collect();
    for (key, value) in [("empty", Vec::new()), ("binary", every_byte), ("mebibyte", mebibyte)] {
        assert_eq!(cache.get_bytes(key)?, None, "{key} already has a value");
        cache.set_bytes(key, &value)?;
        assert!(cache.get_bytes(key)? == Some(value), "{key} was returned changed");
    }

    survives(&cache, "true", &true)?;
    survives(&cache, "false", &false)?;
    survives(&cache, "null", &Value::Null)?;
    survives(&cache, "none", &None::<u8>)?;
    survives(&cache, "empty-text", &String::new())?;
    survives(&cache, "zero", &0_u64)?;
    survives(&cache, "empty-list", &Vec::<u8>::new())?;
    outdated_bytes_are_like_a_miss(&cache)?;
    println!("as stored");
    Ok(())
}

/// Asserts that each typed call returns the value, and that `get_or_set` does not compute it again.
fn survives<T>(cache: &Cache, key: &str, value: &T) -> Result<(), Error>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + Clone,
{
    assert_eq!(cache.get::<T>(key)?, None, "{key} already has a value");
    let computed = cache.get_or_set(key, Duration::Default, || value.clone())?;
    assert_eq!(&computed, value);
    assert_eq!(cache.get::<T>(key)?.as_ref(), Some(value), "{key} after `get_or_set`");
    cache.set(key, value)?;
    assert_eq!(cache.get::<T>(key)?.as_ref(), Some(value), "{key} after `set`");
    assert_eq!(cache.get_many::<T>(&[key])?, [Some(value.clone())], "{key} by `get_many`");
    let mut is_computed = false;
    let found = cache.get_or_set(key, Duration::Default, || {
        is_computed = true;
        value.clone()
    })?;
    assert_eq!((&found, is_computed), (value, false), "{key} on a hit");
    Ok(())
}

/// Asserts that `get_or_set` computes a value again if the stored bytes have another type, and that a set or clear during
/// the computation wins, as on a miss.
fn outdated_bytes_are_like_a_miss(cache: &Cache) -> Result<(), Error> {
    cache.set_bytes("outdated", b"not json")?;
    assert_eq!(cache.get_or_set("outdated", Duration::Default, || 1)?, 1);
    assert_eq!(cache.get::<u32>("outdated")?, Some(1));

    cache.set_bytes("outdated", b"not json")?;
    let computed = cache.get_or_set("outdated", Duration::Default, || {
        cache.set("outdated", &7).expect("can set");
        1
    })?;
    assert_eq!((computed, cache.get::<u32>("outdated")?), (1, Some(7)), "a set during the computation wins");

    cache.set_bytes("outdated", b"not json")?;
    let computed = cache.get_or_set("outdated", Duration::Default, || {
        cache.clear("outdated").expect("can clear");
        1
    })?;
    assert_eq!((computed, cache.get::<u32>("outdated")?), (1, None), "a clear during the computation wins");
    Ok(())
}
