//! One cache in memory: the host's rules, in the order in which the host looks at them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration as StdDuration;

use crate::bindings::{Duration, Error};
use crate::testing::{Access, OnOutage, Outage, glob};

/// The longest key and the longest pattern, in bytes.
const MAX_TEXT: usize = 1024;

/// The most keys of one batch.
const MAX_BATCH: usize = 1024;

/// The most bytes of keys and values of one batch.
const MAX_BATCH_BYTES: usize = 64 << 20;

/// How long a vacancy keeps others from computing, in milliseconds.
const MAX_LEASE: u64 = 5 * 60 * 1000;

/// The longest finite duration, 100 years.
const LONGEST: StdDuration = StdDuration::from_secs(100 * 365 * 24 * 60 * 60);

/// What no value may begin with: it marks a lease.
const LEASE_MARK: &[u8] = b"\0larder-lease:";

/// What the operator decided about the cache.
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

/// A plugin instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plugin(pub(super) u64);

/// When a call is made: milliseconds since the clock's start, and whether anything can be reached then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: u64,
    pub(super) outage: Option<Outage>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) settings: Settings,
    entries: BTreeMap<String, Stored>,
    /// Who computes which key. A value and a lease exclude each other.
    leases: HashMap<String, Lease>,
    /// All vacancies that are out.
    held: Vec<Held>,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Stored {
    value: Vec<u8>,
    /// None without expiry.
    pub(super) expires_at: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: u64,
    lapses_at: u64,
}

/// A vacancy in a plugin's hand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    id: u64,
    key: String,
    plugin: Plugin,
    /// What the key must still hold for a fill to store.
    lease: u64,
    /// Not where it is that of another vacancy.
    is_ours: bool,
}

/// What a `get-or-set` found.
#[derive(Debug)]
pub(super) enum Found {
    Value(Vec<u8>),
    Vacancy(Held),
}

impl Store {
    pub(super) fn get(&mut self, key: &str, at: Moment) -> Result<Option<Vec<u8>>, Error> {
        check_text("key", key)?;
        if self.is_reached(at)? { Ok(self.value(key, at.now)) } else { Ok(None) }
    }

    pub(super) fn get_many(&mut self, keys: &[String], at: Moment) -> Result<Vec<Option<Vec<u8>>>, Error> {
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

    pub(super) fn set(&mut self, key: &str, value: &[u8], duration: Duration, at: Moment) -> Result<(), Error> {
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
        at: Moment,
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

    pub(super) fn get_or_set(&mut self, key: &str, plugin: Plugin, at: Moment) -> Result<Found, Error> {
        self.check_write()?;
        check_text("key", key)?;
        if !self.is_reached(at)? {
            // Nobody says whether the key has a lease, so the one of this vacancy is nowhere.
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

    pub(super) fn fill(&mut self, held: &Held, value: &[u8], duration: Duration, at: Moment) -> Result<bool, Error> {
        let duration = self.settings.resolve(duration)?;
        self.settings.check_value(value)?;
        check_outage(at)?;
        let is_stored = self.lease(&held.key, at.now) == Some(held.lease);
        if is_stored {
            self.insert(&held.key, value, duration, at.now);
        }
        Ok(is_stored)
    }

    /// A vacancy is filled or dropped: whatever lease it still has ends.
    pub(super) fn give_back(&mut self, held: &Held) {
        self.held.retain(|other| other.id != held.id);
        if held.is_ours && self.leases.get(&held.key).is_some_and(|lease| lease.id == held.lease) {
            self.leases.remove(&held.key);
        }
    }

    pub(super) fn clear(&mut self, key: &str, at: Moment) -> Result<bool, Error> {
        self.check_write()?;
        check_text("key", key)?;
        check_outage(at)?;
        Ok(self.remove(at.now, |candidate| candidate == key) > 0)
    }

    pub(super) fn clear_pattern(&mut self, pattern: &str, at: Moment) -> Result<u64, Error> {
        self.check_write()?;
        check_text("pattern", pattern)?;
        if !glob::is_allowed(pattern.as_bytes()) {
            let rule = "pattern: a range must not go from an ASCII to a non-ASCII character";
            return Err(Error::InvalidArgument(rule.to_owned()));
        }
        check_outage(at)?;
        Ok(self.remove(at.now, |candidate| glob::matches(pattern.as_bytes(), candidate.as_bytes())))
    }

    pub(super) fn clear_all(&mut self, at: Moment) -> Result<u64, Error> {
        self.check_write()?;
        check_outage(at)?;
        Ok(self.remove(at.now, |_| true))
    }

    /// The entries that are not expired.
    pub(super) fn live(&self, now: u64) -> impl Iterator<Item = (&str, &Stored)> {
        let entries = self.entries.iter().map(|(key, stored)| (key.as_str(), stored));
        entries.filter(move |(_, stored)| stored.is_live(now))
    }

    fn value(&self, key: &str, now: u64) -> Option<Vec<u8>> {
        self.entries.get(key).filter(|stored| stored.is_live(now)).map(|stored| stored.value.clone())
    }

    /// The lease that the key has.
    fn lease(&self, key: &str, now: u64) -> Option<u64> {
        self.leases.get(key).filter(|lease| now < lease.lapses_at).map(|lease| lease.id)
    }

    /// Hands a vacancy out, unless one that the caller holds is `own`.
    fn hold(
        &mut self,
        key: &str,
        plugin: Plugin,
        lease: u64,
        is_ours: bool,
        own: impl Fn(&Held) -> bool,
    ) -> Result<Found, Error> {
        if self.held.iter().any(|held| held.key == key && own(held)) {
            return Err(Error::InvalidArgument("key: this plugin instance holds its vacancy already".to_owned()));
        }
        let held = Held { id: self.next(), key: key.to_owned(), plugin, lease, is_ours };
        self.held.push(held.clone());
        Ok(Found::Vacancy(held))
    }

    fn insert(&mut self, key: &str, value: &[u8], duration: Option<StdDuration>, now: u64) {
        let milliseconds = |duration: StdDuration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let expires_at = duration.map(|duration| now.saturating_add(milliseconds(duration)));
        self.leases.remove(key);
        self.entries.insert(key.to_owned(), Stored { value: value.to_owned(), expires_at });
    }

    /// Removes the values and leases of these keys and says how many values that were.
    fn remove(&mut self, now: u64, is_meant: impl Fn(&str) -> bool) -> u64 {
        self.leases.retain(|key, _| !is_meant(key));
        let mut removed = 0_u64;
        self.entries.retain(|key, stored| {
            let goes = is_meant(key);
            removed = removed.saturating_add(u64::from(goes && stored.is_live(now)));
            !goes
        });
        removed
    }

    /// Whether a read gets to the values: not where it answers a miss instead.
    fn is_reached(&self, at: Moment) -> Result<bool, Error> {
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

fn check_outage(at: Moment) -> Result<(), Error> {
    match at.outage {
        None => Ok(()),
        Some(Outage::Unavailable) => Err(Error::Unavailable),
        Some(Outage::Timeout) => Err(Error::Timeout),
    }
}

/// The rule that keys and patterns share.
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

/// The bounds of a batch whose keys or entries have so many bytes each.
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
