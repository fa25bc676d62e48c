//! Reads of several keys, and reads that the near tier may keep: the value, its remaining life, and the announcement of the
//! next change.
//!
//! The read that is tracked comes right behind `CLIENT CACHING YES`, which holds for one command. The remaining life is
//! read after the value: a change between the two is announced, and then nothing is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use crate::near::feeds::{Feed, Stamp};
use crate::near::tier::Keep;
use crate::valkey::connection::managed::Exchange;
use crate::valkey::connection::pool::Replies;
use crate::valkey::connection::routing::BatchEntry;
use crate::valkey::topology::Servers;
use crate::valkey::topology::slots::slot_of;
use crate::{CacheError, Claim, KeyState, Lease};

/// What `PTTL` returns for a key without expiry, and for one that does not exist.
const NO_EXPIRY: i64 = -1;
const NO_KEY: i64 = -2;

/// What is stored under a key, and what is needed to keep it.
#[derive(Debug, Default)]
pub(in crate::valkey) struct Read {
    pub(in crate::valkey) stored: Option<Bytes>,
    pub(in crate::valkey) keep: Option<Keep>,
}

/// The feed of the connection that an exchange uses, and its state before the commands are sent.
#[derive(Debug, Default)]
struct Used(Mutex<Option<(Arc<Feed>, Stamp)>>);

impl Used {
    /// Takes the state of the feed. Returns false if the connection has none that announces changes of the key. A redirect
    /// leads to another connection.
    fn note(&self, exchange: &Exchange, key: &str) -> bool {
        // A node that serves the key by `ASKING` does not own it yet.
        let feed = exchange.feed.as_ref().filter(|_| !exchange.is_asking);
        let used = feed.and_then(|feed| Some((Arc::clone(feed), feed.stamp_of(|| slot_of(key.as_bytes()))?)));
        let is_tracked = used.is_some();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = used;
        is_tracked
    }

    fn take(&self) -> Option<(Arc<Feed>, Stamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Ends a feed after the server refused commands that it needs, but serves the key: the user's rights have changed.
fn give_up(used: Option<(Arc<Feed>, Stamp)>, reason: &CacheError) {
    if let Some((feed, _)) = used {
        tracing::warn!("no values of this connection are kept near any more: {reason}");
        feed.close();
    }
}

/// A key that is read.
#[derive(Debug)]
struct ReadKey<'a> {
    key: &'a str,
    /// That of the first key of a group counts for the group.
    used: Used,
}

impl BatchEntry for ReadKey<'_> {
    fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

/// Reads a key, such that it may be kept.
pub(in crate::valkey) async fn read(servers: &Servers, key: &str) -> Result<Read, CacheError> {
    read_all(servers, &[key], true).await?.pop().unwrap_or_else(|| Ok(Read::default()))
}

// Decision: docs/decisions/0013-a-value-of-another-type-is-an-error-for-get-and-a-miss-in-get-many.md
/// Reads many keys, in their order, such that they may be kept if `keeps` is true. A key of another type has no value.
pub(in crate::valkey) async fn read_many(
    servers: &Servers,
    keys: &[String],
    keeps: bool,
) -> Result<Vec<Read>, CacheError> {
    let read = read_all(servers, keys, keeps).await?.into_iter().map(|read| match read {
        Err(CacheError::WrongType) => Ok(Read::default()),
        read => read,
    });
    read.collect()
}

async fn read_all(
    servers: &Servers,
    keys: &[impl AsRef<str>],
    keeps: bool,
) -> Result<Vec<Result<Read, CacheError>>, CacheError> {
    let keys: Vec<ReadKey> = keys.iter().map(|key| ReadKey { key: key.as_ref(), used: Used::default() }).collect();
    let commands = |exchange: &Exchange, group: &[ReadKey]| {
        let is_tracked = keeps && group.first().is_some_and(|first| first.used.note(exchange, first.key));
        read_commands(group, is_tracked)
    };
    let len = |read: &Read| read.stored.as_ref().map_or(0, Bytes::len);
    servers.read_batch(&keys, commands, read_of_group, len).await
}

/// The commands that read a group of keys.
fn read_commands(group: &[ReadKey], is_tracked: bool) -> Vec<Cmd> {
    let mut commands = Vec::with_capacity(group.len().saturating_add(2));
    if is_tracked {
        commands.push(caching());
    }
    let mut get = redis::cmd(if group.len() == 1 { "GET" } else { "MGET" });
    group.iter().for_each(|key| _ = get.arg(key.key));
    commands.push(get);
    if is_tracked {
        commands.extend(group.iter().map(|key| time_left(key.key)));
    }
    commands
}

/// What a group of keys holds, from the replies to [`read_commands`].
fn read_of_group(group: &[ReadKey], replies: Replies) -> Vec<Result<Read, CacheError>> {
    let used = group.first().and_then(|first| first.used.take());
    let mut replies = replies.into_iter();
    let caching = used.is_some().then(|| replies.next()).flatten();
    let values: Replies = match (replies.next(), group.len()) {
        (Some(reply), 1) => vec![reply],
        (Some(Ok(Value::Array(values))), len) if values.len() == len => values.into_iter().map(Ok).collect(),
        (reply, len) => vec![reply.unwrap_or(Ok(Value::Nil)).and_then(|_| Err(no_values())); len],
    };
    let times: Replies = replies.collect();
    let stamp = used.as_ref().filter(|_| matches!(caching, Some(Ok(_)))).map(|(_, stamp)| *stamp);
    // A user without the right to one of the commands around the read may still read.
    let refused = |reply: &Result<Value, CacheError>| match reply {
        Err(refused @ CacheError::Refused(_)) => Some(refused.clone()),
        _ => None,
    };
    if let Some(refused) = caching.iter().chain(&times).find_map(refused) {
        give_up(used, &refused);
    }
    let mut times = times.into_iter();
    let read = |value: Result<Value, CacheError>| {
        let keep = keep(stamp, times.next().and_then(Result::ok));
        Ok(Read { stored: stored(Some(value?))?, keep })
    };
    values.into_iter().map(read).collect()
}

fn no_values() -> CacheError {
    CacheError::Refused("unexpected reply to MGET".to_owned())
}

/// Reads a key, and stores a lease by the command `set` if it holds neither a value nor a lease. `plain` is the claim by
/// one command, for a key that gets a value or a lease between the two, and for a server that refuses one of them.
pub(in crate::valkey) async fn claim(
    servers: &Servers,
    key: &str,
    get: &Cmd,
    set: &Cmd,
    plain: impl Future<Output = Result<Claim, CacheError>>,
) -> Result<(Claim, Option<Keep>), CacheError> {
    let used = Used::default();
    let replies = servers.read_with(key, |exchange| {
        let mut read = Pipeline::with_capacity(4);
        let is_tracked = used.note(exchange, key);
        if is_tracked {
            read.add_command(caching()).ignore();
        }
        exchange.add(&mut read, get.clone());
        if is_tracked {
            exchange.add(&mut read, time_left(key));
        }
        exchange.add(&mut read, set.clone());
        read
    });
    let replies = replies.await;
    let used = used.take();
    let mut replies = match replies {
        Ok(replies) => replies.into_iter(),
        Err(refused @ CacheError::Refused(_)) => {
            let claim = plain.await?;
            give_up(used, &refused);
            return Ok((claim, None));
        }
        Err(error) => return Err(error),
    };
    let (stored, time_left) = (stored(replies.next())?, used.as_ref().and_then(|_| replies.next()));
    // Also if there was a value: it expired before the lease was stored.
    if !matches!(replies.next(), Some(Value::Nil) | None) {
        return Ok((Claim::Granted, None));
    }
    let Some(stored) = stored else { return Ok((plain.await?, None)) };
    Ok(match Lease::read(&stored) {
        Some(lease) => (Claim::Leased(lease), None),
        None => (Claim::Value(stored), keep(used.map(|(_, stamp)| stamp), time_left)),
    })
}

/// Makes the server announce the next change of the keys of the command behind it.
fn caching() -> Cmd {
    let mut caching = redis::cmd("CLIENT");
    caching.arg("CACHING").arg("YES");
    caching
}

/// The command that reads as many bytes of a key as show whether it is a lease.
pub(in crate::valkey) fn head(key: &[u8]) -> Cmd {
    let mut head = redis::cmd("GETRANGE");
    head.arg(key).arg(0).arg(Lease::MARK.len().saturating_sub(1));
    head
}

/// Returns true if a key holds a value. It is read, by the command `get`, only if it is empty.
pub(in crate::valkey) async fn exists(servers: &Servers, key: &str, get: &Cmd) -> Result<bool, CacheError> {
    let read = servers.exchange(key, 0, |exchange| exchange.pipeline(vec![head(key.as_bytes()), time_left(key)]));
    let (head, time_left): (Bytes, i64) = read.await?;
    if !head.is_empty() {
        return Ok(!Lease::is_marked(&head));
    }
    if time_left == NO_KEY {
        return Ok(false);
    }
    // An empty value, or a lease that was stored between the two replies.
    let stored = servers.read(key, get).await?;
    Ok(stored.is_some_and(|stored| !Lease::is_marked(&stored)))
}

/// Returns what a key holds. Its value is read, by the command `get`, for its length: few users have a right to `STRLEN`.
pub(in crate::valkey) async fn describe(servers: &Servers, key: &str, get: &Cmd) -> Result<KeyState, CacheError> {
    let read = servers.exchange(key, 0, |exchange| exchange.pipeline(vec![head(key.as_bytes()), time_left(key)]));
    let (head, time_left): (Bytes, i64) = read.await?;
    if time_left == NO_KEY {
        return Ok(KeyState::Empty);
    }
    let life = as_life(time_left);
    if Lease::is_marked(&head) {
        return Ok(KeyState::Lease { life });
    }
    Ok(match servers.read(key, get).await? {
        Some(stored) if Lease::is_marked(&stored) => KeyState::Lease { life },
        Some(stored) => KeyState::Value { bytes: stored.len(), life },
        None => KeyState::Empty,
    })
}

/// The remaining life of a key, in milliseconds; `None` if it does not expire.
pub(in crate::valkey) async fn life(servers: &Servers, key: &str) -> Result<Option<u64>, CacheError> {
    let (left,): (i64,) = servers.exchange(key, 0, |exchange| exchange.pipeline(vec![time_left(key)])).await?;
    Ok(as_life(left))
}

fn as_life(time_left: i64) -> Option<u64> {
    u64::try_from(time_left).ok()
}

fn time_left(key: &str) -> Cmd {
    let mut time_left = redis::cmd("PTTL");
    time_left.arg(key);
    time_left
}

fn stored(reply: Option<Value>) -> Result<Option<Bytes>, CacheError> {
    Option::<Bytes>::from_redis_value(reply.unwrap_or(Value::Nil)).map_err(unexpected)
}

fn unexpected(error: redis::ParsingError) -> CacheError {
    CacheError::Refused(format!("unexpected reply: {error}"))
}

/// `None` also for a key that was gone when its remaining life was read.
fn keep(stamp: Option<Stamp>, time_left: Option<Value>) -> Option<Keep> {
    let (stamp, Some(Value::Int(time_left))) = (stamp?, time_left) else { return None };
    let life = match time_left {
        NO_EXPIRY => None,
        left => Some(StdDuration::from_millis(u64::try_from(left).ok()?)),
    };
    Some(Keep { stamp, life })
}
