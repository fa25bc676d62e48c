//! Opening a connection: the stream, the greeting, what the server is and what it can do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::valkey::connection::invalidation::Watchers;
use crate::valkey::connection::reply_limit::{Bounded, Bounds};
use crate::valkey::connection::stream::{self, StreamError};
use crate::valkey::options::{Endpoint, Sentinels, ServerOptions};
use crate::valkey::server::capabilities::Support;
use crate::valkey::server::info::{Identity, Mode};
use crate::valkey::topology::sentinel;
use crate::{CacheError, Policy};

/// An open connection.
#[derive(Debug)]
pub(in crate::valkey) struct Live {
    pub(in crate::valkey) connection: MultiplexedConnection,
    pub(in crate::valkey) support: Support,
    pub(in crate::valkey) identity: Identity,
    /// Tells the keeper that this connection is of no more use.
    pub(in crate::valkey) lost: Arc<Notify>,
    /// Calls in a row that had no answer.
    pub(in crate::valkey) timeouts: AtomicU32,
    /// When it was opened.
    pub(in crate::valkey) since: Instant,
}

/// No string is too long below this: what a server says of itself, and the keys that it finds, may be longer than the
/// values of the cache.
const LEAST_BOUND: u64 = 64 << 10;

/// No answer is too long below this: a page of the keys that a server finds.
const LEAST_ANSWER: u64 = 4 << 20;

/// So many calls are handed to the connection before it takes them; the others wait for one another.
const QUEUE: usize = 1024;

/// Which server a connection leads to.
#[derive(Debug, Clone)]
pub(in crate::valkey) enum Target {
    /// This one, which has all keys.
    Server(Endpoint),
    /// This node of a cluster.
    Node(Endpoint),
    /// The one that sentinels know as the primary whenever a connection is opened.
    Primary(Sentinels),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(address) | Self::Node(address) => fmt::Display::fmt(address, f),
            Self::Primary(sentinels) => fmt::Display::fmt(sentinels, f),
        }
    }
}

/// Opens connections to one server.
#[derive(Debug, Clone)]
pub(in crate::valkey) struct Opener {
    pub(in crate::valkey) options: Arc<ServerOptions>,
    pub(in crate::valkey) target: Target,
    /// The longest value of the cache, in bytes.
    pub(in crate::valkey) max_value: u64,
    pub(in crate::valkey) bounds: Bounds,
    pub(in crate::valkey) watchers: Arc<Watchers>,
    /// Is told when a connection was lost.
    pub(in crate::valkey) on_loss: Arc<Notify>,
}

impl Opener {
    /// Opens what `options` mean, or one server of it.
    pub(in crate::valkey) fn new(options: ServerOptions, target: Target, policy: &Policy) -> Self {
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let max_value = bytes(policy.max_value_bytes);
        let max_answer = bytes(policy.max_batch_bytes).max(max_value).max(LEAST_ANSWER);
        let (options, bounds) = (Arc::new(options), Bounds { string: max_value.max(LEAST_BOUND), answer: max_answer });
        Self { options, target, max_value, bounds, watchers: Arc::default(), on_loss: Arc::default() }
    }

    /// The same for another server.
    pub(in crate::valkey) fn to(&self, target: Target) -> Self {
        Self { target, ..self.clone() }
    }

    /// Connects and identifies the server, within the deadline.
    pub(in crate::valkey) async fn connect(&self) -> Result<Live, CacheError> {
        let ServerOptions { kind, connect_timeout: deadline, .. } = *self.options;
        let place = format!("{} at `{}`", kind.name(), self.target);
        let (what, reason) = match tokio::time::timeout(deadline, self.open()).await {
            Ok(Ok(live)) => return Ok(live),
            Ok(Err(Refusal::Unfit(reason))) => ("use", reason),
            Ok(Err(Refusal::Stream(error))) => ("reach", error.to_string()),
            Ok(Err(Refusal::Sentinels(reason))) => ("find", reason),
            Ok(Err(Refusal::Greeting(error))) => ("reach", describe(&error)),
            Err(_elapsed) => ("reach", format!("no answer within {deadline:?}")),
        };
        Err(CacheError::Unavailable(format!("cannot {what} {place}: {reason}")))
    }

    async fn open(&self) -> Result<Live, Refusal> {
        let options = &self.options;
        // Decision: docs/decisions/0008-resp3-on-every-connection.md
        let mut settings =
            RedisConnectionInfo::default().set_db(i64::from(options.db)).set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &options.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &options.password {
            settings = settings.set_password(password.reveal());
        }
        let (address, mode) = match &self.target {
            Target::Server(address) => (address.clone(), Mode::Standalone),
            Target::Node(address) => (address.clone(), Mode::Cluster),
            Target::Primary(sentinels) => {
                let primary = sentinel::primary(sentinels, options.tls.as_ref(), options.connect_timeout).await;
                (primary.map_err(Refusal::Sentinels)?, Mode::Primary)
            }
        };
        let stream = Bounded::new(stream::open(&address, options.tls.as_ref()).await?, self.bounds);

        let lost = Arc::new(Notify::new());
        let on_push = {
            let (lost, watchers) = (Arc::clone(&lost), Arc::clone(&self.watchers));
            move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                match push.kind {
                    PushKind::Disconnection => lost.notify_one(),
                    PushKind::Invalidate => wake(&watchers, &push.data),
                    _ => {}
                }
                Ok(())
            }
        };
        // Deadlines are ours, around everything; the client's own would not cover a reconnect.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_push_sender(on_push);
        let (mut connection, driver) = MultiplexedConnection::new_with_config(&settings, stream, config).await?;
        // Ends when the last clone of the connection is gone, or the stream.
        tokio::spawn(driver);
        let info: String = redis::cmd("INFO").arg("server").arg("replication").query_async(&mut connection).await?;
        let identity = Identity::from_info(&info, mode).map_err(Refusal::Unfit)?;
        // No plugin can write the separator, so no key begins with it.
        let probe = format!("{}\u{1f}probe", options.prefix);
        let support = Support::probe(&mut connection, &identity, &probe).await?.map_err(Refusal::Unfit)?;
        Ok(Live { connection, identity, support, lost, timeouts: AtomicU32::default(), since: Instant::now() })
    }
}

/// Why a connection could not be opened.
enum Refusal {
    Stream(StreamError),
    Greeting(RedisError),
    /// No sentinel told us where the primary is.
    Sentinels(String),
    /// The server is there, but not one we can use.
    Unfit(String),
}

impl From<StreamError> for Refusal {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<RedisError> for Refusal {
    fn from(error: RedisError) -> Self {
        Self::Greeting(error)
    }
}

/// Why a server did not let us in, for the operator.
fn describe(error: &RedisError) -> String {
    match error.code() {
        Some("WRONGPASS") => "it refused the user name or password".to_owned(),
        Some("NOAUTH") => "it asks for a password".to_owned(),
        _ => error.to_string(),
    }
}

/// Wakes those who wait for the keys that the server says have changed; all when it means all, as after `FLUSHDB`.
fn wake(watchers: &Watchers, invalidated: &[Value]) {
    match invalidated {
        [Value::Array(keys)] => {
            for key in keys {
                if let Value::BulkString(key) = key {
                    watchers.wake(key);
                }
            }
        }
        _ => watchers.wake_all(),
    }
}
