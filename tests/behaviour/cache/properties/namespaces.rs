//! Plugins with namespaces on one cache: each gets the answers of a cache of its own.

use std::cell::RefCell;

use larder_tests::Kind;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::calls::{Call, Plugin, TABLE, any_call};
use super::cases;
use crate::backends::{Backend, namespaced, view};

/// Two different namespaces, of characters with a meaning in globs, prefixes and keys. Often one is a prefix of the
/// other.
fn namespaces() -> impl Strategy<Value = [String; 2]> {
    let text = || "[ab*?\\[\\]^\\\\:é-]{1,4}";
    let related = (text(), text()).prop_map(|(one, more)| [one.clone(), one + &more]);
    let any = (text(), text()).prop_map(|(one, two)| [one, two]);
    prop_oneof![related, any].prop_filter("two namespaces", |[one, two]| one != two)
}

/// Three plugins on one cache, one of them without a namespace, and the same three with a cache in RAM each.
async fn plugins(backend: &Backend, [one, two]: &[String; 2]) -> Vec<(Plugin, Plugin)> {
    let together = backend.cache(TABLE).await;
    let mut plugins = Vec::new();
    for namespace in [None, Some(one), Some(two)] {
        let alone = Backend::ram().cache(TABLE).await;
        let seen = |cache| namespace.map_or_else(|| view(cache), |namespace| namespaced(cache, namespace));
        plugins.push((Plugin::new(seen(&together), &together), Plugin::new(seen(&alone), &alone)));
    }
    plugins
}

fn assert_never_meet(backend: &Backend, count: u32, forget: impl Fn()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let calls = prop::collection::vec((0..3_usize, any_call()), 1..60);
    let outcome = TestRunner::new(cases(count)).run(&(namespaces(), calls), |(namespaces, calls)| {
        forget();
        runtime.block_on(async {
            let mut plugins = plugins(backend, &namespaces).await;
            let last = (0..3).map(|plugin| (plugin, Call::ClearAll));
            for (plugin, call) in calls.into_iter().chain(last) {
                let (together, alone) = &mut plugins[plugin];
                let (together, alone) = (together.make(&call).await, alone.make(&call).await);
                prop_assert_eq!(together, alone, "plugin {} of {:?}: {:?}", plugin, namespaces, call);
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn namespaces_never_meet_in_ram() {
    // Each case has a cache of its own.
    assert_never_meet(&Backend::ram(), 500, || {});
}

fn assert_never_meet_on(kind: Kind) {
    let Some(mut server) = Backend::server(kind) else { return };
    let client = RefCell::new(server.behind().client());
    assert_never_meet(&server, 100, || redis::cmd("FLUSHALL").exec(&mut client.borrow_mut()).unwrap());
}

#[test]
fn namespaces_never_meet_on_valkey() {
    assert_never_meet_on(Kind::Valkey);
}

#[test]
fn namespaces_never_meet_on_new_valkey() {
    assert_never_meet_on(Kind::ValkeyWithIfeq);
}

#[test]
fn namespaces_never_meet_on_redis() {
    assert_never_meet_on(Kind::Redis);
}
