//! Our glob matcher and the servers' agree on every key, for patterns out of the characters that mean something.

use std::cell::RefCell;
use std::collections::BTreeSet;

use larder_host::cache::glob::Pattern;
use larder_host::cache::{Key, Namespace, Selection};
use larder_tests::fuzz::reference;
use larder_tests::{Kind, Server};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use redis::{Connection, cmd};

use super::cases;

const ALPHABET: [&str; 12] = ["*", "?", "[", "]", "^", "-", "\\", "!", "a", "b", "é", "/"];

/// Each text of up to three characters; with this many keys nearly every pattern finds some and misses some.
pub(crate) fn all_short_texts() -> Vec<String> {
    let longer = |texts: &[String]| -> Vec<String> {
        texts.iter().flat_map(|text| ALPHABET.iter().map(move |character| format!("{text}{character}"))).collect()
    };
    let one = longer(&[String::new()]);
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

fn text(length: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&ALPHABET[..]), length).prop_map(|characters| characters.concat())
}

/// Patterns of any characters; half of them with a well-made class, which chance alone seldom makes.
pub(crate) fn pattern() -> impl Strategy<Value = String> {
    let class =
        (text(0..=1), any::<bool>(), text(1..=4), text(0..=2)).prop_map(|(before, is_negated, members, after)| {
            format!("{before}[{}{members}]{after}", if is_negated { "^" } else { "" })
        });
    prop_oneof![text(1..=7), class]
}

fn store(client: &mut Connection, keys: &[String]) {
    let mut command = cmd("MSET");
    for key in keys {
        command.arg(key).arg("");
    }
    command.exec(client).unwrap();
}

fn found(client: &mut Connection, glob: &str) -> BTreeSet<String> {
    cmd("KEYS").arg(glob).query(client).unwrap()
}

pub(crate) fn run<S: Strategy>(count: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    if let Err(failure) = TestRunner::new(cases(count)).run(strategy, test) {
        panic!("{failure}");
    }
}

/// Each of 3,000 patterns against each of 1,884 keys.
fn assert_agrees_on_short_keys(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let keys = all_short_texts();
    let client = RefCell::new(server.client());
    store(&mut client.borrow_mut(), &keys);
    run(3000, &pattern(), |pattern| {
        // A range that servers disagree on is refused.
        let Ok(compiled) = Pattern::new(&pattern) else { return Ok(()) };
        let ours: BTreeSet<String> = keys.iter().filter(|key| compiled.matches(key.as_bytes())).cloned().collect();
        let mut client = client.borrow_mut();
        prop_assert_eq!(&ours, &found(&mut client, &pattern), "as the plugin wrote it");
        prop_assert_eq!(&ours, &found(&mut client, compiled.as_str()), "as the server is given it");
        // What the fuzzer compares our matcher with must itself be right.
        for key in keys.iter().step_by(11) {
            prop_assert_eq!(reference(pattern.as_bytes(), key.as_bytes()), ours.contains(key), "{}", key);
        }
        Ok(())
    });
}

/// Patterns made of longer texts, and keys that some of them match: a text matches itself, with `*` and `?` filled
/// in.
fn assert_agrees_on_long_keys(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let client = RefCell::new(server.client());
    let filled_in = (text(4..=30), text(1..=4), text(1..=2)).prop_map(|(pattern, run, one)| {
        let key = pattern.replace('*', &run).replace('?', &one).replace('\\', "");
        (pattern, key)
    });
    let cases = prop::collection::vec(filled_in, 1..=20);
    run(200, &cases, |cases| {
        let mut client = client.borrow_mut();
        cmd("FLUSHALL").exec(&mut client).unwrap();
        let (patterns, keys): (Vec<_>, Vec<_>) = cases.into_iter().filter(|(_, key)| !key.is_empty()).unzip();
        if keys.is_empty() {
            return Ok(());
        }
        store(&mut client, &keys);
        for pattern in patterns {
            let Ok(compiled) = Pattern::new(&pattern) else { continue };
            let ours: BTreeSet<String> = keys.iter().filter(|key| compiled.matches(key.as_bytes())).cloned().collect();
            prop_assert_eq!(ours, found(&mut client, &pattern), "{}", pattern);
        }
        Ok(())
    });
}

const PREFIXES: [&str; 8] = ["p:", "*", "p?", "[p]:", "[^p]", "p\\", "p[", "p-[a-b]:"];

/// What a cache's own keys are on the server, with prefixes and namespaces that look like patterns.
fn assert_agrees_behind_prefixes(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let client = RefCell::new(server.client());
    let names: Vec<String> = all_short_texts().into_iter().step_by(17).collect();
    let namespaces: Vec<Option<Namespace>> =
        [None, Some("n"), Some("*"), Some("[^n]"), Some("n\\")].map(|n| n.map(|n| Namespace::new(n).unwrap())).into();
    let keys: Vec<(Key, &Option<Namespace>)> = namespaces
        .iter()
        .flat_map(|space| names.iter().map(move |name| (Key::new(space.as_ref(), name).unwrap(), space)))
        .collect();
    let physical = |prefix: &str, key: &Key| format!("{prefix}{}", key.as_str());
    for prefix in PREFIXES {
        let keys: Vec<String> = keys.iter().map(|(key, _)| physical(prefix, key)).collect();
        store(&mut client.borrow_mut(), &keys);
    }
    let (prefix, space) = (prop::sample::select(&PREFIXES[..]), prop::sample::select(namespaces.clone()));
    run(1000, &(prefix, space, pattern()), |(prefix, space, pattern)| {
        let Ok(selection) = Selection::matching(space.clone(), &pattern) else { return Ok(()) };
        let own = keys.iter().filter(|(key, of)| **of == space && selection.matches(key));
        let ours: BTreeSet<String> = own.map(|(key, _)| physical(prefix, key)).collect();
        let of_any = keys.iter().filter(|(key, _)| selection.matches(key)).count();
        prop_assert_eq!(of_any, ours.len(), "a selection means keys of its own key space only");
        let mut theirs = found(&mut client.borrow_mut(), &selection.server_glob(prefix));
        theirs.retain(|key| selection.owns(&key.as_bytes()[prefix.len()..]));
        prop_assert_eq!(ours, theirs);
        Ok(())
    });
}

#[test]
fn valkey_agrees_on_short_keys() {
    assert_agrees_on_short_keys(Kind::Valkey);
}

#[test]
fn redis_agrees_on_short_keys() {
    assert_agrees_on_short_keys(Kind::Redis);
}

#[test]
fn valkey_agrees_on_long_keys() {
    assert_agrees_on_long_keys(Kind::Valkey);
}

#[test]
fn redis_agrees_on_long_keys() {
    assert_agrees_on_long_keys(Kind::Redis);
}

#[test]
fn valkey_agrees_behind_prefixes() {
    assert_agrees_behind_prefixes(Kind::Valkey);
}

#[test]
fn redis_agrees_behind_prefixes() {
    assert_agrees_behind_prefixes(Kind::Redis);
}
