//! The host and the SDK's in-memory host for tests have the same limits.

use std::sync::Arc;

use larder::testing;
use larder_host::cache::ram::RamBackend;
use larder_host::cache::{Access, Cache, Duration, Owner, Policy, ScopedCache};

use super::testing::{as_the_plugin_gets_it, convert};

/// A call whose arguments are at a limit, or over it.
#[derive(Debug)]
enum AtLimit {
    Get(String),
    GetMany(Vec<String>),
    Set(String, Vec<u8>, Duration),
    SetMany(Vec<(String, Vec<u8>)>, Duration),
    Take(String),
    Clear(String),
    ClearPattern(String),
}

impl AtLimit {
    fn on_the_sdks_host(&self, cache: &larder::Cache) -> Result<(), larder::Error> {
        match self {
            Self::Get(key) => cache.get_bytes(key).map(drop),
            Self::GetMany(keys) => cache.get_many_bytes(keys).map(drop),
            Self::Set(key, value, duration) => cache.set_bytes_with_duration(key, value, convert(*duration)),
            Self::SetMany(entries, duration) => cache.set_many_bytes(entries, convert(*duration)),
            Self::Take(key) => cache.entry(key).map(drop),
            Self::Clear(key) => cache.clear(key).map(drop),
            Self::ClearPattern(pattern) => cache.clear_pattern(pattern).map(drop),
        }
    }

    async fn on_the_host(&self, cache: &ScopedCache) -> Result<(), larder::Error> {
        let outcome = match self {
            Self::Get(key) => cache.get(key).await.map(drop),
            Self::GetMany(keys) => cache.get_many(keys).await.map(drop),
            Self::Set(key, value, duration) => cache.set(key, value.clone().into(), *duration).await,
            Self::SetMany(entries, duration) => cache.set_many(entries.clone(), *duration).await,
            Self::Take(key) => cache.get_or_set(key).await.map(drop),
            Self::Clear(key) => cache.clear(key).await.map(drop),
            Self::ClearPattern(pattern) => cache.clear_pattern(pattern).await.map(drop),
        };
        outcome.map_err(as_the_plugin_gets_it)
    }
}

/// Texts of every length around the limits, with every control character, and with characters of several bytes.
fn texts() -> Vec<String> {
    let lengths = [0, 1, 1023, 1024, 1025, 100_000].map(|length| "k".repeat(length));
    let long = [format!("{}é", "k".repeat(1022)), format!("{}é", "k".repeat(1023))];
    let control = (0..0x21).chain(0x7e..0xa1).map(|code| format!("a{}b", char::from_u32(code).unwrap()));
    let patterns = ["*", "[a-é]", "[é-a]", "[^a-é]", "[\\a-é]", "[a\\-é]", "[é-ü]", "[", "\\", "[]é-a]", "x[a-é"]
        .map(str::to_owned);
    lengths.into_iter().chain(long).chain(control).chain(patterns).collect()
}

fn calls_at_limits() -> Vec<AtLimit> {
    let mut calls = Vec::new();
    for text in texts() {
        calls.extend(
            [AtLimit::Get, AtLimit::Take, AtLimit::Clear, AtLimit::ClearPattern].map(|call| call(text.clone())),
        );
        calls.push(AtLimit::GetMany(vec!["k".to_owned(), text.clone()]));
        calls.push(AtLimit::SetMany(vec![(text.clone(), b"v".to_vec())], Duration::Default));
        calls.push(AtLimit::Set(text, b"v".to_vec(), Duration::Default));
    }
    let values = [0, 1 << 20, (1 << 20) + 1].map(|length| vec![b'v'; length]);
    let marked = [&b"\0larder-lease:"[..], b"\0larder-lease:x", b"\0larder-lease"].map(<[u8]>::to_vec);
    for value in values.into_iter().chain(marked) {
        calls.push(AtLimit::SetMany(vec![("k".to_owned(), value.clone())], Duration::Default));
        calls.push(AtLimit::Set("k".to_owned(), value, Duration::Unlimited));
    }
    for milliseconds in [0, 1, u64::MAX] {
        let duration = Duration::Milliseconds(milliseconds);
        calls.push(AtLimit::Set("k".to_owned(), Vec::new(), duration));
        calls.push(AtLimit::SetMany(Vec::new(), duration));
        // Of two mistakes both name the same one.
        calls.push(AtLimit::Set(String::new(), vec![b'v'; (1 << 20) + 1], duration));
        calls.push(AtLimit::SetMany(vec![(String::new(), vec![b'v'; (1 << 20) + 1])], duration));
    }
    for count in [1024, 1025] {
        calls.push(AtLimit::GetMany(vec!["k".to_owned(); count]));
        calls.push(AtLimit::SetMany(vec![("k".to_owned(), Vec::new()); count], Duration::Default));
        calls.push(AtLimit::GetMany(vec![String::new(); count]));
    }
    // The keys and values of a batch are 8 MiB, and a byte more.
    for more in [0, 1] {
        let mut entries = vec![("k".to_owned(), vec![b'v'; (1 << 20) - 1]); 8];
        entries.extend((0..more).map(|_| ("k".to_owned(), Vec::new())));
        calls.push(AtLimit::SetMany(entries, Duration::Default));
    }
    calls.push(AtLimit::GetMany(vec!["k".repeat(8193); 1024]));
    calls
}

#[tokio::test]
async fn the_sdks_host_for_tests_has_the_limits_of_the_host() {
    testing::reset();
    let fake = larder::Cache::open("c").unwrap();
    let policy = Policy::default();
    let ram = RamBackend::new(64 << 20, policy.max_value_bytes, &[]);
    let real = ScopedCache::new(Arc::new(Cache::new("c", ram, policy)), None, Access::ReadWrite, Owner::new());
    let mut refused = 0;
    for call in calls_at_limits() {
        let outcome = call.on_the_sdks_host(&fake);
        refused += usize::from(outcome.is_err());
        let shown: String = format!("{call:?}").chars().take(200).collect();
        assert_eq!(outcome, call.on_the_host(&real).await, "{shown}");
    }
    // Each of 33 control characters is refused by seven calls.
    assert!(refused > 33 * 7, "{refused}");
}
