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
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cache::CacheError;
use crate::cache::valkey::identity::{Identity, ServerKind};

/// The pause after the first failed attempt to reconnect, and the longest: it doubles in between. A server that is back
/// is so noticed within a second.
const FIRST_PAUSE: StdDuration = StdDuration::from_millis(50);
const LONGEST_PAUSE: StdDuration = StdDuration::from_millis(800);

/// So many calls in a row without an answer make a connection count as lost: a silent partition breaks none.
const TIMEOUTS_OF_A_LOST_CONNECTION: u32 = 3;

/// How often the log is told that a server which answers can not serve.
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
    /// The deadline of every call, a reconnect included. Defaults to 500 ms.
    pub timeout: StdDuration,
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
    async fn connect(&self) -> Result<Live, CacheError> {
        let place = || format!("{} at `{}`", self.kind.name(), self.address());
        match tokio::time::timeout(self.connect_timeout, self.open()).await {
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

    async fn open(&self) -> Result<Live, Refusal> {
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
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(settings);

        let lost = Arc::new(Notify::new());
        let on_push = {
            let lost = Arc::clone(&lost);
            move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                if push.kind == PushKind::Disconnection {
                    lost.notify_one();
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
        Ok(Live { connection, identity, lost, timeouts: Arc::default() })
    }
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

/// An open connection.
#[derive(Debug, Clone)]
struct Live {
    connection: MultiplexedConnection,
    identity: Identity,
    /// Tells the keeper that this connection is of no more use.
    lost: Arc<Notify>,
    /// Calls in a row that had no answer.
    timeouts: Arc<AtomicU32>,
}

/// Where the connection stands.
#[derive(Debug, Clone)]
enum State {
    Up(Live),
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
    /// When the log was last told that the server can not serve.
    complained: Mutex<Option<Instant>>,
}

impl Link {
    /// Connects, and starts the task that keeps the connection up.
    pub(super) async fn connect(options: ServerOptions) -> Result<Self, CacheError> {
        let live = options.connect().await?;
        let (timeout, address) = (options.timeout, options.address());
        let lost = Arc::clone(&live.lost);
        let (sender, state) = watch::channel(State::Up(live));
        tokio::spawn(keep_up(options, lost, sender));
        Ok(Self { state, timeout, address, complained: Mutex::default() })
    }

    /// What the server said it is, when last reached.
    pub(super) fn identity(&self) -> Result<Identity, CacheError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok(live.identity),
            State::Reconnecting => Err(CacheError::Unavailable("the connection was lost".to_owned())),
            State::Down(error) => Err(error.clone()),
        }
    }

    /// Sends a command and waits for its answer, within the deadline.
    pub(super) async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        self.exchange(async |connection| command.query_async(connection).await).await
    }

    /// Sends many commands at once and waits for all answers, within the deadline.
    pub(super) async fn call_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, CacheError> {
        self.exchange(async |connection| pipeline.query_async(connection).await).await
    }

    async fn exchange<T>(
        &self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, CacheError> {
        let mut used = None;
        let exchange = async {
            let Live { mut connection, .. } = used.insert(self.live().await?).clone();
            Ok(send(&mut connection).await)
        };
        let answer = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Err(down)) => return Err(down),
            Ok(Ok(answer)) => Some(answer),
            Err(_elapsed) => None,
        };
        if let Some(Live { lost, timeouts, .. }) = used {
            match &answer {
                None if timeouts.fetch_add(1, Ordering::Relaxed) >= TIMEOUTS_OF_A_LOST_CONNECTION - 1 => {
                    lost.notify_one();
                }
                None => {}
                Some(Err(error)) if error.is_unrecoverable_error() => lost.notify_one(),
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
    async fn live(&self) -> Result<Live, CacheError> {
        if let State::Up(live) = &*self.state.borrow() {
            return Ok(live.clone());
        }
        let mut state = self.state.clone();
        match state.wait_for(|state| !matches!(state, State::Reconnecting)).await.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            Ok(State::Down(error)) => Err(error.clone()),
            Ok(State::Reconnecting) | Err(_) => Err(CacheError::Unavailable("the connection was lost".to_owned())),
        }
    }

    /// Warns that the server is there but can not serve, now and then and not at every call.
    fn complain(&self, reason: &str) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
            *complained = Some(Instant::now());
            tracing::warn!("the server at `{}` can not serve: {reason}", self.address);
        }
    }

    fn convert(&self, error: &RedisError) -> CacheError {
        // Of a pipeline's errors the first says what all have in common.
        let all = error.clone().into_server_errors();
        let first = all.and_then(|errors| errors.first().map(|(_, error)| RedisError::from(error.clone())));
        let error = first.as_ref().unwrap_or(error);
        let text = error.to_string();
        match (error.kind(), error.code()) {
            (_, Some("WRONGTYPE")) => CacheError::WrongType,
            // States of the server in which it can not serve now, rather than a command it would never take.
            (
                ErrorKind::Server(
                    ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::TryAgain,
                ),
                _,
            )
            | (_, Some("OOM" | "MISCONF" | "BUSY")) => {
                self.complain(&text);
                CacheError::Unavailable(text)
            }
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => CacheError::Refused(text),
            _ if error.is_timeout() => CacheError::Timeout(self.timeout),
            (ErrorKind::UnexpectedReturnType, _) => CacheError::Refused(text),
            _ => CacheError::Unavailable(text),
        }
    }
}

/// Brings the connection back whenever it is lost, until nobody asks for it any more.
async fn keep_up(options: ServerOptions, mut lost: Arc<Notify>, state: watch::Sender<State>) {
    let (kind, address) = (options.kind.name(), options.address());
    loop {
        tokio::select! {
            () = lost.notified() => {}
            () = state.closed() => return,
        }
        tracing::warn!("lost the connection to {kind} at `{address}`");
        state.send_replace(State::Reconnecting);
        let mut pause = FIRST_PAUSE;
        loop {
            match options.connect().await {
                Ok(live) => {
                    tracing::info!("{kind} at `{address}` is back");
                    lost = Arc::clone(&live.lost);
                    state.send_replace(State::Up(live));
                    break;
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    state.send_replace(State::Down(error));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = state.closed() => return,
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}
