//! Clears: removing one key, or all keys of a selection on all servers.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::{Cmd, Value};

use crate::valkey::commands::reads::head;
use crate::valkey::connection::managed::Exchange;
use crate::valkey::connection::pool::{ConnectionPool, Replies};
use crate::valkey::topology::Servers;
use crate::{CacheError, ClearProgress, Lease, Selection};

/// The number of keys that one `SCAN` visits, and so about the most that one `UNLINK` removes. It takes the server
/// about 40 µs.
const SCAN_COUNT: u64 = 1000;

/// The room for each key of a page in the reply limit, in bytes: a key of a plugin has about 1 KiB at most, and a server
/// may return more keys than it was asked for.
const SCAN_KEY: u64 = 4 << 10;

// Decision: docs/decisions/0048-a-clear-by-pattern-pipelines-commands-instead-of-running-a-script.md
/// The number of pages that are removed concurrently. While fewer are, the next page is scanned.
const CONCURRENT_REMOVALS: usize = 2;

/// Removes keys, given as they are stored on the server, each once. Returns how many held a value and no lease.
///
/// A value that is filled between the read and the removal is removed, and not counted.
pub(in crate::valkey) async fn unlink(servers: &Servers, keys: &[Vec<u8>]) -> Result<u64, CacheError> {
    count_values(servers.batch(keys, unlink_commands).await?)
}

/// Removes the selected keys under the prefix. Returns how many of them held a value.
pub(in crate::valkey) async fn unlink_selected(
    servers: &Servers,
    prefix: &str,
    selection: &Selection,
    progress: &ClearProgress,
) -> Result<u64, CacheError> {
    servers.sum_over_primaries(|pool| scan(servers, pool, prefix, selection, progress)).await
}

/// Visits the keys of one server under the prefix, and removes those that are selected. The server scans the next page
/// while the keys of earlier pages are removed.
async fn scan(
    servers: &Servers,
    pool: Arc<ConnectionPool>,
    prefix: &str,
    selection: &Selection,
    progress: &ClearProgress,
) -> Result<u64, CacheError> {
    // The scan uses the bulk connection. A key that was set before must be found, even if that call timed out.
    pool.barrier().await?;
    let glob = selection.server_glob(prefix);
    let (pool, glob) = (&*pool, glob.as_str());
    let pages = stream::try_unfold(Some(0), |cursor| async move {
        let Some(cursor) = cursor else { return Ok(None) };
        let (next, found) = page(pool, glob, cursor, SCAN_COUNT).await?;
        progress.add(keys_of_a_page(pool, SCAN_COUNT), 0);
        // A page may be empty; only cursor 0 is the end.
        Ok::<_, CacheError>(Some((found, Some(next).filter(|next| *next != 0))))
    });
    let removals = pages.map_ok(|mut keys| async move {
        keys.retain(|key| key.get(prefix.len()..).is_some_and(|own| selection.owns(own)));
        if keys.is_empty() {
            return Ok(0);
        }
        let removed = count_values(servers.bulk_batch(&keys, unlink_commands).await?)?;
        progress.add(0, removed);
        Ok(removed)
    });
    // Boxed, because the compiler cannot prove otherwise that the stream is `Send`.
    let removed = removals.try_buffer_unordered(CONCURRENT_REMOVALS).boxed();
    removed.try_fold(0_u64, async |all, removed| Ok(all.saturating_add(removed))).await
}

/// The number of keys that a page of about `max` keys visits: fewer than that if their names could exceed the reply limit.
fn keys_of_a_page(pool: &ConnectionPool, max: u64) -> u64 {
    pool.reply_limit().checked_div(SCAN_KEY).unwrap_or(1).min(max).clamp(1, SCAN_COUNT)
}

/// One page of a scan of about `max` keys at most: the next cursor, which is 0 after the last page, and the keys.
pub(in crate::valkey) async fn page(
    pool: &ConnectionPool,
    glob: &str,
    cursor: u64,
    max: u64,
) -> Result<(u64, Vec<Vec<u8>>), CacheError> {
    let count = keys_of_a_page(pool, max);
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(glob).arg("COUNT").arg(count);
    let (next, found): (u64, Vec<Value>) = pool.call_bulk(scan).await?;
    let keys = found.into_iter().filter_map(|key| match key {
        Value::BulkString(key) => Some(key),
        // The reply limit replaced a key with an error: it is longer than any key of a plugin.
        _ => None,
    });
    Ok((next, keys.collect()))
}

/// The commands that remove keys, and show for each key first whether it holds a lease, without reading its value.
fn unlink_commands(_exchange: &Exchange, keys: &[Vec<u8>]) -> Vec<Cmd> {
    let mut commands = Vec::with_capacity(keys.len().saturating_add(1));
    commands.extend(keys.iter().map(|key| head(key)));
    let mut unlink = redis::cmd("UNLINK");
    unlink.arg(keys);
    commands.push(unlink);
    commands
}

/// The number of removed keys that held no lease, from the replies to [`unlink_commands`].
fn count_values(groups: Vec<Replies>) -> Result<u64, CacheError> {
    let mut values = 0_u64;
    for mut replies in groups {
        let removed = match replies.pop().transpose()? {
            Some(Value::Int(removed)) => u64::try_from(removed).unwrap_or(0),
            reply => return Err(CacheError::Refused(format!("unexpected reply to UNLINK: {reply:?}"))),
        };
        // `GETRANGE` of a key of another type is an error, and the key counts as a value.
        let leases = replies.iter().filter(|reply| matches!(reply, Ok(Value::BulkString(mark)) if mark == Lease::MARK));
        let leases = u64::try_from(leases.count()).unwrap_or(u64::MAX);
        values = values.saturating_add(removed.saturating_sub(leases));
    }
    Ok(values)
}
