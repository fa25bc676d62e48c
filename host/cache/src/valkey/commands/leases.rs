//! Leases on the server: commands that act only while a key holds one, and the wait for its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use crate::valkey::servers::Servers;
use crate::{CacheError, Lease};

/// How long at most between two looks at a lease that another process has, where the server tells of changes. Only a
/// message that was lost makes it matter.
const LOOK_INTERVAL: StdDuration = StdDuration::from_secs(1);

/// The first and the longest pause between looks where it does not; it doubles in between.
const FIRST_LOOK: StdDuration = StdDuration::from_millis(5);
const LATER_LOOKS: StdDuration = StdDuration::from_millis(100);

/// Sets the key to ARGV[2], with the options behind it, where it holds ARGV[1]. A key of another type holds no lease.
/// The first line makes a server that cannot store refuse the script as it would refuse `SET`, lease or not.
const REPLACE: &str = "#!lua\n\
     if redis.pcall('GET', KEYS[1]) == ARGV[1] \
     then return redis.call('SET', KEYS[1], unpack(ARGV, 2)) else return false end";

/// Removes the key where it holds ARGV[1], also on a server that is full.
const REMOVE: &str = "#!lua flags=allow-oom\n\
     if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) else return 0 end";

// Decision: docs/decisions/0004-one-primitive-on-the-server-set-if-the-key-holds-this-lease.md
/// How a server compares and sets in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) enum Compare {
    /// `SET … IFEQ`, of Valkey 8.1.
    Ifeq,
    /// A script.
    Script,
}

/// When what is stored expires.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) enum End {
    /// After so many milliseconds.
    In(u64),
    /// At this Unix time in milliseconds. One that has passed removes the key.
    At(u64),
}

/// The command that stores `value` where the key holds `lease`; answers nil where it does not.
pub(in crate::valkey) fn replace(compare: Compare, key: &str, lease: &Lease, value: &[u8], end: Option<End>) -> Cmd {
    let mut command = match compare {
        Compare::Ifeq => redis::cmd("SET"),
        Compare::Script => redis::cmd("EVAL"),
    };
    match compare {
        Compare::Ifeq => command.arg(key).arg(value).arg("IFEQ").arg(lease.as_bytes()),
        Compare::Script => command.arg(REPLACE).arg(1).arg(key).arg(lease.as_bytes()).arg(value),
    };
    match end {
        Some(End::In(milliseconds)) => command.arg("PX").arg(milliseconds),
        Some(End::At(time)) => command.arg("PXAT").arg(time),
        None => &mut command,
    };
    command
}

/// Stores `value` where the key holds `lease`, and says whether it did.
pub(in crate::valkey) async fn replace_on(
    servers: &Servers,
    key: &str,
    lease: &Lease,
    value: &[u8],
    end: Option<End>,
) -> Result<bool, CacheError> {
    let sent =
        servers.exchange(key, value.len(), |wire| wire.one(replace(wire.support.compare, key, lease, value, end)));
    match sent.await {
        Ok((answer,)) => Ok(Value::Nil != answer),
        // Another program put something there that is no string, and so no lease.
        Err(CacheError::WrongType) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the lease where the key holds it.
pub(in crate::valkey) async fn remove_on(servers: &Servers, key: &str, lease: &Lease) -> Result<(), CacheError> {
    match replace_on(servers, key, lease, b"", Some(End::At(1))).await {
        // A full server takes no `SET`, not even one that makes room; but it may take a script.
        Err(error @ CacheError::Unavailable(_)) => {
            let mut script = redis::cmd("EVAL");
            script.arg(REMOVE).arg(1).arg(key).arg(lease.as_bytes());
            servers
                .call::<Value>(key, servers.large.way(key, 0), &script)
                .await
                .map(|_removed| ())
                .map_err(|_refused| error)
        }
        outcome => outcome.map(|_was_there| ()),
    }
}

/// Ends soon after the key no longer holds the lease, or when it was renewed.
///
/// Where the server tells of changes it is asked to tell of the next one of this key, in the same step as the look, so
/// that none is missed. A lease that lapses is told of late, when the server happens to find it; so its end is looked
/// for at its time. That is three commands a look, and a look a second; else it is two commands a look, and after a
/// moment ten looks a second.
pub(in crate::valkey) async fn changed(servers: &Servers, key: &str, lease: &Lease) -> Result<(), CacheError> {
    let watched = servers.watchers().watch(key);
    let mut pause = FIRST_LOOK;
    loop {
        let mut change = std::pin::pin!(watched.change());
        change.as_mut().enable();
        // As the server that was asked last has it.
        let is_told = AtomicBool::default();
        let looked = servers.exchange(key, 0, |wire| {
            let mut look = Pipeline::with_capacity(5);
            // Of a key that a node of a cluster has only for now it would not tell.
            let tells = wire.support.tracking && !wire.is_asking;
            is_told.store(tells, Ordering::Relaxed);
            if tells {
                look.cmd("CLIENT").arg("CACHING").arg("YES").ignore();
            }
            // A value may be large, and is not wanted here.
            let mut start = redis::cmd("GETRANGE");
            start.arg(key).arg(0).arg(lease.as_bytes().len());
            wire.add(&mut look, start);
            let mut left = redis::cmd("PTTL");
            left.arg(key);
            wire.add(&mut look, left);
            look
        });
        let (found, left): (Bytes, i64) = looked.await?;
        if found != lease.as_bytes() {
            return Ok(());
        }
        // One without an end is not ours; it cannot lapse.
        let lapses = u64::try_from(left).ok().map(|left| StdDuration::from_millis(left.saturating_add(1)));
        let next_look = if is_told.into_inner() { LOOK_INTERVAL } else { pause };
        tokio::select! {
            () = change => return Ok(()),
            () = tokio::time::sleep(lapses.map_or(next_look, |lapses| lapses.min(next_look))) => {}
        }
        pause = pause.saturating_mul(2).min(LATER_LOOKS);
    }
}
