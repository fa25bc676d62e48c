//! An in-memory host for the native tests of a plugin.
//!
//! `cargo test` builds a plugin's tests for the native target, where no host exists. On every target except
//! WebAssembly, the calls of this crate therefore go to a host that keeps its caches in memory and gives the same
//! answers as `larder`. No feature or set-up is needed.
//!
//! Each thread has its own host. A test has its own host as long as the test harness runs each test in its own thread.
//! A
//! [`Cache`](crate::Cache) that is moved to another thread stays with the host that opened it.
//!
//! ```
//! use std::time::Duration;
//!
//! use larder::{Cache, Error, testing};
//!
//! /// The plugin's logic.
//! fn price(cache: &Cache, article: &str, ask: impl FnOnce() -> u32) -> Result<u32, Error> {
//!     cache.get_or_set(format!("price:{article}"), Duration::from_secs(60), ask)
//! }
//!
//! // The body of a `#[test]`.
//! # fn main() -> Result<(), Error> {
//! let shop = Cache::open("shop")?;
//! assert_eq!(price(&shop, "apple", || 45)?, 45);
//! assert_eq!(price(&shop, "apple", || panic!("it is cached"))?, 45);
//!
//! testing::advance(Duration::from_secs(60));
//! assert_eq!(price(&shop, "apple", || 50)?, 50);
//!
//! testing::outage(testing::Outage::Unavailable);
//! assert_eq!(price(&shop, "apple", || 55)?, 55);
//! assert_eq!(shop.clear_all(), Err(Error::Unavailable));
//! # Ok(())
//! # }
//! ```
//!
//! By default every cache name can be opened, and each cache has the default settings. [`caches`] restricts the names;
//! [`cache`] returns the settings and the contents of one cache. Keys, values, patterns, batches, durations and
//! vacancies follow the rules of the real host. The rules are copies; property tests of the project, which make the
//! same calls to both hosts, hold them equal.
//!
//! The in-memory host differs from the real one in three respects. It has no memory limit, so it never evicts. It does not
//! limit handles or calls. And it does not wait: a caller that would wait for another's vacancy is treated as if its
//! wait had timed out. It gets its own vacancy, which stores a value only if the key was neither filled, set nor
//! cleared in the meantime.

// This crate cannot depend on the host's crates, so the rules for globs, keys, batches, values and leases are copies.
// The property tests are in `tests/behaviour/sdk/testing.rs` and `tests/behaviour/sdk/limits.rs`.

// Decision: docs/decisions/0051-native-sdk-tests-use-a-host-in-memory-without-a-feature.md

mod glob;
pub(crate) mod host;
mod store;

use std::time::Duration as StdDuration;

use crate::Duration;
use host::Host;
use store::{Settings, Stored};

/// The settings and the contents of one cache of the in-memory host.
///
/// The settings have the names and defaults of `larder.toml`. A change takes effect immediately, also for handles that
/// are already open.
#[derive(Debug)]
pub struct FakeCache {
    host: Host,
    name: String,
}

/// The access of the plugin to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// All calls.
    #[default]
    ReadWrite,
    /// Only `get` and `get_many`. All other calls fail with [`Error::AccessDenied`](crate::Error::AccessDenied).
    ReadOnly,
    /// None. Opening the cache fails with [`Error::AccessDenied`](crate::Error::AccessDenied).
    Denied,
}

/// The result of reads during an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// A miss.
    #[default]
    Miss,
    /// The error of the [`Outage`].
    Error,
}

/// The kind of an outage. Nothing is written during either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Calls fail with [`Error::Unavailable`](crate::Error::Unavailable).
    Unavailable,
    /// Calls fail with [`Error::Timeout`](crate::Error::Timeout).
    Timeout,
}

/// Sets the names of the configured caches. The first one is the default cache.
///
/// Opening any other name fails with [`Error::NoSuchCache`](crate::Error::NoSuchCache). Without this call every name
/// can be opened, and the default cache is named `default`.
pub fn caches<S: Into<String>>(names: impl IntoIterator<Item = S>) {
    let names = names.into_iter().map(Into::into).collect();
    Host::current().with(|host| host.configured = Some(names));
}

/// Returns the cache of this name. This does not make a name available that [`caches`] left out.
pub fn cache(name: impl Into<String>) -> FakeCache {
    FakeCache { host: Host::current(), name: name.into() }
}

/// Advances the clock of the host. The clock never advances by itself.
pub fn advance(by: StdDuration) {
    Host::current().with(|host| host.elapsed = host.elapsed.saturating_add(by));
}

/// Starts an outage of all caches: writes and clears fail, and reads behave as [`FakeCache::on_outage`] configures.
pub fn outage(outage: Outage) {
    Host::current().with(|host| host.outage = Some(outage));
}

/// Ends an [`outage`].
pub fn recover() {
    Host::current().with(|host| host.outage = None);
}

/// Calls `act` as another plugin instance. The caches that it opens belong to that instance; their contents are shared.
///
/// ```
/// use larder::{Cache, Entry, testing};
///
/// # fn main() -> Result<(), larder::Error> {
/// let ours = Cache::open("pages")?;
/// let theirs = testing::as_another_plugin(|| Cache::open("pages"))?;
/// let Entry::Vacant(vacancy) = ours.entry("home")? else { panic!("nothing is cached") };
/// theirs.set("home", "newer")?;
/// assert_eq!(vacancy.fill(b"\"older\"", larder::Duration::Default), Ok(false));
/// assert_eq!(ours.get("home")?, Some("newer".to_owned()));
/// # Ok(())
/// # }
/// ```
pub fn as_another_plugin<T>(act: impl FnOnce() -> T) -> T {
    host::as_another_plugin(act)
}

/// Replaces the host of this thread by a new one with empty caches and default settings. Only tests that share a thread
/// need it.
pub fn reset() {
    Host::renew();
}

impl FakeCache {
    /// Sets the duration of values that are stored without one; `None` means no expiry. The default is 300 s.
    pub fn default_expire(self, duration: Option<StdDuration>) -> Self {
        self.set(|settings| settings.default_expire = duration)
    }

    /// Sets the longest duration of any value. The default is `None`: no limit.
    pub fn max_expire(self, duration: Option<StdDuration>) -> Self {
        self.set(|settings| settings.max_expire = duration)
    }

    /// Sets the longest value in bytes. The default is 1 MiB.
    pub fn max_value_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_value_bytes = bytes)
    }

    /// Sets the access of the plugin. The default is [`Access::ReadWrite`].
    pub fn access(self, access: Access) -> Self {
        self.set(|settings| settings.access = access)
    }

    /// Sets the result of reads during an [`outage`]. The default is [`OnOutage::Miss`].
    pub fn on_outage(self, on_outage: OnOutage) -> Self {
        self.set(|settings| settings.on_outage = on_outage)
    }

    /// Returns the keys that have a value, sorted. Works regardless of outages and of [`FakeCache::access`].
    pub fn keys(&self) -> Vec<String> {
        self.host.with(|host| {
            let now = host.now();
            host.store(&self.name).live(now).map(|(key, _)| key.to_owned()).collect()
        })
    }

    /// Returns the remaining duration of a key's value: [`Duration::Milliseconds`] or [`Duration::Unlimited`], or
    /// `None` if the key has no value.
    pub fn duration_left(&self, key: impl AsRef<str>) -> Option<Duration> {
        self.host.with(|host| {
            let now = host.now();
            let left = |stored: &Stored| match stored.expires_at {
                Some(end) => Duration::Milliseconds(end.saturating_sub(now)),
                None => Duration::Unlimited,
            };
            host.store(&self.name).live(now).find(|(live, _)| *live == key.as_ref()).map(|(_, stored)| left(stored))
        })
    }

    fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        self.host.with(|host| change(&mut host.store(&self.name).settings));
        self
    }
}

#[cfg(test)]
mod tests;
