//! A connection to one server: every call has a deadline, and a task of its own brings a lost connection back.
//!
//! Commands of all plugins share it, interleaved by the client. During an outage calls fail at once with the reason the
//! last attempt found; only in the moment after a connection broke, while the first attempt to reconnect is under way,
//! do they wait, within their deadline.

// Decision: docs/decisions/0007-our-own-reconnect-task-instead-of-the-clients-connection-manager.md

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as StdDuration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::valkey::connection::connector::{Live, Opener, Target};
use crate::valkey::connection::reply_limit::{Bounds, LeftOut};
use crate::valkey::server::capabilities::Support;
use crate::valkey::server::info::Identity;
use crate::{CacheError, Health};

/// The pause after the first failed attempt to reconnect, and the longest, both at most: it doubles in between. So a
/// server that is back is noticed within a second.
const FIRST_PAUSE: StdDuration = StdDuration::from_millis(50);
const LONGEST_PAUSE: StdDuration = StdDuration::from_millis(800);

/// So many calls in a row without an answer make a connection count as lost: a silent partition breaks none.
const TIMEOUTS_OF_A_LOST_CONNECTION: u32 = 3;

/// A connection that is younger is not given up because its server does not take writes.
const LEAST_AGE: StdDuration = StdDuration::from_secs(1);

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

/// A connection that is kept up.
#[derive(Debug)]
pub(in crate::valkey) struct Link {
    /// The keeper ends when this is dropped.
    state: watch::Receiver<State>,
    timeout: StdDuration,
    /// Where it leads, for the log.
    target: Target,
    /// The longest value of the cache, in bytes.
    max_value: u64,
    bounds: Bounds,
    /// When the log was last told that the server cannot serve.
    complained: Mutex<Option<Instant>>,
    reconnects: Arc<AtomicU64>,
    /// How many calls were given up before their answer, since all that was sent was last known to be carried out.
    unanswered: AtomicU64,
}

/// A call under way. Dropped before it is answered, it counts as unanswered.
#[derive(Debug)]
struct Pending<'a>(&'a AtomicU64);

impl Pending<'_> {
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection in use by one exchange.
#[derive(Debug)]
pub(in crate::valkey) struct Wire {
    pub(in crate::valkey) connection: MultiplexedConnection,
    pub(in crate::valkey) support: Support,
    /// Whether the key is on its way to this node of a cluster: each command must ask to be served all the same.
    pub(in crate::valkey) is_asking: bool,
}

impl Wire {
    /// One command, with what it needs in front of it.
    pub(in crate::valkey) fn one(&self, command: Cmd) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2);
        self.add(&mut pipeline, command);
        pipeline
    }

    /// Adds a command, with what it needs in front of it.
    pub(in crate::valkey) fn add(&self, pipeline: &mut Pipeline, command: Cmd) {
        if self.is_asking {
            pipeline.cmd("ASKING").ignore();
        }
        pipeline.add_command(command);
    }
}

/// Why an exchange had no answer that is one.
#[derive(Debug)]
pub(in crate::valkey) struct Failure {
    pub(in crate::valkey) error: CacheError,
    /// Where the key is, if the server knows better.
    pub(in crate::valkey) redirect: Option<Redirect>,
}

/// Another node of the cluster that has a key.
#[derive(Debug)]
pub(in crate::valkey) struct Redirect {
    /// As the server wrote it.
    pub(in crate::valkey) to: String,
    /// Whether it has the key only for now: the slot is on its way there.
    pub(in crate::valkey) is_asking: bool,
}

impl Redirect {
    pub(in crate::valkey) fn read(error: &RedisError) -> Option<Self> {
        let (to, _slot) = error.redirect_node()?;
        Some(Self { to: to.to_owned(), is_asking: error.kind() == ErrorKind::Server(ServerErrorKind::Ask) })
    }
}

impl Link {
    /// Connects, and starts the task that keeps the connection up.
    pub(in crate::valkey) async fn connect(opener: Opener) -> Result<Self, CacheError> {
        let live = opener.connect().await?;
        Ok(Self::keep(opener, Some(live)))
    }

    /// Starts the task that connects and keeps the connection up. Calls wait for the first attempt.
    pub(in crate::valkey) fn start(opener: Opener) -> Self {
        Self::keep(opener, None)
    }

    fn keep(opener: Opener, live: Option<Live>) -> Self {
        let (timeout, target) = (opener.options.timeout, opener.target.clone());
        let (max_value, bounds) = (opener.max_value, opener.bounds);
        let live = live.map(Arc::new);
        let (sender, state) = watch::channel(live.clone().map_or(State::Reconnecting, State::Up));
        let reconnects = Arc::new(AtomicU64::new(0));
        tokio::spawn(keep_up(opener, live, sender, Arc::clone(&reconnects)));
        let (complained, unanswered) = (Mutex::default(), AtomicU64::new(0));
        Self { state, timeout, target, max_value, bounds, complained, reconnects, unanswered }
    }

    /// Waits for the first attempt to connect.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub(in crate::valkey) async fn reached(&self) -> Result<(), CacheError> {
        self.live().await.map(|_| ())
    }

    /// Whether it stands.
    pub(in crate::valkey) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// How often it was made anew after a loss.
    pub(in crate::valkey) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// When an exchange that begins now must be over.
    pub(in crate::valkey) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.timeout).unwrap_or(now)
    }

    /// What the server said it is and can do, when last reached.
    pub(in crate::valkey) fn server(&self) -> Result<(Identity, Support), CacheError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok((live.identity, live.support)),
            State::Reconnecting => Err(CacheError::Unavailable("the connection was lost".to_owned())),
            State::Down(error) => Err(error.clone()),
        }
    }

    /// Whether a call was given up before its answer, so that the server may carry it out yet.
    pub(in crate::valkey) fn has_unanswered(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0
    }

    /// Ends when the server has carried out all that was sent before, answered or not: it takes what comes over one
    /// connection in order.
    pub(in crate::valkey) async fn settle(&self, deadline: Instant) -> Result<(), CacheError> {
        let before = self.unanswered.load(Ordering::Relaxed);
        let _pong: Value = self.call(deadline, &redis::cmd("PING")).await?;
        let _more_since = self.unanswered.compare_exchange(before, 0, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }

    /// Reaches the server and says what it is.
    pub(in crate::valkey) async fn check(&self) -> Result<Health, CacheError> {
        let (identity, support) = self.server()?;
        let asked = Instant::now();
        let _pong: Value = self.call(self.deadline(), &redis::cmd("PING")).await?;
        Ok(Health {
            kind: identity.kind.name(),
            version: identity.version.to_string(),
            round_trip: Some(asked.elapsed()),
            supports: support.names(),
        })
    }

    /// Sends a command and waits for its answer, until the deadline.
    pub(in crate::valkey) async fn call<T: FromRedisValue>(
        &self,
        deadline: Instant,
        command: &Cmd,
    ) -> Result<T, CacheError> {
        let send = async |mut wire: Wire| {
            // What `query_async` does, without its box for each call.
            let answer = wire.connection.send_packed_command(command).await?;
            Ok(T::from_redis_value(answer.extract_error()?)?)
        };
        self.exchange(deadline, false, send).await.map_err(|failure| failure.error)
    }

    /// Sends many commands at once and waits for all answers, until the deadline.
    pub(in crate::valkey) async fn call_all<T: FromRedisValue>(
        &self,
        deadline: Instant,
        pipeline: &Pipeline,
    ) -> Result<T, CacheError> {
        let send = async |mut wire: Wire| pipeline.query_async(&mut wire.connection).await;
        self.exchange(deadline, false, send).await.map_err(|failure| failure.error)
    }

    /// Reads one answer of those to many commands, each of which may fail by itself.
    pub(in crate::valkey) fn read<T: FromRedisValue>(
        &self,
        answer: Option<RedisResult<Value>>,
    ) -> Result<T, CacheError> {
        let answer = answer.unwrap_or_else(|| Err(RedisError::from((ErrorKind::Client, "the server gave no answer"))));
        answer.and_then(|answer| Ok(T::from_redis_value(answer)?)).map_err(|error| self.convert(&error))
    }

    /// Sends what depends on what the server can do, and waits for the answers, until the deadline.
    pub(in crate::valkey) async fn send<T: FromRedisValue>(
        &self,
        deadline: Instant,
        is_asking: bool,
        commands: &impl Fn(&Wire) -> Pipeline,
    ) -> Result<T, Failure> {
        let send = async |mut wire: Wire| commands(&wire).query_async(&mut wire.connection).await;
        self.exchange(deadline, is_asking, send).await
    }

    async fn exchange<T>(
        &self,
        deadline: Instant,
        is_asking: bool,
        send: impl AsyncFnOnce(Wire) -> RedisResult<T>,
    ) -> Result<T, Failure> {
        let mut used = None;
        let pending = Pending(&self.unanswered);
        let exchange = async {
            let live = used.insert(self.live().await?);
            Ok(send(Wire { connection: live.connection.clone(), support: live.support, is_asking }).await)
        };
        let answer = match tokio::time::timeout_at(deadline, exchange).await {
            Ok(Err(down)) => {
                pending.answered();
                return Err(Failure { error: down, redirect: None });
            }
            Ok(Ok(answer)) => {
                pending.answered();
                Some(answer)
            }
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
            Some(Err(error)) => Err(self.failure(&error)),
            None => Err(Failure { error: CacheError::Timeout(self.timeout), redirect: None }),
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
            tracing::warn!("the server at `{}` cannot serve: {reason}", self.target);
        }
    }

    fn failure(&self, error: &RedisError) -> Failure {
        // Of a pipeline's errors the first says what all have in common.
        let all = error.clone().into_server_errors();
        let first = all.and_then(|errors| errors.first().map(|(_, error)| RedisError::from(error.clone())));
        let error = first.as_ref().unwrap_or(error);
        Failure { error: self.convert(error), redirect: Redirect::read(error) }
    }

    fn convert(&self, error: &RedisError) -> CacheError {
        if let Some(LeftOut { len, bound }) = LeftOut::read(error) {
            // A string over the bound for strings is over the limit for values, which may be below it.
            let max = if bound == self.bounds.string { self.max_value } else { bound };
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
            // It was sent, or nobody knows whether it was.
            _ => CacheError::Lost(text),
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
pub(in crate::valkey) fn is_a_state(error: &RedisError) -> bool {
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
async fn keep_up(opener: Opener, mut live: Option<Arc<Live>>, state: watch::Sender<State>, reconnects: Arc<AtomicU64>) {
    let mut has_been_up = false;
    let (kind, target) = (opener.options.kind.name(), opener.target.clone());
    loop {
        if let Some(live) = live.take() {
            has_been_up = true;
            tokio::select! {
                () = live.lost.notified() => {}
                () = state.closed() => return,
            }
            tracing::warn!("lost the connection to {kind} at `{target}`");
            // One that fell silent is not likely to take a new connection, and would not refuse it either: calls would
            // wait for that in vain.
            state.send_replace(if live.timeouts.load(Ordering::Relaxed) >= TIMEOUTS_OF_A_LOST_CONNECTION {
                let calls = TIMEOUTS_OF_A_LOST_CONNECTION;
                State::Down(CacheError::Unavailable(format!("{kind} at `{target}` left {calls} calls unanswered")))
            } else {
                State::Reconnecting
            });
            // What the server would have told them goes nowhere.
            opener.watchers.wake_all();
            opener.on_loss.notify_one();
        }
        let mut pause = FIRST_PAUSE;
        let opened = loop {
            match opener.connect().await {
                Ok(opened) => break Arc::new(opened),
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
        };
        if has_been_up {
            reconnects.fetch_add(1, Ordering::Relaxed);
        }
        tracing::info!("connected to {kind} at `{target}`");
        state.send_replace(State::Up(Arc::clone(&opened)));
        live = Some(opened);
    }
}
