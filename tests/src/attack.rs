//! A sequence of calls that a plugin makes up, through a real component: the guest `attack`.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use larder_host::cache::{Duration, Entry, Namespace, ScopedCache};
use larder_host::runtime::{Outcome, Plugin, RunOptions};
use larder_host::{Config, Error, Runtime, operator_view};

/// Plugins with different grants: by default, with a namespace of its own, and one that may only read.
pub const HOSTILE_PLUGINS: [&str; 3] = ["plain", "own", "reader"];

/// A cache `c` for [`hostile_host`], so small that values are evicted.
pub const HOSTILE_RAM: &str = "[caches.c]\ntype = \"ram\"\nmax_bytes = \"4MiB\"\n";

/// The keys that the guest uses most.
const KEYS: [&str; 8] = ["a", "b", "k:1", "*", "?", "[a-b]", "é", "cache:a"];

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// The plugin made all its calls: so many had a result, so many an error of the interface.
    Finished(u32, u32),
    /// It used a handle that it does not hold, or brought in too much, and was ended.
    Trapped,
}

/// Makes a sequence of calls, in an instance of its own. Panics where the host ends it in any other way.
pub async fn attack(host: &Runtime, plugin: &Plugin, calls: &[u8]) -> Attack {
    let mut text = String::with_capacity(calls.len() * 4 + 10);
    text.push_str("attack([");
    for byte in calls {
        write!(text, "{byte},").unwrap();
    }
    text.push_str("])");
    match host.invoke(plugin, &RunOptions::default(), &text).await {
        Ok(Outcome::Returned(Ok(counts))) => {
            let mut counts = counts.trim_matches(['(', ')']).split(", ").map(|count| count.parse().unwrap());
            Attack::Finished(counts.next().unwrap(), counts.next().unwrap())
        }
        // An `unreachable` is the guest's own assertion.
        Err(Error::Trap { reason, .. }) if !reason.contains("unreachable") => Attack::Trapped,
        other => panic!("{other:?} after {calls:?}"),
    }
}

/// A host for [`HOSTILE_PLUGINS`] over one cache, whose waits are short.
pub async fn hostile_host(cache: &str) -> Runtime {
    let toml = format!(
        "{cache}max_value_bytes = \"16KiB\"\nwait = \"2ms\"\n\
         [plugins.own]\nnamespace = \"n\"\n[plugins.reader]\naccess = \"read-only\"\n[sandbox]\ntimeout = \"60s\"\n"
    );
    Runtime::new(Config::from_toml(&toml).unwrap()).await.unwrap()
}

/// The cache `c` as each of the plugins sees it.
fn views(host: &Runtime) -> [ScopedCache; 2] {
    let cache = host.caches().get("c").unwrap();
    [None, Some(Namespace::new("n").unwrap())].map(|namespace| operator_view(Arc::clone(cache), namespace))
}

/// Nobody holds a key any longer: whoever asks has its value, or computes it without waiting, and what he fills stays.
pub async fn assert_no_lease_is_left(host: &Runtime) {
    host.caches().drain().await;
    let cache = host.caches().get("c").unwrap();
    let before = cache.stats();
    for view in views(host) {
        for key in KEYS {
            if let Entry::Vacant(vacancy) = view.get_or_set(key).await.unwrap() {
                let is_stored = view.fill(vacancy, Bytes::from_static(b"v"), Duration::Default).await.unwrap();
                assert!(is_stored, "`{key}` was held");
            }
        }
    }
    let after = cache.stats();
    assert_eq!((after.waited, after.expired), (before.waited, before.expired), "somebody was waited for");
}

/// Empties the cache `c`.
pub async fn clear_all(host: &Runtime) {
    for view in views(host) {
        view.clear_all().await.unwrap();
    }
}
