//! The host and the SDK's in-memory host for tests give the same answers to the same calls.

mod reachable;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration as StdDuration;

use larder::testing;
use larder_host::cache::glob::Pattern;
use larder_host::cache::{Access, Cache, CacheError, Duration, OnOutage, Owner, Policy, ScopedCache};
use larder_tests::{Larder, on_every_backend};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::cache::properties::calls::{Answer, Call, KEYS, Plugin, call, value};
use crate::cache::properties::{cases, globs};

use reachable::Reachable;

#[allow(dead_code, unreachable_pub, reason = "it is a crate of its own for the plugins that are built from it")]
#[path = "../../guests/src/lib.rs"]
mod guests;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// One of two plugins makes a call.
    Call(usize, Call),
    Advance(u64),
    Outage(bool),
    ReadOnly(bool),
}

/// Also those that end while steps are made.
fn duration() -> impl Strategy<Value = Duration> {
    prop::sample::select(&[1, 2, 1_000, 299_999, 300_000, 300_001, u64::MAX][..]).prop_map(Duration::Milliseconds)
}

/// How long a value is stale: as its life, in which it is stale at once, a part of it, and what is refused.
fn stale() -> impl Strategy<Value = Duration> {
    let finite = prop::sample::select(&[0, 1, 1_000, 1_001, 60_000, 300_000, u64::MAX][..]);
    prop_oneof![8 => finite.prop_map(Duration::Milliseconds), 1 => Just(Duration::Default), 1 => Just(Duration::Unlimited)]
}

/// Calls and times that matter to the refresh of one key: many of them meet a stale value, its refresh, or the pause after one
/// that was dropped.
fn refresh_step() -> impl Strategy<Value = Step> {
    const KEY: &str = KEYS[0];
    let life = || prop::sample::select(&[2_000, 10_000, 400_000][..]).prop_map(Duration::Milliseconds);
    let stale = || prop::sample::select(&[1_000, 5_000, u64::MAX][..]).prop_map(Duration::Milliseconds);
    let call = prop_oneof![
        6 => stale().prop_map(|stale| Call::GetOrRefresh(KEY, stale)),
        2 => (any::<u8>(), life(), stale()).prop_map(|(value, life, stale)| Call::FillStale(KEY, value, life, stale)),
        1 => (any::<u8>(), life()).prop_map(|(value, life)| Call::Fill(KEY, value, life)),
        1 => (any::<u8>(), life()).prop_map(|(value, life)| Call::Set(KEY, value, life)),
        3 => Just(Call::Drop(KEY)),
        1 => Just(Call::Clear(KEY)),
        1 => Just(Call::GetOrSet(KEY)),
    ];
    prop_oneof![
        12 => (0..2_usize, call).prop_map(|(plugin, call)| Step::Call(plugin, call)),
        3 => prop::sample::select(&[1, 999, 1_000, 300_000][..]).prop_map(Step::Advance),
        1 => prop::bool::weighted(0.3).prop_map(Step::Outage),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop_oneof![
        12 => call(),
        6 => (prop::sample::select(&KEYS[..]), stale()).prop_map(|(key, stale)| Call::GetOrRefresh(key, stale)),
        3 => (prop::sample::select(&KEYS[..]), any::<u8>(), duration(), stale())
            .prop_map(|(key, value, duration, stale)| Call::FillStale(key, value, duration, stale)),
        2 => (prop::sample::select(&KEYS[..]), any::<u8>(), duration())
            .prop_map(|(key, value, duration)| Call::Set(key, value, duration)),
        2 => (prop::sample::select(&KEYS[..]), any::<u8>(), duration())
            .prop_map(|(key, value, duration)| Call::Fill(key, value, duration)),
    ];
    prop_oneof![
        16 => (0..2_usize, call).prop_map(|(plugin, call)| Step::Call(plugin, call)),
        2 => prop::sample::select(&[1, 999, 1_000, 60_000, 299_999, 300_000][..]).prop_map(Step::Advance),
        1 => prop::bool::weighted(0.3).prop_map(Step::Outage),
        1 => prop::bool::weighted(0.3).prop_map(Step::ReadOnly),
    ]
}

fn expire() -> impl Strategy<Value = Option<StdDuration>> {
    prop::option::of(prop::sample::select(&[1, 1_000, 300_000][..]).prop_map(StdDuration::from_millis))
}

/// With no wait a call never has to end another's, as in the SDK's host.
fn policy() -> impl Strategy<Value = Policy> {
    let on_outage = prop::sample::select(&[OnOutage::Miss, OnOutage::Error][..]);
    (expire(), expire(), on_outage).prop_map(|(default_expire, max_expire, on_outage)| {
        let mut policy = Policy::default();
        policy.default_expire = default_expire;
        policy.max_expire = max_expire;
        policy.max_value_bytes = 32;
        policy.wait = StdDuration::ZERO;
        policy.on_outage = on_outage;
        policy
    })
}

/// The host, with two plugins.
struct Real {
    backend: Arc<Reachable>,
    cache: Arc<Cache>,
    owners: [Owner; 2],
    plugins: [Plugin; 2],
}

impl Real {
    fn new(policy: Policy) -> Self {
        let backend = Arc::new(Reachable::new(&policy));
        let cache = Arc::new(Cache::new("c", Arc::<Reachable>::clone(&backend), policy));
        let owners = [(); 2].map(|()| Owner::new());
        let plugins = owners.map(|owner| {
            let view = ScopedCache::new(Arc::clone(&cache), None, Access::ReadWrite, owner);
            Plugin::new(view, &cache)
        });
        Self { backend, cache, owners, plugins }
    }

    async fn take(&mut self, step: &Step) -> Result<Answer, larder::Error> {
        match step {
            Step::Call(plugin, call) => {
                let answer = self.plugins[*plugin].make(call).await;
                yield_to_other_tasks().await;
                return match answer {
                    Answer::Error(error) => Err(as_the_plugin_gets_it(error)),
                    answer => Ok(answer),
                };
            }
            Step::Advance(milliseconds) => {
                tokio::time::advance(StdDuration::from_millis(*milliseconds)).await;
                yield_to_other_tasks().await;
            }
            Step::Outage(is_out) => self.backend.is_out.store(*is_out, Ordering::Relaxed),
            Step::ReadOnly(is_read_only) => {
                let access = if *is_read_only { Access::ReadOnly } else { Access::ReadWrite };
                for (plugin, owner) in self.plugins.iter_mut().zip(self.owners) {
                    plugin.cache = ScopedCache::new(Arc::clone(&self.cache), None, access, owner);
                }
            }
        }
        Ok(Answer::Done)
    }
}

/// The tasks that end vacancies that are held too long.
async fn yield_to_other_tasks() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn as_the_plugin_gets_it(error: CacheError) -> larder::Error {
    match error {
        CacheError::InvalidArgument(rule) => larder::Error::InvalidArgument(rule),
        CacheError::ValueTooLarge { max, .. } => larder::Error::ValueTooLarge(u64::try_from(max).unwrap()),
        CacheError::ReadOnly => larder::Error::AccessDenied,
        CacheError::Unavailable(_) => larder::Error::Unavailable,
        other => panic!("{other}"),
    }
}

/// The SDK's host for tests, with two plugins, and the vacancies that they hold.
struct Fake {
    plugins: [(larder::Cache, HashMap<&'static str, larder::Vacancy>); 2],
}

impl Fake {
    fn new(policy: &Policy) -> Self {
        testing::reset();
        let on_outage = match policy.on_outage {
            OnOutage::Miss => testing::OnOutage::Miss,
            OnOutage::Error => testing::OnOutage::Error,
            other => panic!("the SDK's host does not know {other:?}"),
        };
        testing::cache("c")
            .default_expire(policy.default_expire)
            .max_expire(policy.max_expire)
            .max_value_bytes(policy.max_value_bytes)
            .on_outage(on_outage);
        let open = || (larder::Cache::open("c").unwrap(), HashMap::new());
        Self { plugins: [open(), testing::as_another_plugin(open)] }
    }

    fn take(&mut self, step: &Step) -> Result<Answer, larder::Error> {
        match step {
            Step::Call(plugin, call) => return self.make(*plugin, call),
            Step::Advance(milliseconds) => testing::advance(StdDuration::from_millis(*milliseconds)),
            Step::Outage(true) => testing::outage(testing::Outage::Unavailable),
            Step::Outage(false) => testing::recover(),
            Step::ReadOnly(is_read_only) => {
                let access = if *is_read_only { testing::Access::ReadOnly } else { testing::Access::ReadWrite };
                testing::cache("c").access(access);
            }
        }
        Ok(Answer::Done)
    }

    fn make(&mut self, plugin: usize, call: &Call) -> Result<Answer, larder::Error> {
        let (cache, held) = &mut self.plugins[plugin];
        Ok(match call {
            Call::Get(key) => Answer::Value(cache.get_bytes(key)?),
            Call::GetMany(keys) => Answer::Values(cache.get_many_bytes(keys)?),
            Call::Set(key, number, duration) => {
                cache.set_bytes_with_duration(key, &value(*number), convert(*duration))?;
                Answer::Done
            }
            Call::SetMany(entries, duration) => {
                let entries: Vec<_> = entries.iter().map(|&(key, number)| (key, value(number))).collect();
                cache.set_many_bytes(&entries, convert(*duration))?;
                Answer::Done
            }
            Call::GetOrSet(key) => match cache.entry(key)? {
                larder::Entry::Occupied(value) => Answer::Value(Some(value)),
                larder::Entry::Vacant(vacancy) => {
                    held.insert(key, vacancy);
                    Answer::Vacancy
                }
            },
            Call::Fill(key, number, duration) => match held.remove(key) {
                Some(vacancy) => Answer::Stored(vacancy.fill(&value(*number), convert(*duration))?),
                None => Answer::Idle,
            },
            Call::GetOrRefresh(key, stale) => match cache.freshness(key, convert(*stale))? {
                larder::Freshness::Fresh(value) => Answer::Value(Some(value)),
                larder::Freshness::Stale { value, refresh } => {
                    let refreshes = refresh.is_some();
                    held.extend(refresh.map(|refresh| (*key, refresh)));
                    Answer::Stale(value, refreshes)
                }
                larder::Freshness::Vacant(vacancy) => {
                    held.insert(key, vacancy);
                    Answer::Vacancy
                }
            },
            Call::FillStale(key, number, duration, stale) => match held.remove(key) {
                Some(vacancy) => {
                    Answer::Stored(vacancy.fill_stale(&value(*number), convert(*duration), convert(*stale))?)
                }
                None => Answer::Idle,
            },
            Call::Drop(key) => held.remove(key).map_or(Answer::Idle, |_dropped| Answer::Done),
            Call::Clear(key) => Answer::Cleared(cache.clear(key)?.into()),
            Call::ClearPattern(pattern) => Answer::Cleared(cache.clear_pattern(pattern)?),
            Call::ClearAll => Answer::Cleared(cache.clear_all()?),
            Call::Exists(_)
            | Call::ListKeys
            | Call::Increment(..)
            | Call::ReadVersion(_)
            | Call::Replace(..)
            | Call::ClearMany(_) => unreachable!("`call` does not make them: our interface does not have them"),
        })
    }
}

pub(super) fn convert(duration: Duration) -> larder::Duration {
    match duration {
        Duration::Default => larder::Duration::Default,
        Duration::Milliseconds(milliseconds) => larder::Duration::Milliseconds(milliseconds),
        Duration::Unlimited => larder::Duration::Unlimited,
    }
}

/// Gives each value that can be stored bytes of its own: the host cannot tell two writes of the same bytes in one
/// millisecond apart. One of them may stay empty.
fn with_distinct_values(mut steps: Vec<Step>) -> Vec<Step> {
    let mut numbers = (0..=u8::MAX).filter(|number| (1..=32).contains(&value(*number).len())).cycle();
    let mut has_empty = false;
    let mut replace = |number: &mut u8| match value(*number).len() {
        0 if !has_empty => has_empty = true,
        ..=32 => *number = numbers.next().unwrap(),
        _ => {}
    };
    for step in &mut steps {
        match step {
            Step::Call(
                _,
                Call::Set(_, number, _)
                | Call::Fill(_, number, _)
                | Call::FillStale(_, number, _, _)
                | Call::Replace(_, number, _),
            ) => replace(number),
            Step::Call(_, Call::SetMany(entries, _)) => entries.iter_mut().for_each(|(_, number)| replace(number)),
            _ => {}
        }
    }
    steps
}

/// Takes the steps with both hosts.
fn assert_alike(policy: impl Strategy<Value = Policy>, step: impl Strategy<Value = Step>) {
    let steps = prop::collection::vec(step, 1..80).prop_map(with_distinct_values);
    let outcome = TestRunner::new(cases(1000)).run(&(policy, steps), |(policy, steps)| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let (mut fake, mut real) = (Fake::new(&policy), Real::new(policy));
            let in_the_end = [
                Step::Outage(false),
                Step::ReadOnly(false),
                Step::Call(0, Call::GetMany(KEYS.into())),
                Step::Call(1, Call::ClearAll),
            ];
            for step in steps.iter().chain(&in_the_end) {
                prop_assert_eq!(fake.take(step), real.take(step).await, "{:?}", step);
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn the_sdks_host_for_tests_answers_every_call_as_the_host_does() {
    assert_alike(policy(), step());
}

#[test]
fn the_sdks_host_for_tests_refreshes_as_the_host_does() {
    let policy = prop::option::of(Just(StdDuration::from_secs(20))).prop_map(|max_expire| {
        let mut policy = Policy::default();
        policy.max_expire = max_expire;
        policy.max_value_bytes = 32;
        policy.wait = StdDuration::ZERO;
        policy
    });
    assert_alike(policy, refresh_step());
}

/// Of each of 3,000 patterns: whether it is taken, and which of 1,884 keys it removes.
#[test]
fn the_sdks_host_for_tests_clears_what_the_host_clears() {
    let keys = globs::all_short_texts();
    let cache = larder::Cache::open("c").unwrap();
    keys.iter().for_each(|key| cache.set_bytes(key, b"").unwrap());
    globs::run(3000, &globs::pattern(), |pattern| {
        let cleared = cache.clear_pattern(&pattern);
        let left: BTreeSet<String> = testing::cache("c").keys().into_iter().collect();
        let gone: Vec<&String> = keys.iter().filter(|key| !left.contains(*key)).collect();
        gone.iter().for_each(|key| cache.set_bytes(key, b"").unwrap());
        let Ok(compiled) = Pattern::new(&pattern) else {
            prop_assert!(matches!(cleared, Err(larder::Error::InvalidArgument(_))), "{:?}", cleared);
            return Ok(());
        };
        prop_assert_eq!(cleared, Ok(u64::try_from(gone.len()).unwrap()));
        prop_assert_eq!(gone, keys.iter().filter(|key| compiled.matches(key.as_bytes())).collect::<Vec<_>>());
        Ok(())
    });
}

/// What the plugin `script` says of these operations, which reach the host through WebAssembly, its own code says
/// natively, errors included.
#[test]
fn a_plugin_prints_the_same_as_a_native_program() {
    let long = format!("get {}", "k".repeat(1025));
    let operations = [
        "get user:1",
        "set user:1 John",
        "set user:2 Eve",
        "get-many user:1 missing user:2",
        "clear user:3",
        "clear user:2",
        "get a\u{7f}",
        "get ",
        &long,
        "clear-pattern [a-é]",
        "clear-pattern ",
        "clear-pattern u*[0-9]",
        "slow k v 0",
        "slow k w 0",
        "clear-all",
    ];
    testing::reset();
    let cache = larder::Cache::default().unwrap();
    let natively: String = operations
        .iter()
        .map(|operation| {
            let words: Vec<&str> = operation.split(' ').collect();
            guests::execute(&cache, &words).unwrap_or_else(|error| guests::format_error(&error)) + "\n"
        })
        .collect();
    on_every_backend(|config| {
        let run = operations.iter().fold(Larder::run("script").config(config), Larder::arg);
        assert_eq!(run.succeed().stdout, natively);
    });
}
