//! The connection pool of one server: the regular connections, and the bulk connection.
//!
//! Replies arrive in the order of the calls, so on one connection a small reply waits for every large one before it.
//! The bulk connection takes the calls that are known to be large. It is opened when it is first needed.

use std::sync::OnceLock;

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::time::Instant;

use crate::valkey::connection::connector::{ConnectFailure, Connector, Target};
use crate::valkey::connection::managed::{Exchange, ManagedConnection};
use crate::valkey::connection::routing::Route;
use crate::valkey::error::ExchangeError;
use crate::valkey::options::Endpoint;
use crate::{CacheError, Health};

/// The replies to the commands of a batch, each of which may fail by itself.
pub(in crate::valkey) type Replies = Vec<Result<Value, CacheError>>;

/// The connections to one server.
#[derive(Debug)]
pub(in crate::valkey) struct ConnectionPool {
    first: ManagedConnection,
    /// The other regular connections.
    others: Vec<ManagedConnection>,
    bulk: OnceLock<ManagedConnection>,
    connector: Connector,
}

impl ConnectionPool {
    /// Connects, and keeps the connections open.
    pub(in crate::valkey) async fn connect(connector: Connector) -> Result<Self, ConnectFailure> {
        let first = ManagedConnection::connect(connector.clone()).await?;
        let others = others(&connector).map(|_| ManagedConnection::connect(connector.clone()));
        Ok(Self { first, others: try_join_all(others).await?, bulk: OnceLock::new(), connector })
    }

    /// Starts to connect, and keeps the connections open. Calls wait for the first attempt.
    pub(in crate::valkey) fn start(connector: Connector) -> Self {
        let others = others(&connector).map(|_| ManagedConnection::start(connector.clone())).collect();
        Self { first: ManagedConnection::start(connector.clone()), others, bulk: OnceLock::new(), connector }
    }

    /// [`ConnectionPool::start`] after an attempt that failed for this reason. Calls fail with it meanwhile.
    pub(in crate::valkey) fn start_down(connector: Connector, reason: &CacheError) -> Self {
        let start = |connector: &Connector| ManagedConnection::start_down(connector.clone(), reason.clone());
        let others = others(&connector).map(|_| start(&connector)).collect();
        Self { first: start(&connector), others, bulk: OnceLock::new(), connector }
    }

    /// Like [`ConnectionPool::start`], with one regular connection whatever the options say.
    pub(in crate::valkey) fn start_single(connector: Connector) -> Self {
        let first = ManagedConnection::start(connector.clone());
        Self { first, others: Vec::new(), bulk: OnceLock::new(), connector }
    }

    /// Waits for the first attempt to connect.
    ///
    /// # Errors
    ///
    /// The reason why it failed.
    pub(in crate::valkey) async fn reached(&self) -> Result<(), CacheError> {
        try_join_all(self.regular().map(ManagedConnection::reached)).await.map(|_| ())
    }

    /// The server of this pool.
    pub(in crate::valkey) fn target(&self) -> &Target {
        &self.connector.target
    }

    /// The deadline of an exchange that starts now.
    pub(in crate::valkey) fn deadline(&self) -> Instant {
        self.first.deadline()
    }

    /// True if every regular connection is up. The bulk connection is optional.
    pub(in crate::valkey) fn is_up(&self) -> bool {
        self.regular().all(ManagedConnection::is_up)
    }

    /// True if no open connection leads to another server than this one.
    pub(in crate::valkey) fn leads_only_to(&self, server: &Endpoint) -> bool {
        self.all().all(|connection| connection.leads_only_to(server))
    }

    /// Replaces the connections that lead to another server than this one.
    pub(in crate::valkey) fn leave_all_but(&self, server: &Endpoint) {
        self.all().for_each(|connection| connection.leave_all_but(server));
    }

    /// The number of reconnects of all connections.
    pub(in crate::valkey) fn reconnects(&self) -> u64 {
        self.all().map(ManagedConnection::reconnects).fold(0, u64::saturating_add)
    }

    /// Ends what was read over the connections for the near tier: the server has lost some of its keys to another one.
    pub(in crate::valkey) fn flush_feeds(&self) {
        self.regular().chain(self.bulk.get()).for_each(ManagedConnection::flush_feed);
    }

    /// Sends a `PING` over each regular connection. Reports the server, and the longest round trip.
    pub(in crate::valkey) async fn check(&self) -> Result<Health, CacheError> {
        let mut health = self.first.check().await?;
        for another in try_join_all(self.others.iter().map(ManagedConnection::check)).await? {
            health.round_trip = health.round_trip.max(another.round_trip);
        }
        Ok(health)
    }

    /// Sends a command and waits for its reply, within the deadline.
    pub(in crate::valkey) async fn call<T: FromRedisValue>(
        &self,
        route: Route,
        command: &Cmd,
    ) -> Result<T, CacheError> {
        let deadline = self.deadline();
        self.keep_order(route, deadline).await?;
        self.connection(route).call(deadline, command).await
    }

    /// The longest reply, in bytes.
    pub(in crate::valkey) fn reply_limit(&self) -> u64 {
        self.connector.limits.reply.reply
    }

    /// Sends a command over the bulk connection and waits for its reply, within the deadline. Strings over the reply
    /// limit are errors within the reply.
    pub(in crate::valkey) async fn call_bulk<T: FromRedisValue>(&self, command: Cmd) -> Result<T, CacheError> {
        let mut replies = self.batch(Route::Bulk, |exchange| exchange.single(command)).await?;
        self.first.read(replies.pop())
    }

    /// Sends commands that depend on the connection in one step, and waits for all replies, within the deadline. Each
    /// command may fail by itself.
    pub(in crate::valkey) async fn batch(
        &self,
        route: Route,
        commands: impl FnOnce(&Exchange) -> Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, CacheError> {
        let deadline = self.deadline();
        self.keep_order(route, deadline).await?;
        self.connection(route).batch(deadline, commands).await
    }

    /// Sends commands that depend on the connection, and waits for their replies until the deadline.
    pub(in crate::valkey) async fn exchange<T: FromRedisValue>(
        &self,
        route: Route,
        deadline: Instant,
        is_asking: bool,
        commands: &impl Fn(&Exchange) -> Pipeline,
    ) -> Result<T, ExchangeError> {
        self.keep_order(route, deadline).await?;
        self.connection(route).exchange(deadline, is_asking, commands).await
    }

    /// Converts the replies to a batch.
    pub(in crate::valkey) fn read_batch(&self, replies: Vec<RedisResult<Value>>) -> Replies {
        replies.into_iter().map(|reply| self.first.read(Some(reply.and_then(Value::extract_error)))).collect()
    }

    /// Returns when the server has executed everything that was sent before over the regular connections, including
    /// calls that timed out.
    pub(in crate::valkey) async fn barrier(&self) -> Result<(), CacheError> {
        let deadline = self.deadline();
        try_join_all(self.regular().map(|connection| connection.barrier(deadline))).await.map(|_| ())
    }

    /// A bulk call waits for timed-out calls on the regular connections, to keep each key's order. Without a fault
    /// there is none.
    async fn keep_order(&self, route: Route, deadline: Instant) -> Result<(), CacheError> {
        let unanswered = || self.regular().filter(|connection| connection.has_unanswered());
        if route == Route::Bulk && unanswered().next().is_some() {
            // Boxed, to keep the future of a call that does not wait small.
            Box::pin(try_join_all(unanswered().map(|connection| connection.barrier(deadline)))).await?;
        }
        Ok(())
    }

    fn regular(&self) -> impl Iterator<Item = &ManagedConnection> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn all(&self) -> impl Iterator<Item = &ManagedConnection> {
        self.regular().chain(self.bulk.get())
    }

    /// The connection of a route. No call waits for the bulk connection: until it is up, the first connection takes its
    /// calls.
    fn connection(&self, route: Route) -> &ManagedConnection {
        match route {
            Route::Regular(number) => {
                let count = u64::try_from(self.others.len()).unwrap_or(0).saturating_add(1);
                let nth = number.checked_rem(count).and_then(|nth| usize::try_from(nth).ok());
                nth.and_then(|nth| nth.checked_sub(1)).and_then(|nth| self.others.get(nth)).unwrap_or(&self.first)
            }
            Route::Bulk => {
                // Decision: docs/decisions/0084-the-bulk-connection-has-a-feed-too.md
                let bulk = self.bulk.get_or_init(|| ManagedConnection::start(self.connector.clone()));
                if bulk.is_up() { bulk } else { &self.first }
            }
        }
    }
}

/// A number for each regular connection after the first.
fn others(connector: &Connector) -> impl Iterator<Item = u16> {
    1..connector.options.connections
}
