//! The core of the near tier: the entries, the fetches under way and the feeds, without I/O.
//!
//! All changes are made under one lock, so a change sees each other one as a whole. A hit takes no lock.

// Decision: docs/decisions/0081-a-near-tier-tracks-what-it-has-read.md

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{NearStatus, WithLife};
use crate::error::CacheError;
use crate::key::{Key, KeyRef, Selection};
use crate::near::NearOptions;
use crate::near::feeds::{Feeds, Stamp};
use crate::ram::clock::{Clock, NEVER};
use crate::ram::partition::{Partitions, Stored, Usage};

/// The most feeds at a time. What is read over further ones is not kept. Each connection to a server or a node of a cluster
/// has one, so 64 nodes may have 64 connections each.
const MAX_FEEDS: u16 = 4096;

/// What a read returns.
pub(crate) type Reply = Result<Option<Bytes>, CacheError>;

/// The reply to a fetch for those who joined it, and the earliest time at which its value may have expired.
type Shared = watch::Receiver<Option<(Reply, u64)>>;

/// The state of the near tier of one cache.
#[derive(Debug)]
pub(crate) struct Tier {
    entries: Partitions<Read>,
    clock: Clock,
    feeds: Feeds,
    /// The fetches under way that others may join and that may be kept. One that is poisoned is not in it any more.
    /// A std mutex: nothing awaits while it is locked.
    pending: Mutex<HashMap<Key, Pending>>,
    /// The number of the next fetch.
    next: AtomicU64,
    /// In milliseconds of the clock.
    max_staleness: u64,
    /// For how long after its begin a fetch may be joined and waited for, in milliseconds.
    joined_for: u64,
    max_expire: Option<StdDuration>,
    max_value_bytes: usize,
    counters: Counters,
}

/// What is counted for the metrics.
#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    invalidations: AtomicU64,
    flushes: AtomicU64,
    losses: AtomicU64,
}

/// Why what was read over a feed is not served any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// The server announced that any key may have changed.
    Announced,
    /// The feed has ended.
    Ended,
}

/// A fetch under way.
#[derive(Debug)]
struct Pending {
    number: u64,
    begun: u64,
    reply: Shared,
}

impl Pending {
    fn joined_until(&self, tier: &Tier) -> u64 {
        self.begun.saturating_add(tier.joined_for)
    }
}

/// What a call does that asks for a key.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The value is near.
    Hit(Bytes),
    /// Another call fetches the key.
    Join(Join),
    /// This call fetches the key.
    Fetch(Fetch),
}

/// A fetch of another call.
#[derive(Debug)]
pub(crate) struct Join {
    tier: Arc<Tier>,
    reply: Shared,
    /// When the fetch is as old as a read may take, and `max_staleness` at most; `None` if that is out of the clock's range.
    deadline: Option<Instant>,
}

impl Join {
    /// The reply to the fetch. `None` if the call that made it was given up, or has not taken the reply in time: its
    /// plugin may get few turns. `None` also for a value that may have expired, perhaps before this call began.
    pub(crate) async fn reply(mut self) -> Option<Reply> {
        let reply = self.reply.wait_for(Option::is_some);
        let reply = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, reply).await.ok()?,
            None => reply.await,
        };
        let (reply, expires_at) = reply.ok()?.clone()?;
        self.tier.clock.is_before(expires_at).then_some(reply)
    }
}

/// What a server returned for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The value; a lease is none.
    pub(crate) value: Option<Bytes>,
    /// `None` if the server does not announce changes of the key.
    pub(crate) keep: Option<Keep>,
}

/// What is needed to keep a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// The feed that announces changes of the key, as it was before the read was sent.
    pub(crate) stamp: Stamp,
    /// The remaining life of the value when it was read, or later; `None` without expiry.
    pub(crate) life: Option<StdDuration>,
}

/// What is stored beside a value.
#[derive(Debug, Clone, Copy)]
struct Read {
    /// The feed over which it was read.
    stamp: Stamp,
    // Decision: docs/decisions/0091-a-life-that-is-shortened-is-a-change.md
    /// When the value expires on the server, as far as was known when it was read. With `max_expire` the entry may expire
    /// earlier.
    expires_on_server_at: u64,
}

impl Tier {
    /// `timeout` is that of a read: a fetch that takes longer is given up, or its caller gets no turn.
    pub(crate) fn new(options: &NearOptions, timeout: StdDuration) -> Self {
        let mut tier = Self::with_clock(options, Clock::new(), MAX_FEEDS);
        tier.joined_for = u64::try_from(timeout.as_millis()).unwrap_or(NEVER).min(tier.max_staleness);
        tier
    }

    pub(super) fn with_clock(options: &NearOptions, clock: Clock, max_feeds: u16) -> Self {
        let max_staleness = u64::try_from(options.staleness().as_millis()).unwrap_or(NEVER);
        Self {
            entries: Partitions::new(options.max_bytes, options.max_value_bytes, &options.shares),
            clock,
            feeds: Feeds::new(max_staleness, max_feeds),
            pending: Mutex::default(),
            next: AtomicU64::new(0),
            max_staleness,
            joined_for: max_staleness,
            max_expire: options.max_expire,
            max_value_bytes: options.max_value_bytes,
            counters: Counters::default(),
        }
    }

    pub(super) fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// The time of the tier's clock, in milliseconds. It goes on while the machine sleeps.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The value of a key, if it is near and may be served.
    pub(crate) fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes> {
        self.live(key).map(|stored| stored.value)
    }

    /// The value of a key, if it is near and may be served, and if it lives longer than `stale`.
    pub(crate) fn look_up_fresh(&self, key: KeyRef<'_>, stale: StdDuration) -> Option<Bytes> {
        self.look_up_with_life(key).filter(|found| !found.is_stale(stale)).map(|found| found.value)
    }

    /// As [`Tier::look_up`], with the remaining life of the value on the server.
    pub(crate) fn look_up_with_life(&self, key: KeyRef<'_>) -> Option<WithLife> {
        let stored = self.live(key)?;
        let expiry = stored.beside.expires_on_server_at;
        let life = (expiry != NEVER).then(|| expiry.saturating_sub(self.now()));
        Some(WithLife { value: stored.value, life })
    }

    /// The last value that is known of a key, if it has not expired: also if it is too old to be served, or if the connection
    /// over which it was read was lost. `None` once a connection to its server is there again.
    pub(crate) fn last_known(&self, key: KeyRef<'_>) -> Option<Bytes> {
        let stored = self.entries.of(key).get(key)?;
        let is_known = self.feeds.is_last_known(stored.beside.stamp) && self.clock.is_before(stored.expires_at);
        is_known.then_some(stored.value)
    }

    /// The entry of a key, if it may be served.
    fn live(&self, key: KeyRef<'_>) -> Option<Stored<Read>> {
        let partition = self.entries.of(key);
        let stored = partition.get(key)?;
        let until = self.feeds.served_until(stored.beside.stamp).min(stored.expires_at);
        if self.clock.is_before(until) {
            return Some(stored);
        }
        // A late horizon may move on, and then the entry may be served again.
        partition.remove_if(key.as_str(), |stored| self.is_dead(stored) || !self.clock.is_before(stored.expires_at));
        None
    }

    /// Begins a call that asks for a key: a hit, a fetch, or a fetch of another call to wait for.
    pub(crate) fn begin(self: &Arc<Self>, key: &Key) -> Begun {
        let mut pending = self.lock();
        // A fetch of another call may have ended since the caller looked.
        if let Some(value) = self.look_up(key.as_ref()) {
            count(&self.counters.hits);
            return Begun::Hit(value);
        }
        count(&self.counters.misses);
        let now = self.now();
        match pending.get(key) {
            // A value that was read earlier may be older than `max_staleness`.
            Some(other) if now < other.joined_until(self) => {
                let time = StdDuration::from_millis(other.joined_until(self).saturating_sub(now));
                let deadline = Instant::now().checked_add(time);
                Begun::Join(Join { tier: Arc::clone(self), reply: other.reply.clone(), deadline })
            }
            _ => Begun::Fetch(self.register(&mut pending, key, now)),
        }
    }

    /// Begins the fetch of a key by a call that cannot wait for another one's. `None` if there is one.
    pub(crate) fn begin_alone(self: &Arc<Self>, key: &Key) -> Option<Fetch> {
        let mut pending = self.lock();
        let now = self.now();
        let is_young = pending.get(key).is_some_and(|other| now < other.joined_until(self));
        (!is_young).then(|| self.register(&mut pending, key, now))
    }

    fn register(self: &Arc<Self>, pending: &mut HashMap<Key, Pending>, key: &Key, now: u64) -> Fetch {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = watch::channel(None);
        pending.insert(key.clone(), Pending { number, begun: now, reply });
        Fetch { tier: Arc::clone(self), key: key.clone(), number, begun: now, reply: sender }
    }

    /// A key has changed or may be about to: what is near may be older, and so may what is being fetched.
    pub(crate) fn invalidate(&self, key: KeyRef<'_>) {
        let mut pending = self.lock();
        pending.remove(key.as_str());
        self.entries.of(key).remove(key.as_str());
    }

    // Decision: docs/decisions/0107-a-read-of-the-same-value-leaves-the-copy.md
    /// A call is about to return this value of a key, which is not kept: what is being fetched may be older, and so may what is
    /// near, unless it is the same value.
    pub(crate) fn observed(&self, key: KeyRef<'_>, value: Option<&Bytes>) {
        self.observe(&mut self.lock(), key, value);
    }

    fn observe(&self, pending: &mut HashMap<Key, Pending>, key: KeyRef<'_>, value: Option<&Bytes>) {
        pending.remove(key.as_str());
        self.entries.of(key).remove_if(key.as_str(), |stored| Some(&stored.value) != value);
    }

    /// A server announced that a key has changed.
    pub(super) fn announced(&self, key: &str) {
        count(&self.counters.invalidations);
        self.invalidate(KeyRef::from_server(key));
    }

    /// Counts look-ups that were answered near. A look-up does not count itself: one call may make several.
    pub(crate) fn count_hits(&self, hits: usize) {
        self.counters.hits.fetch_add(u64::try_from(hits).unwrap_or(0), Ordering::Relaxed);
    }

    /// [`Tier::invalidate`] for the selected keys. Yields to other tasks in between.
    pub(crate) async fn invalidate_selected(&self, selection: &Selection) {
        // All of them: to match many keys with a slow pattern under the lock would block others.
        self.lock().clear();
        // What is stored from now on was read from now on.
        self.entries.of_namespace(selection.namespace()).take_selected(selection, &self.clock).await;
    }

    /// A feed has opened.
    pub(super) fn opened(&self) {
        self.entries.all().for_each(|partition| partition.note_deaths());
    }

    /// Keys have got another server.
    pub(crate) fn moved(&self) {
        self.feeds.note_move();
        self.entries.all().for_each(|partition| partition.note_deaths());
    }

    /// A feed was flushed or has ended. Its entries are not served any more.
    pub(super) fn flushed(&self, cause: Flush) {
        count(match cause {
            Flush::Announced => &self.counters.flushes,
            Flush::Ended => &self.counters.losses,
        });
        self.lock().clear();
        self.entries.all().for_each(|partition| partition.note_deaths());
    }

    /// Frees the memory of entries that are not served any more.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        self.entries.all().for_each(|partition| partition.sweep(now, |stored| self.is_dead(stored)));
    }

    /// A snapshot for the metrics.
    pub(crate) fn status(&self) -> NearStatus {
        let Usage { bytes, max_bytes, entries, evictions } = self.entries.usage();
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { hits, misses, invalidations, flushes, losses } = &self.counters;
        let horizon_age = self.feeds.lowest_horizon().map(|horizon| self.now().saturating_sub(horizon));
        NearStatus {
            hits: total(hits),
            misses: total(misses),
            bytes,
            max_bytes,
            entries,
            evictions,
            invalidations: total(invalidations),
            flushes: total(flushes),
            losses: total(losses),
            horizon_age: horizon_age.map(StdDuration::from_millis),
            max_staleness: StdDuration::from_millis(self.max_staleness),
        }
    }

    /// What the core would answer for a key: its entry, until when that is served, and whether a fetch may be joined.
    #[cfg(test)]
    pub(super) fn snapshot(&self, key: &Key) -> (Option<(Bytes, u64, u64)>, Option<u64>) {
        let entry = self.entries.of(key.as_ref()).get(key.as_ref());
        let entry = entry.map(|stored| (stored.value, stored.expires_at, self.feeds.served_until(stored.beside.stamp)));
        (entry, self.lock().get(key).map(|pending| pending.begun))
    }

    /// True if an entry will not be served again, nor is the last that is known of its key.
    fn is_dead(&self, stored: &Stored<Read>) -> bool {
        !self.feeds.is_current(stored.beside.stamp) && !self.feeds.is_last_known(stored.beside.stamp)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one to a counter.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A fetch that this call makes. It begins before the read is sent. If it is dropped without a reply, those who wait for
/// it ask again.
#[derive(Debug)]
pub(crate) struct Fetch {
    tier: Arc<Tier>,
    key: Key,
    number: u64,
    begun: u64,
    reply: watch::Sender<Option<(Reply, u64)>>,
}

impl Fetch {
    /// Ends the fetch with what the server returned. Keeps the value unless something poisoned the fetch.
    pub(crate) fn complete(self, fetched: &Result<Fetched, CacheError>) {
        let mut pending = self.tier.lock();
        let is_poisoned = !self.forget(&mut pending);
        if let Ok(fetched) = fetched {
            match self.stored(fetched) {
                Some(stored) if !is_poisoned => {
                    self.tier.entries.of(self.key.as_ref()).insert(self.key.clone(), stored);
                }
                _ => self.tier.observe(&mut pending, self.key.as_ref(), fetched.value.as_ref()),
            }
        }
        drop(pending);
        let reply = fetched.as_ref().map(|fetched| fetched.value.clone()).map_err(Clone::clone);
        let life = fetched.as_ref().ok().and_then(|fetched| fetched.keep).and_then(|keep| keep.life);
        self.reply.send_replace(Some((reply, self.expiry(life))));
    }

    /// The time at which a value expires that has this life left. From the time before the read was sent: the server
    /// counted the life from a later time on.
    fn expiry(&self, life: Option<StdDuration>) -> u64 {
        let milliseconds = life.map(|life| u64::try_from(life.as_millis()).unwrap_or(NEVER));
        milliseconds.map_or(NEVER, |life| self.begun.saturating_add(life))
    }

    /// The entry for a value that may be kept.
    fn stored(&self, fetched: &Fetched) -> Option<Stored<Read>> {
        let value = fetched.value.clone().filter(|value| value.len() <= self.tier.max_value_bytes)?;
        let Keep { stamp, life } = fetched.keep.filter(|keep| self.tier.feeds.is_current(keep.stamp))?;
        let expires_on_server_at = self.expiry(life);
        // Without `max_expire` this is `NEVER` too.
        let expires_at = expires_on_server_at.min(self.expiry(self.tier.max_expire));
        Some(Stored { value, expires_at, beside: Read { stamp, expires_on_server_at } })
    }

    /// Removes the fetch from those that others may join. Returns false if it was poisoned.
    fn forget(&self, pending: &mut HashMap<Key, Pending>) -> bool {
        let is_own = pending.get(self.key.as_str()).is_some_and(|pending| pending.number == self.number);
        if is_own {
            pending.remove(self.key.as_str());
        }
        is_own
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // Whoever waits learns it when the sender is dropped.
        let mut pending = self.tier.lock();
        self.forget(&mut pending);
    }
}
