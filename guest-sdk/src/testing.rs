//! A host in memory, for a plugin's own tests.
//!
//! A plugin's logic is tested where it is written: by `cargo test`, which builds for the machine at hand. There is no host
//! there, so on every target but WebAssembly the calls of this crate reach one that keeps its caches in memory and answers
//! as `larder` does. Nothing has to be switched on. Each thread has a host of its own, and so has each test, as long as
//! the test harness runs it in a thread of its own; a [`Cache`](crate::Cache) that moves to another thread stays with the
//! host that opened it.
//!
//! ```
//! use std::time::Duration;
//!
//! use larder::{Cache, Error, testing};
//!
//! /// What the plugin does.
//! fn price(cache: &Cache, article: &str, ask: impl FnOnce() -> u32) -> Result<u32, Error> {
//!     cache.get_or_set(format!("price:{article}"), Duration::from_secs(60), ask)
//! }
//!
//! // The body of a `#[test]`.
//! # fn main() -> Result<(), Error> {
//! let shop = Cache::open("shop")?;
//! assert_eq!(price(&shop, "apple", || 45)?, 45);
//! assert_eq!(price(&shop, "apple", || panic!("asked again"))?, 45);
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
//! To begin with every name can be opened and each cache is as an operator has it who configures nothing;
//! [`caches`] says which there are, [`cache`] how one of them is set and what is in it. Keys, values, patterns, batches,
//! durations and vacancies have the rules of the host. What it does not have: a bound on memory, and so no eviction;
//! bounds on handles and calls; and waiting. A caller who would wait for another's vacancy is answered as if that wait had
//! run out: with a vacancy of its own, which stores only where the key was neither filled, set nor cleared since.

// Decision: docs/decisions/0051-native-sdk-tests-use-a-host-in-memory-without-a-feature.md

mod glob;
pub(crate) mod host;
mod store;

use std::time::Duration as StdDuration;

use crate::Duration;
use host::Host;
use store::{Settings, Stored};

/// One cache of this thread's host: how it is set, and what is in it. Settings are those of `larder.toml`, and each takes
/// effect at once.
#[derive(Debug)]
pub struct FakeCache {
    host: Host,
    name: String,
}

/// What the plugin may do with a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everything.
    #[default]
    ReadWrite,
    /// `get` and `get_many`; all else is [`Error::AccessDenied`](crate::Error::AccessDenied).
    ReadOnly,
    /// Nothing: the cache cannot be opened, which is [`Error::AccessDenied`](crate::Error::AccessDenied).
    Denied,
}

/// What reads answer during an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// A miss.
    #[default]
    Miss,
    /// The error.
    Error,
}

/// How the caches are out of reach. Either way nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Calls fail with [`Error::Unavailable`](crate::Error::Unavailable).
    Unavailable,
    /// Calls fail with [`Error::Timeout`](crate::Error::Timeout).
    Timeout,
}

/// The caches that the operator has configured: others are [`Error::NoSuchCache`](crate::Error::NoSuchCache). The first
/// one is the default. Defaults to every name, with a cache named `default` as the default.
pub fn caches<S: Into<String>>(names: impl IntoIterator<Item = S>) {
    let names = names.into_iter().map(Into::into).collect();
    Host::current().with(|host| host.configured = Some(names));
}

/// The cache of that name. Naming one does not configure it where [`caches`] left it out.
pub fn cache(name: impl Into<String>) -> FakeCache {
    FakeCache { host: Host::current(), name: name.into() }
}

/// Moves the clock on, which stands still otherwise.
pub fn advance(by: StdDuration) {
    Host::current().with(|host| host.elapsed = host.elapsed.saturating_add(by));
}

/// From now on no cache can be reached: writes and clears fail, and reads do what [`FakeCache::on_outage`] says.
pub fn outage(outage: Outage) {
    Host::current().with(|host| host.outage = Some(outage));
}

/// Ends an [`outage`].
pub fn recover() {
    Host::current().with(|host| host.outage = None);
}

/// Does something as another instance of a plugin would: what it opens meanwhile belongs to that one. The caches are the
/// same.
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

/// Gives this thread a new host, with nothing cached and nothing set. Only tests that share a thread need it.
pub fn reset() {
    Host::renew();
}

impl FakeCache {
    /// The duration of a value set without one; none for no expiry. Defaults to 300 s.
    pub fn default_expire(self, duration: Option<StdDuration>) -> Self {
        self.set(|settings| settings.default_expire = duration)
    }

    /// The longest duration of any value. Defaults to none, which is no bound.
    pub fn max_expire(self, duration: Option<StdDuration>) -> Self {
        self.set(|settings| settings.max_expire = duration)
    }

    /// The longest value in bytes. Defaults to 1 MiB.
    pub fn max_value_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_value_bytes = bytes)
    }

    /// What the plugin may do. Defaults to everything.
    pub fn access(self, access: Access) -> Self {
        self.set(|settings| settings.access = access)
    }

    /// What reads answer during an [`outage`]. Defaults to a miss.
    pub fn on_outage(self, on_outage: OnOutage) -> Self {
        self.set(|settings| settings.on_outage = on_outage)
    }

    /// The keys that have a value, in their order; outages and grants do not matter.
    pub fn keys(&self) -> Vec<String> {
        self.host.with(|host| {
            let now = host.now();
            host.store(&self.name).live(now).map(|(key, _)| key.to_owned()).collect()
        })
    }

    /// How long a key's value still lasts: [`Duration::Milliseconds`] or [`Duration::Unlimited`], and `None` where there
    /// is no value.
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
