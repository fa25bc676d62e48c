//! The one connection to a server: every call has a deadline, and a task of its own brings a lost connection back.
//!
//! Commands of all plugins share it, interleaved by the client. During an outage calls fail at once with the reason the
//! last attempt found; only in the moment after a loss, while the first attempt to reconnect is under way, do they
//! wait, within their deadline.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as StdDuration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cache::CacheError;
use crate::cache::valkey::identity::{Identity, ServerKind};
use crate::cache::valkey::support::Support;
use crate::cache::valkey::watch::Watchers;

/// The pause after the first failed attempt to reconnect, and the longest, both at most: it doubles in between. So a
/// server that is back is noticed within a second.
const FIRST_PAUSE: StdDuration = StdDuration::from_millis(50);
const LONGEST_PAUSE: StdDuration = StdDuration::from_millis(800);

/// So many calls in a row without an answer make a connection count as lost: a silent partition breaks none.
const TIMEOUTS_OF_A_LOST_CONNECTION: u32 = 3;

/// An idle connection is probed after this time, and again after each interval; so many probes without an answer break
/// it. Else the first calls after a silent partition would each have to time out.
const IDLE_BEFORE_PROBE: StdDuration = StdDuration::from_secs(10);
const PROBE_INTERVAL: StdDuration = StdDuration::from_secs(3);
const PROBES: u32 = 3;

/// What was sent and is not acknowledged after this time breaks the connection too, where the system can.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: StdDuration = StdDuration::from_secs(10);

/// A connection that is younger is not given up because its server does not take writes.
const LEAST_AGE: StdDuration = StdDuration::from_secs(1);

/// How often the log is told that a server which answers cannot serve.
const COMPLAINT_INTERVAL: StdDuration = StdDuration::from_secs(10);

/// A password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

/// Where a server is and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// What the operator says it is; only for messages.
    pub kind: ServerKind,
    /// Name or address. Defaults to `localhost`.
    pub host: String,
    /// TCP port. Defaults to 6379.
    pub port: u16,
    /// Database number. Defaults to 0.
    pub db: u16,
    /// What stands before every key. Defaults to `cache:`.
    pub prefix: String,
    /// The ACL user. Defaults to none, the server's `default` user.
    pub username: Option<String>,
    /// The password. Defaults to none.
    pub password: Option<Secret>,
    /// The deadline of connecting. Defaults to 2 s.
    pub connect_timeout: StdDuration,
    /// The deadline of every exchange with the server, a reconnect included. Defaults to 500 ms.
    pub timeout: StdDuration,
    /// How long a lease lasts that is not renewed, as when its holder was killed. Defaults to 10 s.
    pub lease: StdDuration,
}

impl ServerOptions {
    /// The server's address, without secrets.
    pub fn address(&self) -> String {
        // An IPv6 address needs its brackets to be told from the port.
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Connects and identifies the server, within the deadline.
    async fn connect(&self, watchers: &Arc<Watchers>) -> Result<Live, CacheError> {
        let place = || format!("{} at `{}`", self.kind.name(), self.address());
        match tokio::time::timeout(self.connect_timeout, self.open(watchers)).await {
            Ok(Ok(live)) => Ok(live),
            Ok(Err(Refusal::Connecting(error))) => {
                let reason = match error.code() {
                    Some("WRONGPASS") => "it refused the user name or password".to_owned(),
                    Some("NOAUTH") => "it asks for a password".to_owned(),
                    _ => error.to_string(),
                };
                Err(CacheError::Unavailable(format!("cannot reach {}: {reason}", place())))
            }
            Ok(Err(Refusal::Unfit(reason))) => {
                Err(CacheError::Unavailable(format!("cannot use {}: {reason}", place())))
            }
            Err(_elapsed) => {
                let waited = self.connect_timeout;
                Err(CacheError::Unavailable(format!("cannot reach {}: no answer within {waited:?}", place())))
            }
        }
    }

    async fn open(&self, watchers: &Arc<Watchers>) -> Result<Live, Refusal> {
        let mut settings =
            RedisConnectionInfo::default().set_db(i64::from(self.db)).set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(Secret(password)) = &self.password {
            settings = settings.set_password(password);
        }
        let info = ConnectionAddr::Tcp(self.host.clone(), self.port)
            .into_connection_info()?
            .set_tcp_settings(tcp_settings())
            .set_redis_settings(settings);

        let lost = Arc::new(Notify::new());
        let on_push = {
            let (lost, watchers) = (Arc::clone(&lost), Arc::clone(watchers));
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
            .set_push_sender(on_push);
        let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let identity = Identity::from_info(&info).map_err(Refusal::Unfit)?;
        // No plugin can write the separator, so no key begins with it.
        let probe = format!("{}\u{1f}probe", self.prefix);
        let support = Support::probe(&mut connection, &identity, &probe).await?.map_err(Refusal::Unfit)?;
        Ok(Live { connection, identity, support, lost, timeouts: AtomicU32::default(), since: Instant::now() })
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(IDLE_BEFORE_PROBE).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}

/// Why a connection could not be opened.
enum Refusal {
    Connecting(RedisError),
    /// The server is there, but not one we can use.
    Unfit(String),
}

impl From<RedisError> for Refusal {
    fn from(error: RedisError) -> Self {
        Self::Connecting(error)
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

/// An open connection.
#[derive(Debug)]
struct Live {
    connection: MultiplexedConnection,
    support: Support,
    identity: Identity,
    /// Tells the keeper that this connection is of no more use.
    lost: Arc<Notify>,
    /// Calls in a row that had no answer.
    timeouts: AtomicU32,
    /// When it was opened.
    since: Instant,
}

/// Where the connection stands.
#[derive(Debug, Clone)]
enum State {
    Up(Arc<Live>),
    /// Lost a moment ago; the first attempt to bring it back is under way.
    Reconnecting,
    /// The last attempt failed, for this reason.
    Down(CacheError),
}

/// The connection of one cache.
#[derive(Debug)]
pub(super) struct Link {
    /// The keeper ends when this is dropped.
    state: watch::Receiver<State>,
    timeout: StdDuration,
    /// The server's address, for the log.
    address: String,
    /// When the log was last told that the server cannot serve.
    complained: Mutex<Option<Instant>>,
    watchers: Arc<Watchers>,
}

impl Link {
    /// Connects, and starts the task that keeps the connection up.
    pub(super) async fn connect(options: ServerOptions) -> Result<Self, CacheError> {
        let watchers = Arc::default();
        let live = options.connect(&watchers).await?;
        let (timeout, address) = (options.timeout, options.address());
        let lost = Arc::clone(&live.lost);
        let (sender, state) = watch::channel(State::Up(Arc::new(live)));
        tokio::spawn(keep_up(options, lost, sender, Arc::clone(&watchers)));
        Ok(Self { state, timeout, address, complained: Mutex::default(), watchers })
    }

    /// What the server said it is and can do, when last reached.
    pub(super) fn server(&self) -> Result<(Identity, Support), CacheError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok((live.identity, live.support)),
            State::Reconnecting => Err(CacheError::Unavailable("the connection was lost".to_owned())),
            State::Down(error) => Err(error.clone()),
        }
    }

    /// Sends a command and waits for its answer, within the deadline.
    pub(super) async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        self.exchange(async |mut connection, _| command.query_async(&mut connection).await).await
    }

    /// Sends many commands at once and waits for all answers, within the deadline.
    pub(super) async fn call_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, CacheError> {
        self.exchange(async |mut connection, _| pipeline.query_async(&mut connection).await).await
    }

    /// Reads one answer of those to many commands, each of which may fail by itself.
    pub(super) fn read<T: FromRedisValue>(&self, answer: Option<RedisResult<Value>>) -> Result<T, CacheError> {
        let answer = answer.unwrap_or_else(|| Err(RedisError::from((ErrorKind::Client, "the server gave no answer"))));
        answer.and_then(|answer| Ok(T::from_redis_value(answer)?)).map_err(|error| self.convert(&error))
    }

    /// Those who wait for changes that this server tells of.
    pub(super) fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    /// Sends what depends on what the server can do, and waits for the answer, within the deadline.
    pub(super) async fn exchange<T>(
        &self,
        send: impl AsyncFnOnce(MultiplexedConnection, Support) -> RedisResult<T>,
    ) -> Result<T, CacheError> {
        let mut used = None;
        let exchange = async {
            let live = used.insert(self.live().await?);
            Ok(send(live.connection.clone(), live.support).await)
        };
        let answer = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Err(down)) => return Err(down),
            Ok(Ok(answer)) => Some(answer),
            Err(_elapsed) => None,
        };
        if let Some(live) = used {
            let Live { lost, timeouts, since, .. } = &*live;
            match &answer {
                None if timeouts.fetch_add(1, Ordering::Relaxed) >= TIMEOUTS_OF_A_LOST_CONNECTION - 1 => {
                    lost.notify_one();
                }
                None => {}
                Some(Err(error)) if error.is_unrecoverable_error() => lost.notify_one(),
                // A primary that has become a replica keeps its connections. The address may lead to the new one.
                Some(Err(error)) if is_read_only(error) && since.elapsed() > LEAST_AGE => lost.notify_one(),
                // Most often it is zero already, and all threads look at it.
                Some(_) if timeouts.load(Ordering::Relaxed) == 0 => {}
                Some(_) => timeouts.store(0, Ordering::Relaxed),
            }
        }
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(self.convert(&error)),
            None => Err(CacheError::Timeout(self.timeout)),
        }
    }

    /// The open connection; waits only while the first attempt to bring it back is under way.
    async fn live(&self) -> Result<Arc<Live>, CacheError> {
        if let State::Up(live) = &*self.state.borrow() {
            return Ok(Arc::clone(live));
        }
        let mut state = self.state.clone();
        match state.wait_for(|state| !matches!(state, State::Reconnecting)).await.as_deref() {
            Ok(State::Up(live)) => Ok(Arc::clone(live)),
            Ok(State::Down(error)) => Err(error.clone()),
            Ok(State::Reconnecting) | Err(_) => Err(CacheError::Unavailable("the connection was lost".to_owned())),
        }
    }

    /// Warns that the server is there but cannot serve, now and then and not at every call.
    fn complain(&self, reason: &str) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
            *complained = Some(Instant::now());
            tracing::warn!("the server at `{}` cannot serve: {reason}", self.address);
        }
    }

    fn convert(&self, error: &RedisError) -> CacheError {
        // Of a pipeline's errors the first says what all have in common.
        let all = error.clone().into_server_errors();
        let first = all.and_then(|errors| errors.first().map(|(_, error)| RedisError::from(error.clone())));
        let error = first.as_ref().unwrap_or(error);
        let text = error.to_string();
        match error.kind() {
            _ if error.code() == Some("WRONGTYPE") => CacheError::WrongType,
            _ if is_a_state(error) => {
                self.complain(&text);
                CacheError::Unavailable(text)
            }
            ErrorKind::Server(_) | ErrorKind::Extension => CacheError::Refused(text),
            _ if error.is_timeout() => CacheError::Timeout(self.timeout),
            ErrorKind::UnexpectedReturnType => CacheError::Refused(text),
            _ => CacheError::Unavailable(text),
        }
    }
}

fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Whether the server is in a state in which it cannot serve now, rather than given a command it would never take.
pub(super) fn is_a_state(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain,
        )
    ) || matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS"))
}

/// Brings the connection back whenever it is lost, until nobody asks for it any more.
async fn keep_up(options: ServerOptions, mut lost: Arc<Notify>, state: watch::Sender<State>, watchers: Arc<Watchers>) {
    let (kind, address) = (options.kind.name(), options.address());
    loop {
        tokio::select! {
            () = lost.notified() => {}
            () = state.closed() => return,
        }
        tracing::warn!("lost the connection to {kind} at `{address}`");
        state.send_replace(State::Reconnecting);
        // What the server would have told them goes nowhere.
        watchers.wake_all();
        let mut pause = FIRST_PAUSE;
        loop {
            match options.connect(&watchers).await {
                Ok(live) => {
                    tracing::info!("{kind} at `{address}` is back");
                    lost = Arc::clone(&live.lost);
                    state.send_replace(State::Up(Arc::new(live)));
                    break;
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    state.send_replace(State::Down(error));
                }
            }
            tokio::select! {
                // Hosts that lost one server are not to come back all at the same moment.
                () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))) => {}
                () = state.closed() => return,
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}
