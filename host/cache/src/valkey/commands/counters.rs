//! Counters on the server, and storing while a key has no value.
//!
//! A lease under the key is no value: it is replaced, as by a set, and so a fill under it is not stored.

use redis::{Cmd, Value};

use crate::backend::parse_number;
use crate::valkey::topology::Servers;
use crate::{CacheError, Duration, Lease};

/// True in both scripts if the key holds neither a value nor a lease, or a lease. ARGV[1] is the mark of leases. `PTTL` is
/// -2 for a key that does not exist.
macro_rules! if_absent {
    ($then:literal) => {
        concat!(
            "#!lua\n",
            "local head = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ",
            "if head == ARGV[1] or (head == '' and redis.call('PTTL', KEYS[1]) == -2) then ",
            $then
        )
    };
}

/// Sets the key to ARGV[2], with the options after it, if it has no value.
const SET_IF_ABSENT: &str = if_absent!("return redis.call('SET', KEYS[1], unpack(ARGV, 2)) else return false end");

/// A script that adds ARGV[2] to the number of the key, or sets the key to it, with the options after it. `$then` comes after
/// an addition. The reply is the number as text, because numbers of Lua are not exact. It is 0 or 1 if the server refuses to
/// add.
macro_rules! increment {
    ($then:literal) => {
        concat!(
            if_absent!("redis.call('SET', KEYS[1], unpack(ARGV, 2)) return ARGV[2] end "),
            "local sum = redis.pcall('INCRBY', KEYS[1], ARGV[2]) \
             if type(sum) == 'table' and sum.err then \
             if string.find(sum.err, 'not an integer', 1, true) then return 0 end \
             if string.find(sum.err, 'overflow', 1, true) then return 1 end \
             return sum end \
             sum = redis.call('GET', KEYS[1]) ",
            $then,
            "return sum"
        )
    };
}

/// A number keeps its remaining life.
const INCREMENT: &str = increment!("");

// Decision: docs/decisions/0105-a-write-that-does-not-expire-has-a-version-of-its-own.md
/// A number that lasts at least [`Duration::LASTING`], in milliseconds, gets the options of one without a value. `PTTL` is -1
/// for a key without expiry.
const INCREMENT_LASTING: &str = increment!(
    "local life = redis.call('PTTL', KEYS[1]) \
     if life == -1 or life >= 1576800000000 then redis.call('SET', KEYS[1], sum, unpack(ARGV, 3)) end "
);

/// A script that stores a value under a key without one, for this number of milliseconds, or without expiry.
fn script(script: &str, key: &str, value: &[u8], duration: Option<u64>) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(key).arg(Lease::MARK).arg(value);
    if let Some(milliseconds) = duration {
        command.arg("PX").arg(milliseconds);
    }
    command
}

/// Stores a value if the key has none. Returns whether it did.
pub(in crate::valkey) async fn set_if_absent(
    servers: &Servers,
    key: &str,
    value: &[u8],
    duration: Option<u64>,
) -> Result<bool, CacheError> {
    let set = script(SET_IF_ABSENT, key, value, duration);
    Ok(servers.call::<Value>(key, value.len(), &set).await? != Value::Nil)
}

/// Adds to the number of the key. Returns the sum. It is sent once: after a lost reply it is unknown whether it was
/// executed.
pub(in crate::valkey) async fn increment(
    servers: &Servers,
    key: &str,
    delta: i64,
    duration: Option<u64>,
) -> Result<i64, CacheError> {
    let is_lasting = duration.is_some_and(|duration| u128::from(duration) >= Duration::LASTING.as_millis());
    let add = if is_lasting { INCREMENT_LASTING } else { INCREMENT };
    let add = script(add, key, delta.to_string().as_bytes(), duration);
    match servers.call::<Value>(key, 0, &add).await? {
        Value::BulkString(sum) => parse_number(&sum).ok_or_else(|| unexpected(&sum)),
        Value::Int(0) => Err(CacheError::NotANumber),
        Value::Int(1) => Err(CacheError::NumberOverflow),
        other => Err(CacheError::Refused(format!("unexpected reply to INCRBY: {other:?}"))),
    }
}

fn unexpected(sum: &[u8]) -> CacheError {
    CacheError::Refused(format!("unexpected reply to INCRBY: {} bytes", sum.len()))
}
