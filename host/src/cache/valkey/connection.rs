//! The one connection to a server: every call has a deadline, and a task of its own brings a lost connection back.
//!
//! Commands of all plugins share it, interleaved by the client. During an outage calls fail at once with the reason the
//! last attempt found; only in the moment after a loss, while the first attempt to reconnect is under way, do they
//! wait, within their deadline.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as StdDuration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cache::CacheError;
use crate::cache::valkey::bounded::{Bounds, LeftOut};
use crate::cache::valkey::identity::Identity;
use crate::cache::valkey::opening::{Live, Opener};
use crate::cache::valkey::options::ServerOptions;
use crate::cache::valkey::support::Support;
use crate::cache::valkey::watch::Watchers;

/// The pause after the first failed attempt to reconnect, and the longest, both at most: it doubles in between. So a
/// server that is back is noticed within a second.
const FIRST_PAUSE: StdDuration = StdDuration::from_millis(50);
const LONGEST_PAUSE: StdDuration = StdDuration::from_millis(800);

/// So many calls in a row without an answer make a connection count as lost: a silent partition breaks none.
const TIMEOUTS_OF_A_LOST_CONNECTION: u32 = 3;

/// A connection that is younger is not given up because its server does not take writes.
const LEAST_AGE: StdDuration = StdDuration::from_secs(1);

/// No string is too long below this: what a server says of itself, and the keys that it finds, may be longer than the
/// values of the cache.
const LEAST_BOUND: u64 = 64 << 10;

/// The most bytes of all values that one batch may bring: as many as one may store.
const MAX_ANSWER: u64 = 64 << 20;

/// How often the log is told that a server which answers cannot serve.
const COMPLAINT_INTERVAL: StdDuration = StdDuration::from_secs(10);

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
    /// The longest value of the cache, in bytes.
    max_value: u64,
    /// When the log was last told that the server cannot serve.
    complained: Mutex<Option<Instant>>,
    watchers: Arc<Watchers>,
}

impl Link {
    /// Connects, and starts the task that keeps the connection up.
    pub(super) async fn connect(options: ServerOptions, max_value_bytes: usize) -> Result<Self, CacheError> {
        let (timeout, address) = (options.timeout, options.address());
        let max_value = u64::try_from(max_value_bytes).unwrap_or(u64::MAX);
        let bounds = Bounds { string: max_value.max(LEAST_BOUND), answer: max_value.max(MAX_ANSWER) };
        let watchers = Arc::default();
        let opener = Opener { options, bounds, watchers: Arc::clone(&watchers) };
        let live = opener.connect().await?;
        let lost = Arc::clone(&live.lost);
        let (sender, state) = watch::channel(State::Up(Arc::new(live)));
        tokio::spawn(keep_up(opener, lost, sender));
        Ok(Self { state, timeout, address, max_value, complained: Mutex::default(), watchers })
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
        if let Some(LeftOut { len, bound }) = LeftOut::read(error) {
            // A string over the bound for strings is over the limit for values, which may be below it.
            let max = if bound < MAX_ANSWER { bound.min(self.max_value) } else { bound };
            return too_large(len, max);
        }
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

/// The error for a value of the server's that is not taken.
fn too_large(len: u64, max: u64) -> CacheError {
    let bytes = |number| usize::try_from(number).unwrap_or(usize::MAX);
    CacheError::ValueTooLarge { len: bytes(len), max: bytes(max) }
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
async fn keep_up(opener: Opener, mut lost: Arc<Notify>, state: watch::Sender<State>) {
    let (kind, address) = (opener.options.kind.name(), opener.options.address());
    loop {
        tokio::select! {
            () = lost.notified() => {}
            () = state.closed() => return,
        }
        tracing::warn!("lost the connection to {kind} at `{address}`");
        state.send_replace(State::Reconnecting);
        // What the server would have told them goes nowhere.
        opener.watchers.wake_all();
        let mut pause = FIRST_PAUSE;
        loop {
            match opener.connect().await {
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
