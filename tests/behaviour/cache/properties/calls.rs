//! The same calls, made of RAM and of a server, are answered alike in every step.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use larder_host::cache::{Cache, CacheError, Duration, Entry, Freshness, ScopedCache, Vacancy, Version};
use larder_tests::Kind;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::cases;
use crate::backends::{Backend, namespaced, view};

pub(crate) const KEYS: [&str; 10] = ["a", "b", "ab", "a:b", "a*", "[ab]", "?", "é", "a\\b", "^-"];
const PATTERNS: [&str; 12] = ["*", "a*", "?", "??", "[ab]", "[^a]*", "\\[ab\\]", "*b", "a\\*", "é", "[a-", "a\\\\*"];
/// A plugin for each, and a second one without a namespace. One looks like a pattern that means the other.
const NAMESPACES: [&str; 2] = ["n", "?"];

/// A value may be too large, and with no wait a call never has to end another's.
pub(crate) const TABLE: &str = "wait = 0\nmax_value_bytes = 32";

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Get(&'static str),
    GetMany(Vec<&'static str>),
    Set(&'static str, u8, Duration),
    SetMany(Vec<(&'static str, u8)>, Duration),
    /// A vacancy is kept until it is filled or dropped.
    GetOrSet(&'static str),
    Fill(&'static str, u8, Duration),
    /// Not among the calls of [`call`]: what a refresh does depends on the time.
    GetOrRefresh(&'static str, Duration),
    FillStale(&'static str, u8, Duration, Duration),
    Drop(&'static str),
    Clear(&'static str),
    ClearPattern(String),
    ClearAll,
    Exists(&'static str),
    /// All pages, sorted.
    ListKeys,
    Increment(&'static str, i64),
    /// Reads the version of a key, which is kept until it is used.
    ReadVersion(&'static str),
    Replace(&'static str, u8, Duration),
    ClearMany(Vec<&'static str>),
}

/// The answer to a call, without the parts that differ between backends.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Value(Option<Vec<u8>>),
    Values(Vec<Option<Vec<u8>>>),
    Vacancy,
    /// A stale value, and whether the caller refreshes it.
    Stale(Vec<u8>, bool),
    Done,
    Stored(bool),
    Cleared(u64),
    Exists(bool),
    Keys(Vec<String>),
    Number(i64),
    Error(CacheError),
    /// The call had no vacancy to work on.
    Idle,
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&KEYS[..])
}

fn pattern() -> impl Strategy<Value = String> {
    let known = prop::sample::select(&PATTERNS[..]).prop_map(str::to_owned);
    prop_oneof![known, "[ab*?\\[\\]^\\\\:é-]{1,5}"]
}

/// Durations that do not end within the test, and one that is refused.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => Just(Duration::Default),
        2 => (600_000..u64::MAX).prop_map(Duration::Milliseconds),
        2 => Just(Duration::Unlimited),
        1 => Just(Duration::Milliseconds(0)),
    ]
}

pub(crate) fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => key().prop_map(Call::Get),
        1 => prop::collection::vec(key(), 0..6).prop_map(Call::GetMany),
        4 => (key(), any::<u8>(), duration()).prop_map(|(key, value, duration)| Call::Set(key, value, duration)),
        1 => (prop::collection::vec((key(), any::<u8>()), 0..6), duration())
            .prop_map(|(entries, duration)| Call::SetMany(entries, duration)),
        5 => key().prop_map(Call::GetOrSet),
        5 => (key(), any::<u8>(), duration()).prop_map(|(key, value, duration)| Call::Fill(key, value, duration)),
        2 => key().prop_map(Call::Drop),
        2 => key().prop_map(Call::Clear),
        2 => pattern().prop_map(Call::ClearPattern),
        1 => Just(Call::ClearAll),
    ]
}

/// The calls of [`call`], and those that only the interfaces of others have.
pub(crate) fn any_call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![4 => -20..20_i64, 1 => any::<i64>()];
    prop_oneof![
        31 => call(),
        2 => key().prop_map(Call::Exists),
        1 => Just(Call::ListKeys),
        4 => (key(), number).prop_map(|(key, delta)| Call::Increment(key, delta)),
        4 => key().prop_map(Call::ReadVersion),
        4 => (key(), any::<u8>(), duration()).prop_map(|(key, value, duration)| Call::Replace(key, value, duration)),
        1 => prop::collection::vec(key(), 0..6).prop_map(Call::ClearMany),
    ]
}

/// The bytes for a number; every ninth value is empty, every tenth too large.
pub(crate) fn value(number: u8) -> Vec<u8> {
    match number {
        n if n % 9 == 0 => Vec::new(),
        n if n % 10 == 0 => vec![n; 33],
        n if n % 7 == 0 => n.to_string().into(),
        n => vec![n, b'\r', b'\n', 0],
    }
}

/// A plugin, and the vacancies it holds.
pub(crate) struct Plugin {
    pub(crate) cache: ScopedCache,
    behind: Arc<Cache>,
    held: HashMap<&'static str, Vacancy>,
    seen: HashMap<&'static str, Option<(Bytes, Version)>>,
}

impl Plugin {
    pub(crate) fn new(cache: ScopedCache, behind: &Arc<Cache>) -> Self {
        Self { cache, behind: Arc::clone(behind), held: HashMap::new(), seen: HashMap::new() }
    }

    pub(crate) async fn make(&mut self, call: &Call) -> Answer {
        let cache = &self.cache;
        let answer = match call {
            Call::Get(key) => cache.get(key).await.map(|value| Answer::Value(value.map(Into::into))),
            Call::GetMany(keys) => {
                let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
                let values = cache.get_many(&keys).await;
                values.map(|values| Answer::Values(values.into_iter().map(|value| value.map(Into::into)).collect()))
            }
            Call::Set(key, number, duration) => {
                cache.set(key, value(*number).into(), *duration).await.map(|()| Answer::Done)
            }
            Call::SetMany(entries, duration) => {
                let entries = entries.iter().map(|&(key, number)| (key.to_owned(), value(number))).collect();
                cache.set_many(entries, *duration).await.map(|()| Answer::Done)
            }
            Call::GetOrSet(key) => match cache.get_or_set(key).await {
                Ok(Entry::Occupied(value)) => Ok(Answer::Value(Some(value.into()))),
                Ok(Entry::Vacant(vacancy)) => {
                    self.held.insert(key, vacancy);
                    Ok(Answer::Vacancy)
                }
                Err(error) => Err(error),
            },
            Call::Fill(key, number, duration) => match self.held.remove(key) {
                Some(vacancy) => cache.fill(vacancy, value(*number).into(), *duration).await.map(Answer::Stored),
                None => Ok(Answer::Idle),
            },
            Call::GetOrRefresh(key, stale) => match cache.get_or_refresh(key, *stale).await {
                Ok(Freshness::Fresh(value)) => Ok(Answer::Value(Some(value.into()))),
                Ok(Freshness::Stale { value, refresh }) => {
                    let refreshes = refresh.is_some();
                    self.held.extend(refresh.map(|refresh| (*key, refresh)));
                    Ok(Answer::Stale(value.into(), refreshes))
                }
                Ok(Freshness::Vacant(vacancy)) => {
                    self.held.insert(key, vacancy);
                    Ok(Answer::Vacancy)
                }
                Err(error) => Err(error),
            },
            Call::FillStale(key, number, duration, stale) => match self.held.remove(key) {
                Some(vacancy) => {
                    cache.fill_stale(vacancy, value(*number).into(), *duration, *stale).await.map(Answer::Stored)
                }
                None => Ok(Answer::Idle),
            },
            Call::Drop(key) => Ok(self.held.remove(key).map_or(Answer::Idle, |_dropped| Answer::Done)),
            Call::Clear(key) => cache.clear(key).await.map(|was_there| Answer::Cleared(u64::from(was_there))),
            Call::ClearPattern(pattern) => cache.clear_pattern(pattern).await.map(Answer::Cleared),
            Call::ClearAll => cache.clear_all().await.map(Answer::Cleared),
            Call::Exists(key) => cache.exists(key).await.map(Answer::Exists),
            Call::ListKeys => Self::list(cache).await.map(Answer::Keys),
            Call::Increment(key, delta) => cache.increment(key, *delta, Duration::Default).await.map(Answer::Number),
            Call::ReadVersion(key) => cache.read_version(key).await.map(|found| {
                self.seen.insert(key, found.clone());
                Answer::Value(found.map(|(value, _)| value.into()))
            }),
            Call::Replace(key, number, duration) => match self.seen.get(key) {
                Some(seen) => Self::replace(cache, key, seen.as_ref(), *number, *duration).await,
                None => Ok(Answer::Idle),
            },
            Call::ClearMany(keys) => cache.clear_many(keys).await.map(Answer::Cleared),
        };
        // A lease is given back in the background on a server, and at once in RAM.
        self.behind.drain().await;
        answer.unwrap_or_else(Answer::Error)
    }
}

impl Plugin {
    /// Replaces what was seen earlier. The same value may have been set again in the same millisecond or in another one,
    /// which makes another version of it; then the version of now is replaced.
    async fn replace(
        cache: &ScopedCache,
        key: &str,
        seen: Option<&(Bytes, Version)>,
        number: u8,
        duration: Duration,
    ) -> Result<Answer, CacheError> {
        let now = cache.read_version(key).await?;
        let is_same = seen.map(|(value, _)| value) == now.as_ref().map(|(value, _)| value);
        let version = if is_same { now.as_ref() } else { seen }.map(|(_, version)| version);
        let is_stored = cache.replace_copy(key, version, &value(number), duration).await?;
        assert_eq!(is_stored, is_same, "{key}");
        Ok(Answer::Stored(is_stored))
    }

    /// All keys of the plugin in their order, each once.
    async fn list(cache: &ScopedCache) -> Result<Vec<String>, CacheError> {
        let (mut keys, mut cursor) = (BTreeSet::new(), None);
        loop {
            let page = cache.list_keys(cursor).await?;
            keys.extend(page.keys);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(keys.into_iter().collect()),
            }
        }
    }
}

/// Two plugins that share their keys, and one of each namespace.
async fn plugins(backend: &Backend) -> Vec<Plugin> {
    let cache = backend.cache(TABLE).await;
    let shared = [view(&cache), view(&cache)];
    let own = NAMESPACES.map(|namespace| namespaced(&cache, namespace));
    shared.into_iter().chain(own).map(|scoped| Plugin::new(scoped, &cache)).collect()
}

fn assert_answers_alike(kind: Kind) {
    let Some(mut server) = Backend::server(kind) else { return };
    let client = RefCell::new(server.behind().client());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let calls = prop::collection::vec((0..4_usize, any_call()), 1..60);
    let outcome = TestRunner::new(cases(200)).run(&calls, |calls| {
        redis::cmd("FLUSHALL").exec(&mut client.borrow_mut()).unwrap();
        runtime.block_on(async {
            let (mut on_ram, mut on_server) = (plugins(&Backend::ram()).await, plugins(&server).await);
            for (plugin, call) in calls {
                let (ram, server) = (on_ram[plugin].make(&call).await, on_server[plugin].make(&call).await);
                prop_assert_eq!(ram, server, "plugin {}: {:?}", plugin, call);
            }
            for (ram, server) in on_ram.iter_mut().zip(&mut on_server) {
                for call in [Call::GetMany(KEYS.into()), Call::ClearAll] {
                    prop_assert_eq!(ram.make(&call).await, server.make(&call).await, "at the end: {:?}", call);
                }
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn valkey_answers_every_call_as_ram_does() {
    assert_answers_alike(Kind::Valkey);
}

#[test]
fn new_valkey_answers_every_call_as_ram_does() {
    assert_answers_alike(Kind::ValkeyWithIfeq);
}

#[test]
fn redis_answers_every_call_as_ram_does() {
    assert_answers_alike(Kind::Redis);
}
