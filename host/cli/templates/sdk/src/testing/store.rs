//! One cache in memory. It checks the rules in the same order as the host, so that both return the same error.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration as StdDuration;

use crate::bindings::{Duration, Error};
use crate::testing::{Access, OnOutage, Outage, glob};

/// The longest key and the longest pattern in bytes.
const MAX_TEXT: usize = 1024;

/// The most keys of one batch.
const MAX_BATCH: usize = 1024;

/// The most bytes of keys and values of one batch.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// How long no caller refreshes after a refresh that failed, in milliseconds.
const PAUSE: u64 = 1000;

/// How long a vacancy or a refresh is exclusive, in milliseconds.
const MAX_LEASE: u64 = 5 * 60 * 1000;

/// The longest finite duration, 100 years.
const LONGEST: StdDuration = StdDuration::from_secs(100 * 365 * 24 * 60 * 60);

/// The mark of a lease. No value may begin with it.
const LEASE_MARK: &[u8] = b"\0larder-lease:";

/// The operator's settings of a cache.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) default_expire: Option<StdDuration>,
    pub(super) max_expire: Option<StdDuration>,
    pub(super) max_value_bytes: usize,
    pub(super) access: Access,
    pub(super) on_outage: OnOutage,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_expire: Some(StdDuration::from_secs(300)),
            max_expire: None,
            max_value_bytes: 1 << 20,
            access: Access::default(),
            on_outage: OnOutage::default(),
        }
    }
}

/// The identity of a plugin instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plugin(pub(super) u64);

/// The conditions of a call: the time in milliseconds since the start of the clock, and the current outage.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallContext {
    pub(super) now: u64,
    pub(super) outage: Option<Outage>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) settings: Settings,
    entries: BTreeMap<String, Stored>,
    /// The leases by key. A key has a value or a lease, never both.
    leases: HashMap<String, Lease>,
    /// The refreshes by key.
    refreshes: HashMap<String, Refresh>,
    /// The refreshes that plugins hold and have not filled, also those that another caller got meanwhile.
    unfilled: HashSet<u64>,
    /// All vacancies that plugins hold.
    held: Vec<HeldVacancy>,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Stored {
    value: Vec<u8>,
    /// Another number for each value that was stored.
    version: u64,
    /// `None` without expiry.
    pub(super) expires_at: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: u64,
    lapses_at: u64,
}

/// Why no caller gets the refresh of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    /// This vacancy holds it, until this time at the longest.
    Held { id: u64, lapses_at: u64 },
    /// The last one failed, less than a second before this time.
    FailedUntil(u64),
}

impl Refresh {
    fn is_of(&self, vacancy: u64) -> bool {
        matches!(self, Self::Held { id, .. } if *id == vacancy)
    }

    /// The time from which on a caller may get the refresh.
    fn end(&self) -> u64 {
        let (Self::Held { lapses_at: end, .. } | Self::FailedUntil(end)) = self;
        *end
    }
}

/// A vacancy that a plugin holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldVacancy {
    id: u64,
    key: String,
    plugin: Plugin,
    /// The lease that the key must still have when the vacancy is filled.
    lease: u64,
    /// Whether the lease was granted to this vacancy. It is false after a wait that timed out: then the lease is that
    /// of the vacancy it waited for.
    is_ours: bool,
    /// The version of the value that it refreshes.
    replaces: Option<u64>,
}

/// The result of `get-or-refresh`.
#[derive(Debug)]
pub(super) enum FoundFresh {
    Fresh(Vec<u8>),
    Stale(Vec<u8>, Option<HeldVacancy>),
    Vacancy(HeldVacancy),
}

/// The result of `get-or-set`.
#[derive(Debug)]
pub(super) enum Found {
    Value(Vec<u8>),
    Vacancy(HeldVacancy),
}

impl Store {
    pub(super) fn get(&mut self, key: &str, at: CallContext) -> Result<Option<Vec<u8>>, Error> {
        check_text("key", key)?;
        if self.is_reached(at)? { Ok(self.value(key, at.now)) } else { Ok(None) }
    }

    pub(super) fn get_many(&mut self, keys: &[String], at: CallContext) -> Result<Vec<Option<Vec<u8>>>, Error> {
        check_batch("keys", keys.iter().map(String::len))?;
        keys.iter().try_for_each(|key| check_text("key", key))?;
        if keys.is_empty() || !self.is_reached(at)? {
            return Ok(vec![None; keys.len()]);
        }
        let values: Vec<_> = keys.iter().map(|key| self.value(key, at.now)).collect();
        let bytes = values.iter().flatten().map(Vec::len).fold(0, usize::saturating_add);
        let max = MAX_BATCH_BYTES.max(self.settings.max_value_bytes);
        if bytes > max { Err(too_large(max)) } else { Ok(values) }
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8], duration: Duration, at: CallContext) -> Result<(), Error> {
        self.check_write()?;
        check_text("key", key)?;
        let duration = self.settings.resolve(duration)?;
        self.settings.check_value(value)?;
        check_outage(at)?;
        self.insert(key, value, duration, at.now);
        Ok(())
    }

    pub(super) fn set_many(
        &mut self,
        entries: &[(String, Vec<u8>)],
        duration: Duration,
        at: CallContext,
    ) -> Result<(), Error> {
        self.check_write()?;
        check_batch("entries", entries.iter().map(|(key, value)| key.len().saturating_add(value.len())))?;
        entries.iter().try_for_each(|(key, _)| check_text("key", key))?;
        let duration = self.settings.resolve(duration)?;
        entries.iter().try_for_each(|(_, value)| self.settings.check_value(value))?;
        if entries.is_empty() {
            return Ok(());
        }
        check_outage(at)?;
        for (key, value) in entries {
            self.insert(key, value, duration, at.now);
        }
        Ok(())
    }

    pub(super) fn get_or_set(&mut self, key: &str, plugin: Plugin, at: CallContext) -> Result<Found, Error> {
        self.check_write()?;
        check_text("key", key)?;
        if !self.is_reached(at)? {
            // During an outage the key's lease is unknown. The new lease is not stored, so a later fill stores nothing.
            let lease = self.next();
            return self.hold(key, plugin, lease, true, |held| held.plugin == plugin);
        }
        if let Some(value) = self.value(key, at.now) {
            return Ok(Found::Value(value));
        }
        match self.lease(key, at.now) {
            Some(found) => self.hold(key, plugin, found, false, |held| held.plugin == plugin && held.lease == found),
            None => {
                let id = self.next();
                self.leases.insert(key.to_owned(), Lease { id, lapses_at: at.now.saturating_add(MAX_LEASE) });
                self.hold(key, plugin, id, true, |_| false)
            }
        }
    }

    pub(super) fn get_or_refresh(
        &mut self,
        key: &str,
        stale: Duration,
        plugin: Plugin,
        at: CallContext,
    ) -> Result<FoundFresh, Error> {
        self.check_write()?;
        check_text("key", key)?;
        let stale = u64::try_from(self.settings.resolve_stale(stale)?.as_millis()).unwrap_or(u64::MAX);
        let found = self.entries.get(key).filter(|stored| at.outage.is_none() && stored.is_live(at.now));
        let Some(Stored { value, version, expires_at }) = found else {
            return Ok(match self.get_or_set(key, plugin, at)? {
                Found::Value(value) => FoundFresh::Fresh(value),
                Found::Vacancy(held) => FoundFresh::Vacancy(held),
            });
        };
        let (value, version) = (value.clone(), *version);
        if expires_at.is_none_or(|end| end.saturating_sub(at.now) > stale) {
            return Ok(FoundFresh::Fresh(value));
        }
        if self.refreshes.get(key).is_some_and(|refresh| at.now < refresh.end()) {
            return Ok(FoundFresh::Stale(value, None));
        }
        let id = self.next();
        let lapses_at = at.now.saturating_add(MAX_LEASE);
        self.refreshes.insert(key.to_owned(), Refresh::Held { id, lapses_at });
        self.unfilled.insert(id);
        let replaces = Some(version);
        let held = HeldVacancy { id, key: key.to_owned(), plugin, lease: id, is_ours: false, replaces };
        Ok(FoundFresh::Stale(value, Some(held)))
    }

    pub(super) fn fill(
        &mut self,
        held: &HeldVacancy,
        value: &[u8],
        duration: Duration,
        stale: Option<Duration>,
        at: CallContext,
    ) -> Result<bool, Error> {
        let mut duration = self.settings.resolve(duration)?;
        if let Some(stale) = stale {
            duration = self.settings.with_stale(duration, self.settings.resolve_stale(stale)?);
        }
        self.settings.check_value(value)?;
        check_outage(at)?;
        let is_stored = match held.replaces {
            None => self.lease(&held.key, at.now) == Some(held.lease),
            Some(version) => {
                self.unfilled.remove(&held.id);
                if self.refreshes.get(&held.key).is_some_and(|refresh| refresh.is_of(held.id)) {
                    self.refreshes.remove(&held.key);
                }
                self.entries.get(&held.key).is_some_and(|stored| stored.is_live(at.now) && stored.version == version)
            }
        };
        if is_stored {
            self.insert(&held.key, value, duration, at.now);
        }
        Ok(is_stored)
    }

    /// Ends the lease of a vacancy that was filled or dropped.
    pub(super) fn give_back(&mut self, held: &HeldVacancy, at: CallContext) {
        self.held.retain(|other| other.id != held.id);
        if self.unfilled.remove(&held.id) {
            let is_of_another = |refresh: &Refresh| {
                matches!(refresh, Refresh::Held { lapses_at, .. } if at.now < *lapses_at) && !refresh.is_of(held.id)
            };
            if !self.refreshes.get(&held.key).is_some_and(is_of_another) {
                self.refreshes.insert(held.key.clone(), Refresh::FailedUntil(at.now.saturating_add(PAUSE)));
            }
        }
        if held.is_ours && self.leases.get(&held.key).is_some_and(|lease| lease.id == held.lease) {
            self.leases.remove(&held.key);
        }
    }

    pub(super) fn clear(&mut self, key: &str, at: CallContext) -> Result<bool, Error> {
        self.check_write()?;
        check_text("key", key)?;
        check_outage(at)?;
        Ok(self.remove(at.now, |candidate| candidate == key) > 0)
    }

    pub(super) fn clear_pattern(&mut self, pattern: &str, at: CallContext) -> Result<u64, Error> {
        self.check_write()?;
        check_text("pattern", pattern)?;
        if !glob::is_allowed(pattern.as_bytes()) {
            let rule = "pattern: a range must not go from an ASCII to a non-ASCII character";
            return Err(Error::InvalidArgument(rule.to_owned()));
        }
        check_outage(at)?;
        Ok(self.remove(at.now, |candidate| glob::matches(pattern.as_bytes(), candidate.as_bytes())))
    }

    pub(super) fn clear_all(&mut self, at: CallContext) -> Result<u64, Error> {
        self.check_write()?;
        check_outage(at)?;
        Ok(self.remove(at.now, |_| true))
    }

    /// Returns the entries that have not expired.
    pub(super) fn live(&self, now: u64) -> impl Iterator<Item = (&str, &Stored)> {
        let entries = self.entries.iter().map(|(key, stored)| (key.as_str(), stored));
        entries.filter(move |(_, stored)| stored.is_live(now))
    }

    fn value(&self, key: &str, now: u64) -> Option<Vec<u8>> {
        self.entries.get(key).filter(|stored| stored.is_live(now)).map(|stored| stored.value.clone())
    }

    /// Returns the current lease of a key.
    fn lease(&self, key: &str, now: u64) -> Option<u64> {
        self.leases.get(key).filter(|lease| now < lease.lapses_at).map(|lease| lease.id)
    }

    /// Hands out a vacancy, unless `own` is true for a vacancy of the same key.
    fn hold(
        &mut self,
        key: &str,
        plugin: Plugin,
        lease: u64,
        is_ours: bool,
        own: impl Fn(&HeldVacancy) -> bool,
    ) -> Result<Found, Error> {
        if self.held.iter().any(|held| held.key == key && own(held)) {
            return Err(Error::InvalidArgument("key: this plugin instance holds its vacancy already".to_owned()));
        }
        let held = HeldVacancy { id: self.next(), key: key.to_owned(), plugin, lease, is_ours, replaces: None };
        self.held.push(held.clone());
        Ok(Found::Vacancy(held))
    }

    fn insert(&mut self, key: &str, value: &[u8], duration: Option<StdDuration>, now: u64) {
        let milliseconds = |duration: StdDuration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let expires_at = duration.map(|duration| now.saturating_add(milliseconds(duration)));
        self.leases.remove(key);
        let version = self.next();
        self.entries.insert(key.to_owned(), Stored { value: value.to_owned(), version, expires_at });
    }

    /// Removes the values and leases of the selected keys, and returns how many values it removed.
    fn remove(&mut self, now: u64, is_selected: impl Fn(&str) -> bool) -> u64 {
        self.leases.retain(|key, _| !is_selected(key));
        let mut removed = 0_u64;
        self.entries.retain(|key, stored| {
            let is_removed = is_selected(key);
            removed = removed.saturating_add(u64::from(is_removed && stored.is_live(now)));
            !is_removed
        });
        removed
    }

    /// Returns whether a read reaches the values. During an outage it returns false for a miss, or the error.
    fn is_reached(&self, at: CallContext) -> Result<bool, Error> {
        match (check_outage(at), self.settings.on_outage) {
            (Ok(()), _) => Ok(true),
            (Err(_), OnOutage::Miss) => Ok(false),
            (Err(error), OnOutage::Error) => Err(error),
        }
    }

    fn check_write(&self) -> Result<(), Error> {
        match self.settings.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly | Access::Denied => Err(Error::AccessDenied),
        }
    }

    fn next(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }
}

impl Stored {
    fn is_live(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl Settings {
    fn resolve(&self, duration: Duration) -> Result<Option<StdDuration>, Error> {
        let asked = match duration {
            Duration::Default => self.default_expire,
            Duration::Milliseconds(0) => {
                return Err(Error::InvalidArgument("duration: must not be zero".to_owned()));
            }
            Duration::Milliseconds(milliseconds) => Some(StdDuration::from_millis(milliseconds)),
            Duration::Unlimited => None,
        };
        let bounded = match (asked, self.max_expire) {
            (Some(asked), Some(max)) => Some(asked.min(max)),
            (asked, max) => asked.or(max),
        };
        Ok(bounded.map(|duration| duration.min(LONGEST)))
    }

    fn resolve_stale(&self, stale: Duration) -> Result<StdDuration, Error> {
        let asked = match stale {
            Duration::Default => self.default_expire,
            Duration::Milliseconds(0) | Duration::Unlimited => None,
            Duration::Milliseconds(milliseconds) => Some(StdDuration::from_millis(milliseconds)),
        };
        let rule = "stale: must be neither zero nor unlimited";
        let asked = asked.ok_or_else(|| Error::InvalidArgument(rule.to_owned()))?;
        Ok(asked.min(self.max_expire.map_or(LONGEST, |max| max.checked_div(2).unwrap_or(max))))
    }

    /// The life of a value that is fresh for `duration` and then stale.
    fn with_stale(&self, duration: Option<StdDuration>, stale: StdDuration) -> Option<StdDuration> {
        let total = duration?.saturating_add(stale).min(LONGEST);
        Some(self.max_expire.map_or(total, |max| total.min(max)))
    }

    fn check_value(&self, value: &[u8]) -> Result<(), Error> {
        if value.len() > self.max_value_bytes {
            return Err(too_large(self.max_value_bytes));
        }
        if value.starts_with(LEASE_MARK) {
            let rule = "value: must not begin with the bytes that mark a lease";
            return Err(Error::InvalidArgument(rule.to_owned()));
        }
        Ok(())
    }
}

fn check_outage(at: CallContext) -> Result<(), Error> {
    match at.outage {
        None => Ok(()),
        Some(Outage::Unavailable) => Err(Error::Unavailable),
        Some(Outage::Timeout) => Err(Error::Timeout),
    }
}

/// Checks a key or a pattern.
fn check_text(argument: &str, text: &str) -> Result<(), Error> {
    let broken = if text.is_empty() {
        "must not be empty".to_owned()
    } else if text.len() > MAX_TEXT {
        format!("must not be longer than {MAX_TEXT} bytes, but has {}", text.len())
    } else if text.bytes().any(|byte| byte.is_ascii_control()) {
        "must not hold control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgument(format!("{argument}: {broken}")))
}

/// Checks the limits of a batch, given the size in bytes of each key or entry.
fn check_batch(argument: &str, bytes: impl ExactSizeIterator<Item = usize>) -> Result<(), Error> {
    let count = bytes.len();
    let broken = if count > MAX_BATCH {
        format!("must not be more than {MAX_BATCH}, but are {count}")
    } else {
        match bytes.fold(0, usize::saturating_add) {
            bytes if bytes > MAX_BATCH_BYTES => format!("must not be over {MAX_BATCH_BYTES} bytes, but are {bytes}"),
            _ => return Ok(()),
        }
    };
    Err(Error::InvalidArgument(format!("{argument}: {broken}")))
}

fn too_large(max: usize) -> Error {
    Error::ValueTooLarge(u64::try_from(max).unwrap_or(u64::MAX))
}
