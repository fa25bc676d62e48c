//! A managed connection to one server: every exchange has a deadline, and a reconnect task replaces a lost connection.
//!
//! All plugins share the connection; the client interleaves their commands. During an outage calls fail immediately
//! with the reason of the last failed attempt. They wait only after a connection broke, while the first attempt to
//! reconnect runs, and within their deadline.

// Decision: docs/decisions/0007-our-own-reconnect-task-instead-of-the-clients-connection-manager.md

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as StdDuration;

use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::near::feeds::Feed;
use crate::valkey::backoff::Backoff;
use crate::valkey::connection::client::Caller;
use crate::valkey::connection::connector::{
    ConnectFailure, Connection, Connector, TIMEOUTS_OF_A_LOST_CONNECTION, Target,
};
use crate::valkey::connection::pings::keep_complete;
use crate::valkey::error::{
    ExchangeError, ExchangeLimits, Redirect, cannot_serve, is_read_only, needs_login, server_text,
};
use crate::valkey::options::Endpoint;
use crate::valkey::server::capabilities::Capabilities;
use crate::valkey::server::info::ServerInfo;
use crate::{CacheError, Health};

/// A younger connection is kept although its server takes no writes or wants another login, to limit the rate of
/// reconnects.
const LEAST_AGE: StdDuration = StdDuration::from_secs(1);

/// The least interval between two warnings that the server cannot serve.
const WARN_INTERVAL: StdDuration = StdDuration::from_secs(10);

#[derive(Debug, Clone)]
enum State {
    Up(Arc<Connection>),
    /// The connection was lost, and the first attempt to reconnect runs.
    Reconnecting,
    /// The last attempt failed for this reason.
    Down(CacheError),
}

/// A connection that is reopened after a loss.
#[derive(Debug)]
pub(in crate::valkey) struct ManagedConnection {
    /// The reconnect task ends when this is dropped.
    state: watch::Receiver<State>,
    limits: ExchangeLimits,
    /// The server, for the log.
    target: Target,
    /// When the last warning was logged that the server cannot serve.
    warned: Mutex<Option<Instant>>,
    reconnects: Arc<AtomicU64>,
    /// The number of calls that were given up before their reply, since the server was last known to have executed
    /// everything.
    unanswered: AtomicU64,
}

/// A call that waits for its reply. It counts as unanswered if it is dropped before [`PendingCall::answered`].
#[derive(Debug)]
struct PendingCall<'a>(&'a AtomicU64);

impl PendingCall<'_> {
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One exchange: commands that are sent in one step, and their replies.
#[derive(Debug)]
pub(in crate::valkey) struct Exchange<'a> {
    client: Caller<'a>,
    pub(in crate::valkey) capabilities: Capabilities,
    /// Whether the slot of the key is moving to this node, so that each command must be preceded by `ASKING`.
    pub(in crate::valkey) is_asking: bool,
    /// The feed of the connection to the near tier.
    pub(in crate::valkey) feed: Option<Arc<Feed>>,
}

impl Exchange<'_> {
    /// A pipeline of one command.
    pub(in crate::valkey) fn single(&self, command: Cmd) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2);
        self.add(&mut pipeline, command);
        pipeline
    }

    /// A pipeline of several commands.
    pub(in crate::valkey) fn pipeline(&self, commands: Vec<Cmd>) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        commands.into_iter().for_each(|command| self.add(&mut pipeline, command));
        pipeline
    }

    /// Adds a command, preceded by `ASKING` if it needs it.
    pub(in crate::valkey) fn add(&self, pipeline: &mut Pipeline, command: Cmd) {
        if self.is_asking {
            pipeline.cmd("ASKING").ignore();
        }
        pipeline.add_command(command);
    }
}

impl ManagedConnection {
    /// Connects, and starts the reconnect task.
    pub(in crate::valkey) async fn connect(connector: Connector) -> Result<Self, ConnectFailure> {
        let connection = connector.connect().await?;
        Ok(Self::manage(connector, State::Up(Arc::new(connection))))
    }

    /// Starts the reconnect task, which opens the connection. Calls wait for the first attempt.
    pub(in crate::valkey) fn start(connector: Connector) -> Self {
        Self::manage(connector, State::Reconnecting)
    }

    /// [`ManagedConnection::start`] after an attempt that failed for this reason. Calls fail with it meanwhile.
    pub(in crate::valkey) fn start_down(connector: Connector, reason: CacheError) -> Self {
        Self::manage(connector, State::Down(reason))
    }

    fn manage(connector: Connector, state: State) -> Self {
        let (limits, target) = (connector.limits, connector.target.clone());
        let connection = match &state {
            State::Up(connection) => Some(Arc::clone(connection)),
            State::Reconnecting | State::Down(_) => None,
        };
        let (sender, state) = watch::channel(state);
        let reconnects = Arc::new(AtomicU64::new(0));
        tokio::spawn(reconnect_task(connector, connection, sender, Arc::clone(&reconnects)));
        Self { state, limits, target, warned: Mutex::default(), reconnects, unanswered: AtomicU64::new(0) }
    }

    /// Waits for the first attempt to connect.
    ///
    /// # Errors
    ///
    /// The reason why it failed.
    pub(in crate::valkey) async fn reached(&self) -> Result<(), CacheError> {
        self.opened().await.map(|_| ())
    }

    /// True if the connection is open.
    pub(in crate::valkey) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// Ends what was read over the connection for the near tier: the server has lost some of its keys to another one.
    pub(in crate::valkey) fn flush_feed(&self) {
        if let State::Up(connection) = &*self.state.borrow() {
            connection.feed.iter().for_each(|feed| feed.flush());
        }
    }

    /// The open connection, if it leads to another server than this one.
    fn other_than(&self, server: &Endpoint) -> Option<Arc<Connection>> {
        match &*self.state.borrow() {
            State::Up(connection) if connection.endpoint != *server => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// True if the connection leads to this server, or is not open.
    pub(in crate::valkey) fn leads_only_to(&self, server: &Endpoint) -> bool {
        self.other_than(server).is_none()
    }

    /// Replaces the connection if it leads to another server than this one.
    pub(in crate::valkey) fn leave_all_but(&self, server: &Endpoint) {
        if let Some(connection) = self.other_than(server) {
            connection.lost.notify_one();
        }
    }

    /// The number of times that the connection was reopened after a loss.
    pub(in crate::valkey) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// The deadline of an exchange that starts now.
    pub(in crate::valkey) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.limits.timeout).unwrap_or(now)
    }

    /// What the server reported when the connection was opened.
    fn server(&self) -> Result<(ServerInfo, Capabilities), CacheError> {
        match &*self.state.borrow() {
            State::Up(connection) => Ok((connection.info, connection.capabilities)),
            State::Reconnecting => Err(connection_lost()),
            State::Down(error) => Err(error.clone()),
        }
    }

    /// True if a call was given up before its reply, so that the server may still execute it.
    pub(in crate::valkey) fn has_unanswered(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0
    }

    /// Returns when the server has executed everything that was sent before, including calls that timed out: it
    /// executes the commands of one connection in order.
    pub(in crate::valkey) async fn barrier(&self, deadline: Instant) -> Result<(), CacheError> {
        let before = self.unanswered.load(Ordering::Relaxed);
        let _pong: Value = self.call(deadline, &redis::cmd("PING")).await?;
        let _more_since = self.unanswered.compare_exchange(before, 0, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a `PING` and reports the server.
    pub(in crate::valkey) async fn check(&self) -> Result<Health, CacheError> {
        let (info, capabilities) = self.server()?;
        let start = Instant::now();
        let _pong: Value = self.call(self.deadline(), &redis::cmd("PING")).await?;
        Ok(Health {
            kind: info.kind.name(),
            version: info.version.to_string(),
            round_trip: Some(start.elapsed()),
            supports: capabilities.names(),
        })
    }

    /// Sends a command and waits for its reply until the deadline.
    pub(in crate::valkey) async fn call<T: FromRedisValue>(
        &self,
        deadline: Instant,
        command: &Cmd,
    ) -> Result<T, CacheError> {
        let send = async |exchange: Exchange<'_>| {
            // The same as `query_async`, without its box for each call.
            let reply = exchange.client.call(command).await?;
            Ok(T::from_redis_value(reply.extract_error()?)?)
        };
        self.send(deadline, false, send).await.map_err(|failed| failed.error)
    }

    /// Sends commands that depend on the connection, and waits for all replies until the deadline. Each command may fail
    /// by itself.
    pub(in crate::valkey) async fn batch(
        &self,
        deadline: Instant,
        commands: impl FnOnce(&Exchange<'_>) -> Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, CacheError> {
        let send = async |mut exchange: Exchange<'_>| {
            commands(&exchange).ignore_errors().query_async(&mut exchange.client).await
        };
        let replies: Vec<RedisResult<Value>> = self.send(deadline, false, send).await.map_err(|failed| failed.error)?;
        if replies.iter().any(|reply| reply.as_ref().is_err_and(wants_reconnect))
            && let State::Up(connection) = &*self.state.borrow()
            && connection.opened.elapsed() > LEAST_AGE
        {
            connection.lost.notify_one();
        }
        Ok(replies)
    }

    /// Sends commands that depend on the connection, and waits for their replies until the deadline.
    pub(in crate::valkey) async fn exchange<T: FromRedisValue>(
        &self,
        deadline: Instant,
        is_asking: bool,
        commands: &impl Fn(&Exchange<'_>) -> Pipeline,
    ) -> Result<T, ExchangeError> {
        let send = async |mut exchange: Exchange<'_>| commands(&exchange).query_async(&mut exchange.client).await;
        self.send(deadline, is_asking, send).await
    }

    /// Converts one reply to a batch.
    pub(in crate::valkey) fn read<T: FromRedisValue>(
        &self,
        reply: Option<RedisResult<Value>>,
    ) -> Result<T, CacheError> {
        let reply = reply.unwrap_or_else(|| Err(RedisError::from((ErrorKind::Client, "missing reply"))));
        reply.and_then(|reply| Ok(T::from_redis_value(reply)?)).map_err(|error| self.cache_error(&error))
    }

    async fn send<T>(
        &self,
        deadline: Instant,
        is_asking: bool,
        send: impl AsyncFnOnce(Exchange<'_>) -> RedisResult<T>,
    ) -> Result<T, ExchangeError> {
        let pending = PendingCall(&self.unanswered);
        let connection = match self.connection(deadline).await {
            Ok(connection) => connection,
            Err(down) => {
                pending.answered();
                return Err(ExchangeError { error: down, redirect: None });
            }
        };
        let Connection { client, capabilities, lost, timeouts, opened, feed, .. } = &*connection;
        let (client, feed) = (client.until(deadline), feed.clone());
        let exchange = Exchange { client, capabilities: *capabilities, is_asking, feed };
        let reply = match send(exchange).await {
            Err(error) if error.is_timeout() => None,
            // The first error of a pipeline is the cause of the others.
            reply => {
                pending.answered();
                Some(reply.map_err(first_error))
            }
        };
        match &reply {
            None if connection.timed_out() => lost.notify_one(),
            None => {}
            Some(Err(error)) if error.is_unrecoverable_error() => lost.notify_one(),
            Some(Err(error)) if wants_reconnect(error) && opened.elapsed() > LEAST_AGE => lost.notify_one(),
            // The counter is almost always 0, and all threads read it: do not write it again.
            Some(_) if timeouts.load(Ordering::Relaxed) == 0 => {}
            Some(_) => timeouts.store(0, Ordering::Relaxed),
        }
        match reply {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(error)) => Err(self.exchange_error(&error)),
            None => Err(ExchangeError { error: CacheError::Timeout(self.limits.timeout), redirect: None }),
        }
    }

    /// The open connection. Waits until the deadline, and only while the first attempt to reconnect runs.
    async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, CacheError> {
        if let State::Up(connection) = &*self.state.borrow() {
            return Ok(Arc::clone(connection));
        }
        // Boxed, to keep the future of a call that does not wait small.
        let opened = Box::pin(tokio::time::timeout_at(deadline, self.opened()));
        opened.await.unwrap_or(Err(CacheError::Timeout(self.limits.timeout)))
    }

    /// The connection after the first attempt to open it.
    async fn opened(&self) -> Result<Arc<Connection>, CacheError> {
        let mut state = self.state.clone();
        match state.wait_for(|state| !matches!(state, State::Reconnecting)).await.as_deref() {
            Ok(State::Up(connection)) => Ok(Arc::clone(connection)),
            Ok(State::Down(error)) => Err(error.clone()),
            Ok(State::Reconnecting) | Err(_) => Err(connection_lost()),
        }
    }

    fn exchange_error(&self, error: &RedisError) -> ExchangeError {
        ExchangeError { error: self.cache_error(error), redirect: Redirect::read(error) }
    }

    fn cache_error(&self, error: &RedisError) -> CacheError {
        if cannot_serve(error) || needs_login(error) {
            self.warn_cannot_serve(error);
        }
        self.limits.cache_error(error)
    }

    /// Warns that the server replies but cannot serve, at most once in [`WARN_INTERVAL`].
    fn warn_cannot_serve(&self, error: &RedisError) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| last.elapsed() > WARN_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!("the server at `{}` cannot serve: {}", self.target, server_text(error));
        }
    }
}

/// The error itself, or of a pipeline the first one.
fn first_error(error: RedisError) -> RedisError {
    let all = error.clone().into_server_errors();
    all.and_then(|errors| errors.first().map(|(_, first)| RedisError::from(first.clone()))).unwrap_or(error)
}

/// True for errors that a new connection may not have. A primary that became a replica keeps its connections, and its
/// address may lead to the new primary. The password may have changed, and the new one may be in its file.
fn wants_reconnect(error: &RedisError) -> bool {
    is_read_only(error) || needs_login(error)
}

fn connection_lost() -> CacheError {
    CacheError::Unavailable("the connection was lost".to_owned())
}

/// Reopens the connection each time it is lost, until the managed connection is dropped.
async fn reconnect_task(
    connector: Connector,
    mut current: Option<Arc<Connection>>,
    state: watch::Sender<State>,
    reconnects: Arc<AtomicU64>,
) {
    let mut has_been_up = false;
    // Kept until another connection is open: during an outage the server stays that of this cache.
    let mut claim = None;
    if current.is_none() {
        // The caller that waits for the first attempt reports its failure.
        connector.unreachable.postpone();
    }
    let (kind, target) = (connector.options.kind.name(), connector.target.clone());
    loop {
        if let Some(connection) = current.take() {
            has_been_up = true;
            claim = Some(Arc::clone(&connection.claim));
            tokio::select! {
                () = connection.lost.notified() => {}
                () = state.closed() => return connection.feed.iter().for_each(|feed| feed.close()),
                () = keep_complete(&connection, &connector) => {}
            }
            connection.feed.iter().for_each(|feed| feed.close());
            tracing::warn!("lost the connection to {kind} at `{target}`");
            // A server that stopped replying is unlikely to accept a connection, and does not refuse one either. Calls
            // would wait for that attempt in vain.
            state.send_replace(if connection.timeouts.load(Ordering::Relaxed) >= TIMEOUTS_OF_A_LOST_CONNECTION {
                let calls = TIMEOUTS_OF_A_LOST_CONNECTION;
                State::Down(CacheError::Unavailable(format!("{kind} at `{target}` left {calls} calls unanswered")))
            } else {
                State::Reconnecting
            });
            // The invalidation messages of the lost connection are lost with it.
            connector.invalidations.invalidate_all();
            connector.on_loss.notify_one();
        }
        let mut backoff = Backoff::reconnect();
        let opened = loop {
            match connector.connect().await {
                Ok(opened) => break Arc::new(opened),
                Err(ConnectFailure { error, .. }) => {
                    connector.unreachable.report(&error, true);
                    state.send_replace(State::Down(error));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_with_jitter()) => {}
                () = state.closed() => return,
            }
        };
        drop(claim.take());
        if has_been_up {
            reconnects.fetch_add(1, Ordering::Relaxed);
        }
        tracing::info!("connected to {kind} at `{target}`");
        state.send_replace(State::Up(Arc::clone(&opened)));
        current = Some(opened);
    }
}
