//! Feeds: the connections over which a server announces changes, and the time up to which each is known to be complete.
//!
//! The core of the near tier knows a feed by three events: an announcement, the end of the feed, and the answer to a
//! ping. How a server makes them is the business of its backend.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration as StdDuration;

use crate::near::parts::Parts;
use crate::near::tier::{Flush, Tier};

/// Pings within `max_staleness`.
const PINGS: u64 = 4;

/// The bits of a slot's state that count flushes. Those above them are the generation.
const FLUSH_BITS: u32 = 32;

/// The number of servers that are told apart: as many as a [`Server`] can number.
pub(super) const SERVERS: usize = 256;

/// All feeds of one tier. A feed occupies a slot while it is open.
#[derive(Debug)]
pub(super) struct Feeds {
    slots: Box<[Slot]>,
    /// The slots that are not in use, the next one at the end.
    free: Mutex<Vec<u16>>,
    /// How many feeds have opened, how many flushes were announced, and how often keys have got another server.
    news: AtomicU32,
    /// The number of the last piece of news about all servers, and about each. What was read before it is not the last that is
    /// known of a key.
    of_all: AtomicU32,
    of_server: [AtomicU32; SERVERS],
    /// The servers that are told apart, by name, and the one that was named last at the end.
    servers: Mutex<Vec<(String, Server)>>,
    /// In milliseconds of the tier's clock.
    max_staleness: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// The generation, which changes when a feed opens and when it ends, and the number of flushes of this feed.
    state: AtomicU64,
    /// The time up to which every announcement has arrived.
    horizon: AtomicU64,
}

/// The state of a feed before a read was sent over it. What was read may be served while the state is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    slot: u16,
    server: Server,
    news: u32,
    state: u64,
}

/// A server, as far as it is told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Server(u8);

impl Feeds {
    pub(super) fn new(max_staleness: u64, count: u16) -> Self {
        let slots = std::iter::repeat_with(Slot::default).take(usize::from(count)).collect();
        Self {
            slots,
            free: Mutex::new((0..count).rev().collect()),
            news: AtomicU32::new(0),
            of_all: AtomicU32::new(0),
            of_server: [const { AtomicU32::new(0) }; SERVERS],
            servers: Mutex::default(),
            max_staleness,
        }
    }

    fn slot(&self, number: u16) -> Option<&Slot> {
        self.slots.get(usize::from(number))
    }

    fn free(&self) -> MutexGuard<'_, Vec<u16>> {
        lock(&self.free)
    }

    /// True if nothing ended or flushed the feed since the stamp was taken.
    pub(super) fn is_current(&self, stamp: Stamp) -> bool {
        self.slot(stamp.slot).is_some_and(|slot| slot.state.load(Ordering::Acquire) == stamp.state)
    }

    /// True if no feed of the server has opened, no flush was announced, and no key has got another server since the stamp was
    /// taken. Then what was read under it is the last that is known of its key, also if its feed has ended.
    pub(super) fn is_last_known(&self, stamp: Stamp) -> bool {
        let is_before = |news: &AtomicU32| news.load(Ordering::Acquire) <= stamp.news;
        is_before(&self.of_all) && self.of_server(stamp.server).is_none_or(is_before)
    }

    /// The server of this name. Beyond [`SERVERS`] names it has the number of the one that was named longest ago, and its
    /// return counts for that one too.
    fn server(&self, name: &str) -> Server {
        let mut servers = lock(&self.servers);
        let known = servers.iter().position(|(known, _)| known == name);
        let server = match known {
            Some(known) => servers.remove(known).1,
            None => u8::try_from(servers.len()).map(Server).unwrap_or_else(|_| servers.remove(0).1),
        };
        servers.push((name.to_owned(), server));
        server
    }

    fn of_server(&self, server: Server) -> Option<&AtomicU32> {
        self.of_server.get(usize::from(server.0))
    }

    /// What was read until now is not the last that is known of its key: of all keys, or of those of one server.
    fn note_news(&self, of: Option<&AtomicU32>) {
        let number = self.news.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        of.unwrap_or(&self.of_all).fetch_max(number, Ordering::AcqRel);
    }

    /// Keys have got another server.
    pub(super) fn note_move(&self) {
        self.note_news(None);
    }

    /// The time at which what was read under this stamp must no longer be served, unless the horizon moves. 0 if the
    /// stamp is not current.
    pub(super) fn served_until(&self, stamp: Stamp) -> u64 {
        let Some(slot) = self.slot(stamp.slot) else { return 0 };
        // The horizon first: if the next feed in this slot has set it, the state that is read after it is that feed's.
        let horizon = slot.horizon.load(Ordering::Acquire);
        let is_current = slot.state.load(Ordering::Acquire) == stamp.state;
        if is_current { horizon.saturating_add(self.max_staleness) } else { 0 }
    }

    /// The lowest horizon of all open feeds; `None` without an open feed.
    pub(super) fn lowest_horizon(&self) -> Option<u64> {
        let is_open = |slot: &&Slot| (slot.state.load(Ordering::Acquire) >> FLUSH_BITS) % 2 == 1;
        self.slots.iter().filter(is_open).map(|slot| slot.horizon.load(Ordering::Acquire)).min()
    }
}

/// An open feed. It ends when it is closed or dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    tier: Arc<Tier>,
    slot: u16,
    server: Server,
    generation: u64,
    /// When the last ping that was answered was sent; 0 before the first.
    last_answered: AtomicU64,
    /// The parts that the server had at the last answer; `None` for a server that has all keys.
    parts: Option<Mutex<Parts>>,
}

impl Feed {
    /// Opens a feed of a server that has all keys. `None` if there are too many.
    pub(crate) fn open(tier: &Arc<Tier>) -> Option<Self> {
        Self::open_with(tier, Server::default(), None)
    }

    // Decision: docs/decisions/0083-a-node-of-a-cluster-is-asked-which-slots-it-has.md
    /// Opens a feed of a server that has some parts of the keys, and may lose them to another one without announcing it.
    /// It has none until [`Feed::has_parts`]. `None` if there are too many feeds.
    pub(crate) fn open_partial(tier: &Arc<Tier>, server: &str) -> Option<Self> {
        Self::open_with(tier, tier.feeds().server(server), Some(Mutex::new(Parts::none())))
    }

    fn open_with(tier: &Arc<Tier>, server: Server, parts: Option<Mutex<Parts>>) -> Option<Self> {
        let feeds = tier.feeds();
        let number = feeds.free().pop()?;
        let slot = feeds.slot(number)?;
        // Odd while it is open.
        let next = (slot.state.load(Ordering::Acquire) >> FLUSH_BITS).wrapping_add(1);
        let generation = (next & u64::from(u32::MAX)) | 1;
        slot.state.store(generation << FLUSH_BITS, Ordering::Release);
        // Everything that will be read over the feed is read after this time.
        slot.horizon.fetch_max(tier.now(), Ordering::AcqRel);
        feeds.note_news(feeds.of_server(server));
        tier.opened();
        Some(Self { tier: Arc::clone(tier), slot: number, server, generation, last_answered: AtomicU64::new(0), parts })
    }

    /// The tier to which this feed announces.
    pub(crate) fn tier(&self) -> &Arc<Tier> {
        &self.tier
    }

    /// The state of the feed. Taken before a read is sent over it. `None` if the feed has ended.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let feeds = self.tier.feeds();
        // The news first: what comes in between makes the stamp older than it is.
        let news = feeds.news.load(Ordering::Acquire);
        let state = feeds.slot(self.slot)?.state.load(Ordering::Acquire);
        (state >> FLUSH_BITS == self.generation).then_some(Stamp { slot: self.slot, server: self.server, news, state })
    }

    /// The state of the feed, for a read of a key of this part. `None` also if the server is not known to have the part.
    pub(crate) fn stamp_of(&self, part: impl FnOnce() -> u16) -> Option<Stamp> {
        // The stamp first: a part that is lost leaves the set before the feed is flushed.
        let stamp = self.stamp()?;
        match &self.parts {
            Some(parts) => lock(parts).contains(part()).then_some(stamp),
            None => Some(stamp),
        }
    }

    /// The server announced that a key has changed, given with its namespace and without the prefix of the cache.
    pub(crate) fn announced(&self, key: &str) {
        self.tier.announced(key);
    }

    /// The interval between the answer to a ping and the next ping. Two answers, and the time that each takes, are well
    /// within `max_staleness`.
    pub(crate) fn ping_interval(&self) -> StdDuration {
        StdDuration::from_millis(self.tier.feeds().max_staleness / PINGS)
    }

    /// The server announced that any key may have changed.
    pub(crate) fn flush(&self) {
        self.change(|state| state.wrapping_add(1));
        self.tier.feeds().note_news(None);
        self.tier.flushed(Flush::Announced);
    }

    /// Nothing more is announced. What was read over the feed is not served any more.
    pub(crate) fn close(&self) {
        if self.change(|_| self.generation.wrapping_add(1) << FLUSH_BITS) {
            self.tier.feeds().free().push(self.slot);
            self.tier.flushed(Flush::Ended);
        }
    }

    // Decision: docs/decisions/0082-the-horizon-needs-the-answers-to-two-pings.md
    /// The server answered a ping that was sent at this time, after the answer to the one before.
    ///
    /// The answer to one ping is not enough: a server may send it before the announcement of an earlier write, if it
    /// announces at the end of its turn. The second ping was sent when that turn had ended.
    pub(crate) fn answered(&self, sent: u64) {
        let previous = self.last_answered.swap(sent, Ordering::AcqRel);
        self.complete_up_to(previous);
    }

    /// The server has these parts of the keys now. What was read over the feed is not served any more if a part was lost:
    /// another server announces its writes. Returns true then.
    pub(crate) fn has_parts(&self, now: Parts) -> bool {
        let Some(parts) = &self.parts else { return false };
        let before = std::mem::replace(&mut *lock(parts), now.clone());
        let is_lost = !now.contains_all(&before);
        if is_lost {
            self.flush();
        }
        is_lost
    }

    /// Every announcement of a write up to this time has arrived.
    pub(super) fn complete_up_to(&self, time: u64) {
        if self.stamp().is_some()
            && let Some(slot) = self.tier.feeds().slot(self.slot)
        {
            // If the feed ends here and another one takes the slot, that one's horizon is later.
            slot.horizon.fetch_max(time, Ordering::AcqRel);
        }
    }

    /// The horizon, and the ping that was answered last.
    #[cfg(test)]
    pub(super) fn snapshot(&self) -> (u64, u64) {
        let horizon = self.tier.feeds().slot(self.slot).unwrap().horizon.load(Ordering::SeqCst);
        (horizon, self.last_answered.load(Ordering::SeqCst))
    }

    /// Changes the state, unless the feed has ended. More flushes than can be counted end it.
    fn change(&self, next: impl Fn(u64) -> u64) -> bool {
        let change = |state: u64| (state >> FLUSH_BITS == self.generation).then(|| next(state));
        let slot = self.tier.feeds().slot(self.slot);
        slot.is_some_and(|slot| slot.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.close();
    }
}
