//! Runs the plugin `attack`, a component that interprets random bytes as a sequence of calls.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use larder_host::cache::{Duration, Entry, Namespace, ScopedCache};
use larder_host::runtime::{Outcome, Plugin, RunOptions};
use larder_host::{Config, Error, Runtime, operator_view};

/// Plugins with different grants: the default, a separate namespace, and read-only access.
pub const HOSTILE_PLUGINS: [&str; 3] = ["plain", "own", "reader"];

/// The TOML of a cache `c` for [`hostile_host`]. It is so small that values are evicted.
pub const HOSTILE_RAM: &str = "[caches.c]\ntype = \"ram\"\nmax_bytes = \"4MiB\"\n";

/// The keys that the plugin uses most.
const KEYS: [&str; 8] = ["a", "b", "k:1", "*", "?", "[a-b]", "é", "cache:a"];

/// The outcome of a sequence of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttackOutcome {
    /// The plugin made all its calls: the number that succeeded, and the number that failed with an error of the
    /// interface.
    Finished(u32, u32),
    /// The plugin used a handle that it does not hold, or exceeded a limit, and the host stopped it.
    Trapped,
}

/// Runs a sequence of calls in a new instance. Panics if the sequence has any outcome other than those of
/// [`AttackOutcome`].
pub async fn attack(host: &Runtime, plugin: &Plugin, calls: &[u8]) -> AttackOutcome {
    let mut text = String::with_capacity(calls.len() * 4 + 10);
    text.push_str("attack([");
    for byte in calls {
        write!(text, "{byte},").unwrap();
    }
    text.push_str("])");
    match host.invoke(plugin, &RunOptions::default(), &text).await {
        Ok(Outcome::Returned(Ok(counts))) => {
            let mut counts = counts.trim_matches(['(', ')']).split(", ").map(|count| count.parse().unwrap());
            AttackOutcome::Finished(counts.next().unwrap(), counts.next().unwrap())
        }
        // A failed assertion of the plugin traps with `unreachable`.
        Err(Error::Trap { reason, .. }) if !reason.contains("unreachable") => AttackOutcome::Trapped,
        other => panic!("{other:?} after {calls:?}"),
    }
}

/// Starts a host for [`HOSTILE_PLUGINS`] over one cache with a short `wait`.
pub async fn hostile_host(cache: &str) -> Runtime {
    let toml = format!(
        "{cache}max_value_bytes = \"16KiB\"\nwait = \"2ms\"\n\
         [plugins.own]\nnamespace = \"n\"\n[plugins.reader]\naccess = \"read-only\"\n[sandbox]\ntimeout = \"60s\"\n"
    );
    Runtime::new(Config::from_toml(&toml).unwrap()).await.unwrap()
}

/// Returns a view of the cache `c` for each key space of the plugins.
fn views(host: &Runtime) -> [ScopedCache; 2] {
    let cache = host.caches().get("c").unwrap();
    [None, Some(Namespace::new("n").unwrap())].map(|namespace| operator_view(Arc::clone(cache), namespace))
}

/// Asserts that no lease is left: every key has a value, or a caller gets its vacancy without waiting and can fill it.
pub async fn assert_no_lease_is_left(host: &Runtime) {
    host.caches().drain().await;
    let cache = host.caches().get("c").unwrap();
    let before = cache.stats();
    for view in views(host) {
        for key in KEYS {
            if let Entry::Vacant(vacancy) = view.get_or_set(key).await.unwrap() {
                let is_stored = view.fill(vacancy, Bytes::from_static(b"v"), Duration::Default).await.unwrap();
                assert!(is_stored, "`{key}` still has a lease");
            }
        }
    }
    let after = cache.stats();
    assert_eq!((after.waited, after.expired), (before.waited, before.expired), "a caller waited for a lease");
}

/// Clears the cache `c`.
pub async fn clear_all(host: &Runtime) {
    for view in views(host) {
        view.clear_all().await.unwrap();
    }
}
