//! Reads that the near tier may keep: the value, its remaining life, and the announcement of the next change.
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
use crate::valkey::topology::Servers;
use crate::{CacheError, Claim, Lease};

/// What `PTTL` returns for a key without expiry.
const NO_EXPIRY: i64 = -1;

/// What is stored under a key, and what is needed to keep it.
#[derive(Debug)]
pub(in crate::valkey) struct Read {
    pub(in crate::valkey) stored: Option<Bytes>,
    pub(in crate::valkey) keep: Option<Keep>,
}

/// The feed of the connection that an exchange uses, and its state before the commands are sent.
#[derive(Debug, Default)]
struct Used(Mutex<Option<(Arc<Feed>, Stamp)>>);

impl Used {
    /// Takes the state of the feed. Returns false if the connection has none. A redirect leads to another connection.
    fn note(&self, exchange: &Exchange) -> bool {
        let feed = exchange.feed.as_ref().filter(|_| !exchange.is_asking);
        let used = feed.and_then(|feed| Some((Arc::clone(feed), feed.stamp()?)));
        let is_tracked = used.is_some();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = used;
        is_tracked
    }

    fn into_inner(self) -> Option<(Arc<Feed>, Stamp)> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a feed after the server refused commands that it needs, but serves the key: the user's rights have changed.
fn give_up(used: Option<(Arc<Feed>, Stamp)>, reason: &CacheError) {
    if let Some((feed, _)) = used {
        tracing::warn!("no values of this connection are kept near any more: {reason}");
        feed.close();
    }
}

/// Reads a key.
pub(in crate::valkey) async fn read(servers: &Servers, key: &str, get: &Cmd) -> Result<Read, CacheError> {
    let used = Used::default();
    let replies = servers.read_with(key, |exchange| {
        let mut read = Pipeline::with_capacity(3);
        let is_tracked = used.note(exchange);
        track(exchange, &mut read, is_tracked, get);
        if is_tracked {
            exchange.add(&mut read, time_left(key));
        }
        read
    });
    let replies = replies.await;
    let used = used.into_inner();
    match replies {
        Ok(replies) => {
            let mut replies = replies.into_iter();
            let stored = stored(replies.next())?;
            Ok(Read { stored, keep: keep(used.map(|(_, stamp)| stamp), replies.next()) })
        }
        Err(refused @ CacheError::Refused(_)) if used.is_some() => {
            let stored = servers.read(key, get).await?;
            give_up(used, &refused);
            Ok(Read { stored, keep: None })
        }
        Err(error) => Err(error),
    }
}

/// Reads many keys on a single server. A key of another type has no value.
pub(in crate::valkey) async fn read_many(servers: &Servers, keys: &[String]) -> Result<Vec<Read>, CacheError> {
    let used = Used::default();
    let mut get = redis::cmd("MGET");
    get.arg(keys);
    let replies = servers.read_many_with(keys, |exchange| {
        let mut read = Pipeline::with_capacity(keys.len().saturating_add(2));
        let is_tracked = used.note(exchange);
        track(exchange, &mut read, is_tracked, &get);
        for key in keys.iter().filter(|_| is_tracked) {
            exchange.add(&mut read, time_left(key));
        }
        read
    });
    let replies = replies.await;
    let used = used.into_inner();
    match replies {
        Ok(replies) => {
            let mut replies = replies.into_iter();
            let values = Vec::<Value>::from_redis_value(replies.next().unwrap_or(Value::Nil)).map_err(unexpected)?;
            let mut values = values.into_iter();
            let stamp = used.map(|(_, stamp)| stamp);
            let read =
                |_key| Ok::<_, CacheError>(Read { stored: stored(values.next())?, keep: keep(stamp, replies.next()) });
            keys.iter().map(read).collect()
        }
        Err(refused @ CacheError::Refused(_)) if used.is_some() => {
            let values = servers.read_many(keys).await?;
            give_up(used, &refused);
            Ok(values.into_iter().map(|stored| Read { stored, keep: None }).collect())
        }
        Err(error) => Err(error),
    }
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
        let is_tracked = used.note(exchange);
        track(exchange, &mut read, is_tracked, get);
        if is_tracked {
            exchange.add(&mut read, time_left(key));
        }
        exchange.add(&mut read, set.clone());
        read
    });
    let replies = replies.await;
    let used = used.into_inner();
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

/// Adds a read, which the server tracks if it is to be kept.
fn track(exchange: &Exchange, pipeline: &mut Pipeline, is_tracked: bool, read: &Cmd) {
    if is_tracked {
        pipeline.cmd("CLIENT").arg("CACHING").arg("YES").ignore();
    }
    exchange.add(pipeline, read.clone());
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
