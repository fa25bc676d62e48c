//! The in-memory host, with the same signatures as the generated bindings.

#![expect(unreachable_pub, reason = "`bindings` re-exports these like the generated items")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as StdDuration;

use crate::bindings::{Duration, Error};
use crate::testing::store::{CallContext, Found, FoundFresh, HeldVacancy, Plugin, Store};
use crate::testing::{Access, Outage};

/// The name of the default cache if no caches are configured.
const DEFAULT: &str = "default";

thread_local! {
    static CURRENT: RefCell<Host> = RefCell::default();
    static PLUGIN: Cell<Plugin> = const { Cell::new(Plugin(0)) };
}

/// A host, shared by all its handles. The handles are `Send`, as the generated ones are.
#[derive(Debug, Clone, Default)]
pub(super) struct Host(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// The time by which the clock was advanced.
    pub(super) elapsed: StdDuration,
    pub(super) outage: Option<Outage>,
    /// The names of the configured caches, the default first. `None` allows every name.
    pub(super) configured: Option<Vec<String>>,
    stores: BTreeMap<String, Store>,
    plugins: u64,
}

impl Host {
    /// The host of this thread.
    pub(super) fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// Replaces the host of this thread.
    pub(super) fn renew() {
        CURRENT.set(Self::default());
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A poisoned lock is safe to use: no panic can interrupt a change of the state.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open(self, name: &str) -> Result<Cache, Error> {
        self.with(|state| {
            if state.configured.as_ref().is_some_and(|names| names.iter().all(|known| known != name)) {
                return Err(Error::NoSuchCache);
            }
            match state.store(name).settings.access {
                Access::Denied => Err(Error::AccessDenied),
                Access::ReadOnly | Access::ReadWrite => Ok(()),
            }
        })?;
        Ok(Cache { host: self, name: name.to_owned(), plugin: PLUGIN.get() })
    }
}

impl State {
    /// The time in milliseconds since the start of the clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn store(&mut self, name: &str) -> &mut Store {
        self.stores.entry(name.to_owned()).or_default()
    }
}

/// Runs `act` as a new plugin instance.
pub(super) fn as_another_plugin<T>(act: impl FnOnce() -> T) -> T {
    struct Back(Plugin);
    impl Drop for Back {
        fn drop(&mut self) {
            PLUGIN.set(self.0);
        }
    }
    let other = Host::current().with(|state| {
        state.plugins = state.plugins.saturating_add(1);
        Plugin(state.plugins)
    });
    let _back = Back(PLUGIN.replace(other));
    act()
}

/// `open` of the interface.
pub fn open(name: &str) -> Result<Cache, Error> {
    Host::current().open(name)
}

/// `open-default` of the interface.
pub fn open_default() -> Result<Cache, Error> {
    let host = Host::current();
    let default = host.with(|state| match &state.configured {
        None => Some(DEFAULT.to_owned()),
        Some(names) => names.first().cloned(),
    });
    host.open(&default.ok_or(Error::NoSuchCache)?)
}

/// The resource `cache` of the interface.
#[derive(Debug)]
pub struct Cache {
    host: Host,
    name: String,
    plugin: Plugin,
}

/// The variant `entry` of the interface.
#[derive(Debug)]
pub enum Entry {
    Occupied(Vec<u8>),
    Vacant(Vacancy),
}

/// The variant `freshness` of the interface.
#[derive(Debug)]
pub enum Freshness {
    Fresh(Vec<u8>),
    Stale(StaleValue),
    Vacant(Vacancy),
}

/// The record `stale-value` of the interface.
#[derive(Debug)]
pub struct StaleValue {
    pub value: Vec<u8>,
    pub refresh: Option<Vacancy>,
}

/// The resource `vacancy` of the interface.
#[derive(Debug)]
pub struct Vacancy {
    host: Host,
    name: String,
    held: HeldVacancy,
}

impl Cache {
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.call(|store, at| store.get(key, at))
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.call(|store, at| store.get_many(keys, at))
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.set_with_duration(key, value, Duration::Default)
    }

    pub fn set_with_duration(&self, key: &str, value: &[u8], duration: Duration) -> Result<(), Error> {
        self.call(|store, at| store.set(key, value, duration, at))
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)], duration: Duration) -> Result<(), Error> {
        self.call(|store, at| store.set_many(entries, duration, at))
    }

    pub fn get_or_set(&self, key: &str) -> Result<Entry, Error> {
        let found = self.call(|store, at| store.get_or_set(key, self.plugin, at))?;
        Ok(match found {
            Found::Value(value) => Entry::Occupied(value),
            Found::Vacancy(held) => Entry::Vacant(self.vacancy(held)),
        })
    }

    pub fn get_or_refresh(&self, key: &str, stale: Duration) -> Result<Freshness, Error> {
        let found = self.call(|store, at| store.get_or_refresh(key, stale, self.plugin, at))?;
        Ok(match found {
            FoundFresh::Fresh(value) => Freshness::Fresh(value),
            FoundFresh::Stale(value, refresh) => {
                Freshness::Stale(StaleValue { value, refresh: refresh.map(|held| self.vacancy(held)) })
            }
            FoundFresh::Vacancy(held) => Freshness::Vacant(self.vacancy(held)),
        })
    }

    fn vacancy(&self, held: HeldVacancy) -> Vacancy {
        Vacancy { host: self.host.clone(), name: self.name.clone(), held }
    }

    pub fn clear(&self, key: &str) -> Result<bool, Error> {
        self.call(|store, at| store.clear(key, at))
    }

    pub fn clear_pattern(&self, pattern: &str) -> Result<u64, Error> {
        self.call(|store, at| store.clear_pattern(pattern, at))
    }

    pub fn clear_all(&self) -> Result<u64, Error> {
        self.call(|store, at| store.clear_all(at))
    }

    fn call<T>(&self, act: impl FnOnce(&mut Store, CallContext) -> Result<T, Error>) -> Result<T, Error> {
        call(&self.host, &self.name, act)
    }
}

impl Vacancy {
    pub fn fill(vacancy: Self, value: &[u8], duration: Duration) -> Result<bool, Error> {
        call(&vacancy.host, &vacancy.name, |store, at| store.fill(&vacancy.held, value, duration, None, at))
    }

    pub fn fill_stale(vacancy: Self, value: &[u8], duration: Duration, stale: Duration) -> Result<bool, Error> {
        call(&vacancy.host, &vacancy.name, |store, at| store.fill(&vacancy.held, value, duration, Some(stale), at))
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        call(&self.host, &self.name, |store, at| store.give_back(&self.held, at));
    }
}

fn call<T>(host: &Host, name: &str, act: impl FnOnce(&mut Store, CallContext) -> T) -> T {
    host.with(|state| {
        let at = CallContext { now: state.now(), outage: state.outage };
        act(state.store(name), at)
    })
}
