//! Values with their remaining life, and storing while a key still has what was read.

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use crate::CacheError;
use crate::backend::{Version, WithLife};
use crate::valkey::topology::Servers;

/// What `PTTL` and `PEXPIRETIME` return for a key without expiry.
const NO_EXPIRY: i64 = -1;

/// Sets the key to ARGV[3], with the options after it, if it holds a value with the SHA-1 digest ARGV[2] that expires at
/// ARGV[1]. `SET … IFEQ` compares the value alone, and would replace an equal value that was set later.
///
/// The first line makes a server that cannot store refuse the script as it refuses `SET`.
const REPLACE: &str = "#!lua\n\
     local found = redis.pcall('GET', KEYS[1]) \
     if type(found) == 'string' and redis.call('PEXPIRETIME', KEYS[1]) == tonumber(ARGV[1]) \
     and redis.sha1hex(found) == ARGV[2] \
     then return redis.call('SET', KEYS[1], unpack(ARGV, 3)) else return false end";

/// Reads a key by the command `get`. Returns what is stored with its remaining life, and the time at which it expires, in
/// milliseconds since 1970 by the server's clock.
///
/// The three replies belong to one state of the key unless it was written in between. Then the version that is made of
/// them is one that the key never had, and nothing is stored for it.
pub(in crate::valkey) async fn read(
    servers: &Servers,
    key: &str,
    get: &Cmd,
) -> Result<Option<(WithLife, Option<u64>)>, CacheError> {
    let replies = servers.read_with(key, |exchange| {
        let mut read = Pipeline::with_capacity(3);
        exchange.add(&mut read, get.clone());
        for command in ["PTTL", "PEXPIRETIME"] {
            let mut command = redis::cmd(command);
            command.arg(key);
            exchange.add(&mut read, command);
        }
        read
    });
    let mut replies = replies.await?.into_iter();
    let stored = Option::<Bytes>::from_redis_value(replies.next().unwrap_or(Value::Nil))
        .map_err(|error| CacheError::Refused(format!("unexpected reply: {error}")))?;
    let times = (expiry(replies.next()), expiry(replies.next()));
    Ok(match (stored, times) {
        (Some(value), (Some(life), Some(expires_at))) => Some((WithLife { value, life }, expires_at)),
        // Also a key that expired or was removed while it was read.
        _ => None,
    })
}

/// Stores `value` if the key still has this version, for this number of milliseconds, or without expiry. Returns whether
/// it did.
pub(in crate::valkey) async fn replace(
    servers: &Servers,
    key: &str,
    version: &Version,
    value: &[u8],
    duration: Option<u64>,
) -> Result<bool, CacheError> {
    let expires_at = version.expires_at().map_or(NO_EXPIRY, |time| i64::try_from(time).unwrap_or(i64::MAX));
    let mut replace = redis::cmd("EVAL");
    replace.arg(REPLACE).arg(1).arg(key).arg(expires_at).arg(version.hex_digest()).arg(value);
    if let Some(milliseconds) = duration {
        replace.arg("PX").arg(milliseconds);
    }
    Ok(servers.call::<Value>(key, value.len(), &replace).await? != Value::Nil)
}

/// `Some(None)` for a key without expiry, `None` for a key that is gone.
fn expiry(reply: Option<Value>) -> Option<Option<u64>> {
    match reply? {
        Value::Int(NO_EXPIRY) => Some(None),
        Value::Int(milliseconds) => Some(Some(u64::try_from(milliseconds).ok()?)),
        _ => None,
    }
}
