//! The connections to one server: those that calls are spread over, and one for what is large.
//!
//! Answers come in the order of the calls, so on one connection a small one waits for every large one before it. What is
//! known to be large goes over a connection of its own, which is made when it is first needed.

use std::sync::OnceLock;

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::time::Instant;

use crate::valkey::connection::connector::{Opener, Target};
use crate::valkey::connection::managed::{Failure, Link, Wire};
use crate::valkey::connection::routing::Way;
use crate::{CacheError, Health};

/// The connections to one server.
#[derive(Debug)]
pub(in crate::valkey) struct Links {
    first: Link,
    /// The others that calls are spread over.
    others: Vec<Link>,
    aside: OnceLock<Link>,
    opener: Opener,
}

impl Links {
    /// Connects, and keeps the connections up.
    pub(in crate::valkey) async fn connect(opener: Opener) -> Result<Self, CacheError> {
        let first = Link::connect(opener.clone()).await?;
        let others = try_join_all(others(&opener).map(|_| Link::connect(opener.clone()))).await?;
        Ok(Self { first, others, aside: OnceLock::new(), opener })
    }

    /// Starts to connect, and keeps the connections up. Calls wait for the first attempt.
    pub(in crate::valkey) fn start(opener: Opener) -> Self {
        let others = others(&opener).map(|_| Link::start(opener.clone())).collect();
        Self { first: Link::start(opener.clone()), others, aside: OnceLock::new(), opener }
    }

    /// Starts to connect over one connection, whatever the options say.
    pub(in crate::valkey) fn start_one(opener: Opener) -> Self {
        Self { first: Link::start(opener.clone()), others: Vec::new(), aside: OnceLock::new(), opener }
    }

    /// Waits for the first attempt to connect.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub(in crate::valkey) async fn reached(&self) -> Result<(), CacheError> {
        try_join_all(self.shared().map(Link::reached)).await.map(|_| ())
    }

    /// Where they lead.
    pub(in crate::valkey) fn target(&self) -> &Target {
        &self.opener.target
    }

    /// When an exchange that begins now must be over.
    pub(in crate::valkey) fn deadline(&self) -> Instant {
        self.first.deadline()
    }

    /// Whether all stand that calls cannot do without.
    pub(in crate::valkey) fn is_up(&self) -> bool {
        self.shared().all(Link::is_up)
    }

    /// How often connections were made anew after a loss.
    pub(in crate::valkey) fn reconnects(&self) -> u64 {
        self.shared().chain(self.aside.get()).map(Link::reconnects).fold(0, u64::saturating_add)
    }

    /// Reaches the server over each connection that calls are spread over, and says what it is. The longest round trip
    /// counts.
    pub(in crate::valkey) async fn check(&self) -> Result<Health, CacheError> {
        let mut health = self.first.check().await?;
        for another in try_join_all(self.others.iter().map(Link::check)).await? {
            health.round_trip = health.round_trip.max(another.round_trip);
        }
        Ok(health)
    }

    /// Sends a command and waits for its answer, within the deadline.
    pub(in crate::valkey) async fn call<T: FromRedisValue>(&self, way: Way, command: &Cmd) -> Result<T, CacheError> {
        let deadline = self.deadline();
        self.come_behind(way, deadline).await?;
        self.link(way).call(deadline, command).await
    }

    /// Sends many commands at once and waits for all answers, within the deadline.
    pub(in crate::valkey) async fn call_all<T: FromRedisValue>(
        &self,
        way: Way,
        pipeline: &Pipeline,
    ) -> Result<T, CacheError> {
        let deadline = self.deadline();
        self.come_behind(way, deadline).await?;
        self.link(way).call_all(deadline, pipeline).await
    }

    /// Sends what depends on what the server can do, and waits for the answers, until the deadline.
    pub(in crate::valkey) async fn send<T: FromRedisValue>(
        &self,
        way: Way,
        deadline: Instant,
        is_asking: bool,
        commands: &impl Fn(&Wire) -> Pipeline,
    ) -> Result<T, Failure> {
        let behind = self.come_behind(way, deadline).await;
        behind.map_err(|error| Failure { error, redirect: None })?;
        self.link(way).send(deadline, is_asking, commands).await
    }

    /// Reads one answer of those to many commands, each of which may fail by itself.
    pub(in crate::valkey) fn read<T: FromRedisValue>(
        &self,
        answer: Option<RedisResult<Value>>,
    ) -> Result<T, CacheError> {
        self.first.read(answer)
    }

    /// Ends when the server has carried out all that was sent before over the connections that calls share, answered or
    /// not: it takes what comes over one connection in order, and no more than that.
    pub(in crate::valkey) async fn settle(&self) -> Result<(), CacheError> {
        let deadline = self.deadline();
        try_join_all(self.shared().map(|link| link.settle(deadline))).await.map(|_| ())
    }

    /// What goes aside is not to overtake a call about the same key that went another way and had no answer. Where all
    /// are answered, as they are but for a fault, there is nothing to wait for.
    async fn come_behind(&self, way: Way, deadline: Instant) -> Result<(), CacheError> {
        let unanswered = || self.shared().filter(|link| link.has_unanswered());
        if way == Way::Aside && unanswered().next().is_some() {
            // In a box, so that the future of a call that need not wait is small.
            Box::pin(try_join_all(unanswered().map(|link| link.settle(deadline)))).await?;
        }
        Ok(())
    }

    fn shared(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The connection of a way. No call waits for the one aside to be made: until it stands, the first takes its calls.
    fn link(&self, way: Way) -> &Link {
        match way {
            Way::Shared(number) => {
                let count = u64::try_from(self.others.len()).unwrap_or(0).saturating_add(1);
                let nth = number.checked_rem(count).and_then(|nth| usize::try_from(nth).ok());
                nth.and_then(|nth| nth.checked_sub(1)).and_then(|nth| self.others.get(nth)).unwrap_or(&self.first)
            }
            Way::Aside => {
                let aside = self.aside.get_or_init(|| Link::start(self.opener.clone()));
                if aside.is_up() { aside } else { &self.first }
            }
        }
    }
}

/// One for each connection but the first.
fn others(opener: &Opener) -> impl Iterator<Item = u16> {
    1..opener.options.connections
}
