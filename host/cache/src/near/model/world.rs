//! The world around the core: one key on a server, a tracked and a plain connection, callers and a clock.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration as StdDuration;

use bytes::Bytes;

use super::steps::{Announce, Bounds, Broken, Link, Step};
use super::takeover::{self, Takeover};
use super::wires::{Command, Found, Message, Version};
use crate::error::CacheError;
use crate::key::Key;
use crate::near::NearOptions;
use crate::near::feeds::{Feed, Stamp};
use crate::near::tier::{Begun, Fetch, Fetched, Keep, Tier};
use crate::ram::clock::Clock;

/// The milliseconds of a tick. `max_staleness` is two of them.
const TICK: u64 = 100;
const MAX_STALENESS: u64 = 2 * TICK;

/// A call of this process.
#[derive(Debug)]
struct Call {
    begun: u64,
    /// The newest version that was returned before the call began.
    floor: usize,
    kind: Kind,
    reply: Option<Found>,
}

#[derive(Debug)]
enum Kind {
    Fetch(Option<Fetch>, Option<Stamp>),
    /// Waits for the fetch of this call.
    Join(usize),
    Plain,
    Write,
    Over,
}

pub(super) struct World {
    pub(super) bounds: Bounds,
    pub(super) broken: Option<Broken>,
    clock: Arc<AtomicU64>,
    tier: Arc<Tier>,
    pub(super) feed: Feed,
    key: Key,
    versions: Vec<Version>,
    /// Whether the server would announce the next change to the tracked connection.
    is_tracked: bool,
    /// By link: the commands under way, what the server says in this turn, and the messages under way.
    commands: [VecDeque<Command>; 2],
    turn: [Vec<Message>; 2],
    deferred: Vec<Message>,
    messages: [VecDeque<Message>; 2],
    is_broken: bool,
    is_pinging: bool,
    pub(super) takeover: Takeover,
    calls: Vec<Call>,
    /// The newest version that a call has returned.
    returned: usize,
    pub(super) hits: u64,
    pub(super) joins: u64,
    pub(super) violation: Option<String>,
}

impl World {
    pub(super) fn new(bounds: Bounds, broken: Option<Broken>) -> Self {
        let clock = Arc::new(AtomicU64::new(1000 * TICK));
        let options = NearOptions {
            max_bytes: 1 << 12,
            max_staleness: StdDuration::from_millis(MAX_STALENESS),
            max_value_bytes: 64,
            ..NearOptions::default()
        };
        let tier = Arc::new(Tier::with_clock(&options, Clock::set_by(&clock), 2));
        let feed = if bounds.takeovers > 0 { Feed::open_partial(&tier, "a") } else { Feed::open(&tier) };
        let feed = feed.unwrap();
        takeover::prepare(&feed, &bounds);
        let expires_at = bounds.expires_at.map(|ticks| (1000 + ticks) * TICK);
        Self {
            bounds,
            broken,
            clock,
            tier,
            feed,
            key: Key::new(None, "k").unwrap(),
            versions: vec![Version { has_value: true, expires_at, until: None }],
            is_tracked: false,
            commands: Default::default(),
            turn: Default::default(),
            deferred: Vec::new(),
            messages: Default::default(),
            is_broken: false,
            is_pinging: false,
            takeover: Takeover::default(),
            calls: Vec::new(),
            returned: 0,
            hits: 0,
            joins: 0,
            violation: None,
        }
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// The steps that are possible now.
    pub(super) fn steps(&self) -> Vec<Step> {
        let bounds = &self.bounds;
        let mut steps = Vec::new();
        let mut add = |is_possible: bool, step: Step| {
            if is_possible {
                steps.push(step);
            }
        };
        add(bounds.ticks > 0, Step::Tick);
        add(bounds.breaks > 0 && !self.is_broken, Step::Break);
        add(self.is_broken, Step::Reconnect);
        add(bounds.pings > 0 && !self.is_pinging, Step::Ping);
        add(bounds.flushes > 0, Step::Flush);
        add(bounds.foreign_writes > 0, Step::ForeignWrite);
        add(bounds.own_writes > 0 && !self.takeover.loses_writes(), Step::OwnWrite);
        add(bounds.plain_reads > 0, Step::PlainRead);
        add(bounds.reads > 0, Step::Read);
        add(self.turn.iter().any(|said| !said.is_empty()) || !self.deferred.is_empty(), Step::EndTurn);
        for link in [Link::Tracked, Link::Plain] {
            add(!self.commands[link as usize].is_empty(), Step::Execute(link));
            add(!self.messages[link as usize].is_empty(), Step::Deliver(link));
        }
        for (number, call) in self.calls.iter().enumerate() {
            add(call.reply.is_some() && !matches!(call.kind, Kind::Over), Step::Finish(number));
        }
        steps.extend(self.takeover_steps());
        steps
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Read => self.read(),
            Step::PlainRead => {
                self.bounds.plain_reads -= 1;
                let call = self.call(Kind::Plain);
                self.send(Link::Plain, Command::Get(call));
            }
            Step::OwnWrite => {
                self.bounds.own_writes -= 1;
                self.tier.invalidate(self.key.as_ref());
                let call = self.call(Kind::Write);
                let is_apart = self.bounds.writes_apart || self.takeover.is_followed();
                let link = if is_apart { Link::Plain } else { Link::Tracked };
                self.send(link, Command::Set(call));
            }
            Step::ForeignWrite => {
                self.bounds.foreign_writes -= 1;
                self.store(true);
                self.announce(Message::Changed);
            }
            Step::TakeOver => self.take_over(),
            Step::Learn => self.learn(),
            Step::NewMap => self.follow(),
            Step::Flush => {
                self.bounds.flushes -= 1;
                self.store(false);
                self.announce(Message::AllChanged);
            }
            Step::Ping => {
                self.bounds.pings -= 1;
                self.is_pinging = true;
                self.send(Link::Tracked, Command::Ping(self.now()));
            }
            Step::Execute(link) => self.execute(link),
            Step::EndTurn => self.end_turn(),
            Step::Deliver(link) => self.deliver(link),
            Step::Finish(call) => self.finish(call),
            Step::Break => {
                self.bounds.breaks -= 1;
                self.is_broken = true;
                self.is_tracked = false;
                self.commands[Link::Tracked as usize].clear();
                self.turn[Link::Tracked as usize].clear();
                self.messages[Link::Tracked as usize].clear();
                self.deferred.clear();
            }
            Step::Reconnect => self.reconnect(),
            Step::Tick => self.tick(),
        }
    }

    fn tick(&mut self) {
        self.bounds.ticks -= 1;
        let now = self.clock.fetch_add(TICK, Ordering::SeqCst) + TICK;
        if self.versions.last().unwrap().expires_at.is_some_and(|expires_at| expires_at == now) {
            // The server finds an expired key late.
            self.store(false);
        }
        if self.broken == Some(Broken::NoHorizon) {
            self.feed.complete_up_to(now);
        }
    }

    fn call(&mut self, kind: Kind) -> usize {
        self.calls.push(Call { begun: self.now(), floor: self.returned, kind, reply: None });
        self.calls.len() - 1
    }

    fn send(&mut self, link: Link, command: Command) {
        if !(self.is_broken && link == Link::Tracked) {
            self.commands[link as usize].push_back(command);
        }
    }

    fn read(&mut self) {
        self.bounds.reads -= 1;
        let begun = self.tier.begin(&self.key);
        let poisoned = self.calls.iter().position(|call| matches!(call.kind, Kind::Fetch(..)));
        match begun {
            Begun::Hit(value) => {
                self.hits += 1;
                let version = usize::from(value[0]);
                let call = self.call(Kind::Plain);
                let is_expired = self.versions[version].expires_at.is_some_and(|expires_at| expires_at <= self.now());
                if is_expired {
                    self.violation = Some(format!("P4: version {version} was served after its expiry"));
                }
                self.end(call, version);
            }
            Begun::Fetch(fetch) => match poisoned.filter(|_| self.broken == Some(Broken::JoinPoisoned)) {
                Some(other) => {
                    drop(fetch);
                    self.call(Kind::Join(other));
                }
                None => {
                    let stamp = self.stamp();
                    let call = self.call(Kind::Fetch(Some(fetch), stamp));
                    let link = if self.takeover.is_followed() { Link::Plain } else { Link::Tracked };
                    self.send(link, Command::Get(call));
                }
            },
            Begun::Join(_) => {
                self.joins += 1;
                // The only one that can be joined is the last.
                let last = self.calls.iter().rposition(|call| matches!(call.kind, Kind::Fetch(..))).unwrap();
                self.call(Kind::Join(last));
            }
        }
    }

    /// The key gets a new version.
    fn store(&mut self, has_value: bool) {
        let newest = self.newest();
        if !self.takeover.is_current(newest) {
            self.replaced(newest);
        }
        self.versions.push(Version { has_value, expires_at: None, until: None });
    }

    /// No node answers with this version from now on.
    pub(super) fn replaced(&mut self, version: usize) {
        self.versions[version].until = Some(self.now());
    }

    pub(super) fn newest(&self) -> usize {
        self.versions.len() - 1
    }

    /// Whether a write is under way to the node at the other end of the tracked connection.
    pub(super) fn is_writing(&self) -> bool {
        self.commands[Link::Tracked as usize].iter().any(|command| matches!(command, Command::Set(_)))
    }

    fn announce(&mut self, message: Message) {
        match self.bounds.announce {
            _ if self.is_broken || self.takeover.kept().is_some() => {}
            Announce::AtOnce if self.is_tracked || message == Message::AllChanged => {
                self.is_tracked = false;
                self.messages[Link::Tracked as usize].push_back(message);
            }
            Announce::AtOnce => {}
            Announce::EndOfTurn => self.deferred.push(message),
        }
    }

    fn say(&mut self, link: Link, message: Message) {
        match self.bounds.announce {
            Announce::AtOnce => self.messages[link as usize].push_back(message),
            Announce::EndOfTurn => self.turn[link as usize].push(message),
        }
    }

    fn execute(&mut self, link: Link) {
        let is_refused = link == Link::Tracked && self.takeover.is_refused();
        match self.commands[link as usize].pop_front().unwrap() {
            Command::Get(call) | Command::Set(call) if is_refused => self.say(link, Message::Moved(call)),
            Command::Get(call) => {
                self.is_tracked |= link == Link::Tracked;
                let found = self.found(self.takeover.kept().filter(|_| link == Link::Tracked));
                self.say(link, Message::Reply(call, found));
            }
            Command::Set(call) => {
                self.store(true);
                let found = self.found(None);
                // A change by the connection itself is announced after the reply.
                self.say(link, Message::Reply(call, found));
                self.announce(Message::Changed);
            }
            Command::Ping(sent) => self.say(link, Message::Pong(sent, !is_refused)),
        }
    }

    /// The newest version, or an older one that the node still has.
    fn found(&self, kept: Option<usize>) -> Found {
        let version = kept.unwrap_or(self.newest());
        let Version { has_value, expires_at, .. } = self.versions[version];
        Found { version, has_value, life: expires_at.map(|expires_at| expires_at - self.now()) }
    }

    fn end_turn(&mut self) {
        for (said, messages) in self.turn.iter_mut().zip(&mut self.messages) {
            messages.extend(said.drain(..));
        }
        self.messages[Link::Tracked as usize].extend(self.deferred.drain(..));
    }

    fn deliver(&mut self, link: Link) {
        match self.messages[link as usize].pop_front().unwrap() {
            Message::Reply(call, found) => self.calls[call].reply = Some(found),
            Message::Moved(call) => self.redirected(call),
            Message::Pong(sent, has_part) => {
                self.is_pinging = false;
                self.learn_parts(has_part);
                if self.broken == Some(Broken::OnePing) {
                    self.feed.complete_up_to(sent);
                }
                self.feed.answered(sent);
            }
            Message::Changed => self.feed.announced(self.key.as_str()),
            Message::AllChanged if self.broken == Some(Broken::NoFlush) => {}
            Message::AllChanged => self.feed.flush(),
        }
    }

    fn finish(&mut self, number: usize) {
        let found = self.calls[number].reply.unwrap();
        match std::mem::replace(&mut self.calls[number].kind, Kind::Over) {
            Kind::Fetch(fetch, stamp) => {
                let mut fetch = fetch.unwrap();
                if self.broken == Some(Broken::NoPoison) {
                    drop(fetch);
                    self.tier.invalidate(self.key.as_ref());
                    fetch = self.tier.begin_alone(&self.key).unwrap();
                }
                fetch.complete(&Ok(self.fetched(found, stamp)));
                self.end_joined(number, found.version);
            }
            Kind::Plain if self.broken != Some(Broken::NoObserve) => {
                self.tier.observed(self.key.as_ref(), self.fetched(found, None).value.as_ref());
            }
            Kind::Write if self.broken != Some(Broken::InvalidateBeforeOnly) => {
                self.tier.invalidate(self.key.as_ref());
                if self.broken == Some(Broken::StoreAfterWrite) {
                    let fetched = self.fetched(found, self.feed.stamp());
                    self.tier.begin_alone(&self.key).unwrap().complete(&Ok(fetched));
                }
            }
            _ => {}
        }
        self.end(number, found.version);
    }

    /// Sends the command of a call to the node that has the key. What that returns is not kept.
    fn redirected(&mut self, call: usize) {
        self.follow();
        let command = match &mut self.calls[call].kind {
            Kind::Fetch(_, stamp) => {
                *stamp = None;
                Command::Get(call)
            }
            Kind::Write => Command::Set(call),
            _ => Command::Get(call),
        };
        self.send(Link::Plain, command);
    }

    fn fetched(&self, found: Found, stamp: Option<Stamp>) -> Fetched {
        let life = found.life.filter(|_| self.broken != Some(Broken::NoExpiry)).map(StdDuration::from_millis);
        let value = found.has_value.then(|| Bytes::from(vec![u8::try_from(found.version).unwrap()]));
        Fetched { value, keep: stamp.map(|stamp| Keep { stamp, life }) }
    }

    fn end_joined(&mut self, fetch: usize, version: usize) {
        for number in 0..self.calls.len() {
            if matches!(self.calls[number].kind, Kind::Join(joined) if joined == fetch) {
                self.end(number, version);
            }
        }
    }

    /// A call returns this version.
    fn end(&mut self, number: usize, version: usize) {
        let Call { begun, floor, .. } = self.calls[number];
        self.calls[number].kind = Kind::Over;
        self.calls[number].reply = None;
        if version < floor {
            self.violation = Some(format!("P2: call {number} returned version {version} after version {floor}"));
        }
        let oldest = begun - MAX_STALENESS;
        if self.versions[version].until.is_some_and(|until| until <= oldest) {
            self.violation =
                Some(format!("P1: version {version} was replaced too long before call {number} returned it"));
        }
        self.returned = self.returned.max(version);
    }

    fn reconnect(&mut self) {
        self.is_broken = false;
        self.is_pinging = false;
        if self.broken != Some(Broken::NoFlushOnReconnect) {
            self.feed = {
                self.feed.close();
                Feed::open(&self.tier).unwrap()
            };
        }
        for number in 0..self.calls.len() {
            // What was under way fails, and so does who waits for it.
            let is_lost = self.calls[number].reply.is_none();
            match &mut self.calls[number].kind {
                Kind::Fetch(fetch, _) if is_lost => {
                    fetch.take().unwrap().complete(&Err(CacheError::Unavailable(String::new())));
                }
                Kind::Write if is_lost && !self.bounds.writes_apart => self.tier.invalidate(self.key.as_ref()),
                _ => continue,
            }
            self.calls[number].kind = Kind::Over;
            for joined in &mut self.calls {
                if matches!(joined.kind, Kind::Join(fetch) if fetch == number) {
                    joined.kind = Kind::Over;
                }
            }
        }
    }

    /// Everything that the future depends on.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let bounds = &self.bounds;
        (bounds.reads, bounds.plain_reads, bounds.own_writes, bounds.foreign_writes).hash(&mut hasher);
        (bounds.flushes, bounds.pings, bounds.breaks, bounds.ticks).hash(&mut hasher);
        (self.is_tracked, self.is_broken, self.is_pinging, self.returned, &self.versions).hash(&mut hasher);
        (&self.commands, &self.turn, &self.deferred, &self.messages).hash(&mut hasher);
        (self.takeover, self.stamp().is_some()).hash(&mut hasher);
        (self.tier.snapshot(&self.key), self.feed.snapshot()).hash(&mut hasher);
        for Call { begun, floor, kind, reply } in &self.calls {
            if !matches!(kind, Kind::Over) {
                (begun, floor, reply).hash(&mut hasher);
            }
            match kind {
                Kind::Fetch(_, stamp) => (0, stamp.is_some_and(|stamp| self.tier.feeds().is_current(stamp))),
                Kind::Join(fetch) => (4 + fetch, false),
                Kind::Plain => (1, false),
                Kind::Write => (2, false),
                Kind::Over => (3, false),
            }
            .hash(&mut hasher);
        }
        hasher.finish()
    }
}
