//! The connector: opens connections to one server and checks what the server is and what it can do.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use redis::{ProtocolVersion, PushKind, RedisConnectionInfo, RedisError, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::near::feeds::Feed;
use crate::near::tier::Tier;
use crate::tcp::TimeLimit;
use crate::text::one_line;
use crate::valkey::connection::client::Client;
use crate::valkey::connection::driver::Event;
use crate::valkey::connection::handshake::{Access, HandshakeError};
use crate::valkey::connection::invalidation::Invalidations;
use crate::valkey::connection::reply_limit::ReplyLimits;
use crate::valkey::connection::stream::Network;
use crate::valkey::connection::warning::WarningLimit;
use crate::valkey::error::{ExchangeLimits, server_text};
use crate::valkey::options::{Endpoint, Sentinels, ServerOptions, Start};
use crate::valkey::server::capabilities::Capabilities;
use crate::valkey::server::info::{Mode, ServerInfo};
use crate::valkey::server::registry::{Claim, Member, ServerId};
use crate::valkey::server::rights;
use crate::valkey::topology::sentinel;
use crate::{CacheError, Policy};

/// A connection is lost after this number of consecutive calls that timed out: a silent partition closes no socket.
pub(in crate::valkey) const TIMEOUTS_OF_A_LOST_CONNECTION: u32 = 3;

/// An open connection.
#[derive(Debug)]
pub(in crate::valkey) struct Connection {
    pub(in crate::valkey) client: Client,
    /// The server to which it leads.
    pub(in crate::valkey) endpoint: Endpoint,
    pub(in crate::valkey) info: ServerInfo,
    pub(in crate::valkey) capabilities: Capabilities,
    /// Tells the reconnect task to replace this connection.
    pub(in crate::valkey) lost: Arc<Notify>,
    /// The number of consecutive calls that timed out.
    pub(in crate::valkey) timeouts: AtomicU32,
    pub(in crate::valkey) opened: Instant,
    /// Keeps caches with overlapping prefixes from the server.
    pub(in crate::valkey) claim: Arc<Claim>,
    /// Announces the changes of what was read over this connection to the near tier, if there is one.
    pub(in crate::valkey) feed: Option<Arc<Feed>>,
}

impl Connection {
    /// Counts a call that timed out. Returns true if the connection is lost.
    pub(in crate::valkey) fn timed_out(&self) -> bool {
        self.timeouts.fetch_add(1, Ordering::Relaxed) >= TIMEOUTS_OF_A_LOST_CONNECTION - 1
    }
}

/// The server that a connection leads to.
#[derive(Debug, Clone)]
pub(in crate::valkey) enum Target {
    /// A single server.
    Server(Endpoint),
    /// A node of a cluster.
    Node(Endpoint),
    /// The primary that the sentinels name at the time when a connection is opened.
    Primary(Sentinels),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(endpoint) | Self::Node(endpoint) => fmt::Display::fmt(endpoint, f),
            Self::Primary(sentinels) => fmt::Display::fmt(sentinels, f),
        }
    }
}

/// Opens connections to one server.
#[derive(Debug, Clone)]
pub(in crate::valkey) struct Connector {
    pub(in crate::valkey) options: Arc<ServerOptions>,
    pub(in crate::valkey) target: Target,
    pub(in crate::valkey) network: Network,
    pub(in crate::valkey) limits: ExchangeLimits,
    /// The cache, among those of the host.
    member: Member,
    /// The waiters for key changes, which all connections of a cache share.
    pub(in crate::valkey) invalidations: Arc<Invalidations>,
    /// The near tier, for connections whose reads it may keep.
    near: Option<Arc<Tier>>,
    /// Notified when a connection is lost.
    pub(in crate::valkey) on_loss: Arc<Notify>,
    /// Limits the warnings that the server cannot be reached.
    pub(in crate::valkey) unreachable: Arc<WarningLimit>,
}

impl Connector {
    /// A connector to `target`, with the limits of the cache's policy.
    pub(in crate::valkey) fn new(options: ServerOptions, target: Target, policy: &Policy, member: Member) -> Self {
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let max_value = bytes(policy.max_value_bytes);
        let reply = ReplyLimits { string: bytes(policy.max_string()), reply: bytes(policy.max_reply()) };
        let limits = ExchangeLimits { timeout: options.timeout, max_value, reply };
        Self {
            network: Network::new(options.resolver.clone()),
            options: Arc::new(options),
            target,
            limits,
            member,
            invalidations: Arc::default(),
            near: None,
            on_loss: Arc::default(),
            unreachable: Arc::default(),
        }
    }

    /// The same with a near tier.
    pub(in crate::valkey) fn with_near(self, near: Option<Arc<Tier>>) -> Self {
        Self { near, ..self }
    }

    /// Tells the near tier that keys have got another server.
    pub(in crate::valkey) fn keys_moved(&self) {
        self.near.iter().for_each(|tier| tier.moved());
    }

    /// The same for another server.
    pub(in crate::valkey) fn to(&self, target: Target) -> Self {
        Self { target, unreachable: Arc::default(), ..self.clone() }
    }

    /// Connects and checks the server, within `connect_timeout`.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] with the server and the reason; [`CacheError::Overlap`] if another cache of the host
    /// with an overlapping prefix is connected to the server.
    pub(in crate::valkey) async fn connect(&self) -> Result<Connection, ConnectFailure> {
        let ServerOptions { kind, connect_timeout: deadline, .. } = *self.options;
        let server = format!("{} at `{}`", kind.name(), self.target);
        let time = TimeLimit::new(deadline);
        let (action, reason, is_final) = match tokio::time::timeout_at(time.deadline(), self.open(time)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(ConnectError::Overlap(reason))) => {
                let error = CacheError::Overlap(one_line(&format!("cannot use {server}: {reason}")));
                return Err(ConnectFailure { error, is_final: true });
            }
            // The sentinels may name another server at the next attempt.
            Ok(Err(ConnectError::Unusable(reason))) => {
                ("cannot use", reason, !matches!(self.target, Target::Primary(_)))
            }
            Ok(Err(ConnectError::Handshake(error))) => {
                (error.action(), format!("{error}{}", error.advice()), error.is_final())
            }
            Ok(Err(ConnectError::Sentinels(reason))) => ("cannot find", reason, false),
            Err(_elapsed) => ("cannot reach", format!("no answer within {deadline:?}"), false),
        };
        let error = CacheError::Unavailable(one_line(&format!("{action} {server}: {reason}")));
        Err(ConnectFailure { error, is_final })
    }

    async fn open(&self, time: TimeLimit) -> Result<Connection, ConnectError> {
        let options = &self.options;
        let (endpoint, mode) = match &self.target {
            Target::Server(endpoint) => (endpoint.clone(), Mode::Standalone),
            Target::Node(endpoint) => (endpoint.clone(), Mode::Cluster),
            Target::Primary(sentinels) => {
                let primary =
                    sentinel::primary(sentinels, options.tls.as_ref(), &self.network, options.connect_timeout).await;
                (primary.map_err(ConnectError::Sentinels)?, Mode::Primary)
            }
        };
        // Decision: docs/decisions/0008-resp3-on-every-connection.md
        let login = RedisConnectionInfo::default().set_db(i64::from(options.db)).set_protocol(ProtocolVersion::RESP3);
        let lost = Arc::new(Notify::new());
        // Set once the server is known to announce: an attempt to connect does not count as a feed that was lost.
        let feed: Arc<OnceLock<Arc<Feed>>> = Arc::default();
        let on_event = {
            let (lost, invalidations) = (Arc::clone(&lost), Arc::clone(&self.invalidations));
            let (feed, prefix) = (feed.clone(), self.options.prefix.clone());
            move |event: Event| match event {
                // In the order in which the server sent it: before any later reply is handed out.
                Event::Push(push) if push.kind == PushKind::Invalidate => {
                    invalidate(&invalidations, feed.get().map(Arc::as_ref), &prefix, &push.data);
                }
                Event::Push(_) => {}
                Event::Lost => {
                    feed.get().into_iter().for_each(|feed| feed.close());
                    lost.notify_one();
                }
            }
        };
        let access = Access::to_servers(options, &self.network);
        let client = access.connect(&endpoint, login, self.limits.reply, on_event, time).await?;
        let info: RedisResult<String> =
            redis::cmd("INFO").arg("server").arg("replication").query_async(&mut client.unlimited()).await;
        let reported = info.map_err(refused_info)?;
        let info = ServerInfo::from_info(&reported, mode).map_err(ConnectError::Unusable)?;
        let claim = self.member.claim(ServerId::from_info(&reported)).map_err(ConnectError::Overlap)?;
        let probe = rights::probe_key(&options.prefix);
        let capabilities = Capabilities::probe(&client, &info, &probe).await?.map_err(ConnectError::Unusable)?;
        let opened_feed = self.near.as_ref().and_then(|tier| self.open_feed(tier, capabilities));
        let feed = opened_feed.inspect(|opened| _ = feed.set(Arc::clone(opened)));
        let (timeouts, opened) = (AtomicU32::default(), Instant::now());
        Ok(Connection { client, endpoint, info, capabilities, lost, timeouts, opened, claim: Arc::new(claim), feed })
    }

    fn open_feed(&self, tier: &Arc<Tier>, capabilities: Capabilities) -> Option<Arc<Feed>> {
        if !capabilities.tracking {
            tracing::warn!("no values are kept near: the server at `{}` does not announce changes", self.target);
            return None;
        }
        let opened = match &self.target {
            Target::Node(node) => Feed::open_partial(tier, &node.to_string()),
            Target::Server(_) | Target::Primary(_) => Feed::open(tier),
        };
        if opened.is_none() {
            tracing::warn!("no values of `{}` are kept near: the cache has too many connections", self.target);
        }
        opened.map(Arc::new)
    }
}

/// A failed attempt to connect.
#[derive(Debug)]
pub(in crate::valkey) struct ConnectFailure {
    pub(in crate::valkey) error: CacheError,
    /// True if another attempt fails too unless the operator changes the configuration or the server.
    pub(in crate::valkey) is_final: bool,
}

impl ConnectFailure {
    // Decision: docs/decisions/0071-a-cache-may-start-in-an-outage.md
    /// The reason of the outage in which the cache starts, with a warning in the log.
    ///
    /// # Errors
    ///
    /// The error, if the cache must not start in an outage or if the failure is final.
    pub(in crate::valkey) fn degraded(self, start: Start) -> Result<CacheError, CacheError> {
        if start == Start::Require || self.is_final {
            return Err(self.error);
        }
        tracing::warn!("{}; started in an outage, and trying to connect", self.error);
        Ok(self.error)
    }
}

impl From<CacheError> for ConnectFailure {
    fn from(error: CacheError) -> Self {
        let is_final = matches!(error, CacheError::Overlap(_));
        Self { error, is_final }
    }
}

impl From<ConnectFailure> for CacheError {
    fn from(failure: ConnectFailure) -> Self {
        failure.error
    }
}

/// Why a connection could not be opened.
enum ConnectError {
    Handshake(HandshakeError),
    /// No sentinel named the primary.
    Sentinels(String),
    /// The server replies, but Larder cannot use it.
    Unusable(String),
    /// The server has the keys of another cache of the host.
    Overlap(String),
}

/// Without `INFO`, Larder knows neither the version of the server nor which server it is.
fn refused_info(error: RedisError) -> ConnectError {
    match error.code() {
        Some("NOPERM") => {
            ConnectError::Unusable(format!("the user needs the right to `INFO`: {}", server_text(&error)))
        }
        _ => error.into(),
    }
}

impl From<HandshakeError> for ConnectError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        Self::Handshake(error.into())
    }
}

/// Wakes the waiters for the keys of an invalidation message, and tells the near tier. Without a list of keys, as after
/// `FLUSHDB`, the message is about all keys.
fn invalidate(invalidations: &Invalidations, feed: Option<&Feed>, prefix: &str, message: &[Value]) {
    match message {
        [Value::Array(keys)] => {
            for key in keys {
                match (key, feed) {
                    (Value::BulkString(key), feed) => {
                        feed.iter().for_each(|feed| announce(feed, prefix, key));
                        invalidations.invalidate(key);
                    }
                    // The reply limit has left it out.
                    (_, feed) => feed.iter().for_each(|feed| feed.flush()),
                }
            }
        }
        _ => {
            feed.iter().for_each(|feed| feed.flush());
            invalidations.invalidate_all();
        }
    }
}

/// Tells the near tier that a key has changed. A key of another prefix is not near.
fn announce(feed: &Feed, prefix: &str, key: &[u8]) {
    let own = key.strip_prefix(prefix.as_bytes()).and_then(|own| std::str::from_utf8(own).ok());
    if let Some(own) = own {
        feed.announced(own);
    }
}
