//! Removing keys: one, or all of a selection, wherever they are.

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::{Cmd, Pipeline, RedisResult, Value};

use crate::valkey::connection::pool::Links;
use crate::valkey::connection::routing::Way;
use crate::valkey::servers::{Layout, Servers};
use crate::valkey::topology::cluster::Cluster;
use crate::{CacheError, Lease, Selection};

/// How many keys a `SCAN` looks at, and so about the most that one `UNLINK` removes: some 40 µs of the server's time.
const SCAN_COUNT: u64 = 1000;

// Decision: docs/decisions/0048-a-clear-by-pattern-pipelines-commands-instead-of-running-a-script.md
/// So many pages may be under removal at once; with fewer the next one is looked for meanwhile.
const REMOVALS: usize = 2;

/// So often a cluster is gone through while its slots keep moving.
const MAX_PASSES: u32 = 5;

/// Removes keys, as they stand on the servers, and says how many of them held a value and no lease. What is filled
/// between the look and the removal is removed, and not counted.
pub(in crate::valkey) async fn unlink(servers: &Servers, keys: &[Vec<u8>], way: Way) -> Result<u64, CacheError> {
    match &servers.layout {
        Layout::One(links) => unlink_on(links, keys, way).await,
        Layout::Cluster(cluster) => unlink_on_nodes(cluster, keys, way).await,
    }
}

/// Removes the selected keys under the prefix, and says how many of them held a value.
pub(in crate::valkey) async fn unlink_selected(
    servers: &Servers,
    prefix: &str,
    selection: &Selection,
) -> Result<u64, CacheError> {
    let cluster = match &servers.layout {
        Layout::One(links) => return scan(servers, links, prefix, selection).await,
        Layout::Cluster(cluster) => cluster,
    };
    let mut removed = 0_u64;
    let mut before = cluster.layout().await?;
    for pass in 1..=MAX_PASSES {
        let primaries = cluster.primaries();
        let scans = primaries.iter().map(|links| scan(servers, links, prefix, selection));
        removed = try_join_all(scans).await?.into_iter().fold(removed, u64::saturating_add);
        let after = cluster.layout().await?;
        // Decision: docs/decisions/0024-a-clear-by-pattern-visits-a-cluster-twice-while-slots-move.md
        // A key that moved from a node not yet looked at to one that was looked at has escaped. So while slots are on
        // their way all nodes are gone through once more: what moved in the first pass stays in the second.
        if before == after && (after.is_quiet() || pass > 1) {
            return Ok(removed);
        }
        before = after;
    }
    Err(CacheError::Unavailable("the slots of the cluster kept moving, so some keys may have stayed".to_owned()))
}

/// Goes through the keys that one of the servers has under the prefix, and removes those that are selected. The server
/// looks for the next ones while those it found are looked at and removed.
async fn scan(servers: &Servers, links: &Links, prefix: &str, selection: &Selection) -> Result<u64, CacheError> {
    // What was set before is found, also by a call that nobody waited for: this goes another way.
    links.settle().await?;
    let glob = selection.server_glob(prefix);
    let glob = glob.as_str();
    let pages = stream::try_unfold(Some(0), |cursor| async move {
        let Some(cursor) = cursor else { return Ok(None) };
        let (next, found) = page(links, glob, cursor).await?;
        // A page may be empty; only cursor 0 is the end.
        Ok::<_, CacheError>(Some((found, Some(next).filter(|next| *next != 0))))
    });
    let removals = pages.map_ok(|mut keys| async move {
        keys.retain(|key| key.get(prefix.len()..).is_some_and(|own| selection.owns(own)));
        if keys.is_empty() { Ok(0) } else { unlink(servers, &keys, Way::Aside).await }
    });
    // In a box, as the compiler does not see otherwise that it may be sent to another thread.
    let removed = removals.try_buffer_unordered(REMOVALS).boxed();
    removed.try_fold(0_u64, async |all, removed| Ok(all.saturating_add(removed))).await
}

/// The keys that a server finds at this place of its table, and the place to go on at: 0 behind the last.
async fn page(links: &Links, glob: &str, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), CacheError> {
    let mut scan = Pipeline::with_capacity(1);
    scan.cmd("SCAN").arg(cursor).arg("MATCH").arg(glob).arg("COUNT").arg(SCAN_COUNT).ignore_errors();
    let mut answers: Vec<RedisResult<Value>> = links.call_all(Way::Aside, &scan).await?;
    let (next, found): (u64, Vec<Value>) = links.read(answers.pop())?;
    let keys = found.into_iter().filter_map(|key| match key {
        Value::BulkString(key) => Some(key),
        // An error in its place: too long to be taken, and so no key of a plugin's.
        _ => None,
    });
    Ok((next, keys.collect()))
}

/// The command that shows whether the key holds a lease, without the value.
fn look(key: &[u8]) -> Cmd {
    let mut command = redis::cmd("GETRANGE");
    command.arg(key).arg(0).arg(Lease::MARK.len().saturating_sub(1));
    command
}

async fn unlink_on(links: &Links, keys: &[Vec<u8>], way: Way) -> Result<u64, CacheError> {
    let mut pipeline = Pipeline::with_capacity(keys.len().saturating_add(1));
    for key in keys {
        pipeline.add_command(look(key));
    }
    pipeline.cmd("UNLINK").arg(keys).ignore_errors();
    let mut answers: Vec<RedisResult<Value>> = links.call_all(way, &pipeline).await?;
    let removed: u64 = links.read(answers.pop())?;
    // One of another type has no range, and counts.
    let leases = answers.iter().filter(|answer| matches!(answer, Ok(Value::BulkString(mark)) if mark == Lease::MARK));
    Ok(removed.saturating_sub(u64::try_from(leases.count()).unwrap_or(u64::MAX)))
}

/// One command for each key, as one for many would have to find them all in one slot.
async fn unlink_on_nodes(cluster: &Cluster, keys: &[Vec<u8>], way: Way) -> Result<u64, CacheError> {
    let commands = |place: usize| match keys.get(place) {
        Some(key) => {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(key);
            vec![look(key), unlink]
        }
        None => Vec::new(),
    };
    let mut values = 0_u64;
    for mut answers in cluster.each(keys, way, commands).await? {
        let removed = answers.pop().unwrap_or(Ok(Value::Nil))?;
        let was_lease = matches!(answers.pop(), Some(Ok(Value::BulkString(mark))) if mark == Lease::MARK);
        if removed == Value::Int(1) && !was_lease {
            values = values.saturating_add(1);
        }
    }
    Ok(values)
}
