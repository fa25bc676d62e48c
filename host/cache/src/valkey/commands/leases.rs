//! Leases on the server: storing and removing while a key holds a lease, and waiting until it no longer does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use redis::{Pipeline, Value};

use crate::valkey::backoff::Backoff;
use crate::valkey::commands::compare_and_set::{Expiry, remove_by_script};
use crate::valkey::topology::Servers;
use crate::{CacheError, Lease};

/// The interval at which a lease of another process is read again if the server reports changes. It matters only if a
/// report is lost.
const POLL_WITH_TRACKING: StdDuration = StdDuration::from_secs(1);

/// The first and the longest pause between reads if the server does not report changes.
const FIRST_POLL: StdDuration = StdDuration::from_millis(5);
const LONGEST_POLL: StdDuration = StdDuration::from_millis(100);

/// Stores `value` if the key holds `lease`. Returns whether it did.
pub(in crate::valkey) async fn replace(
    servers: &Servers,
    key: &str,
    lease: &Lease,
    value: &[u8],
    expiry: Option<Expiry>,
) -> Result<bool, CacheError> {
    let reply = servers.exchange(key, value.len(), |exchange| {
        exchange.single(exchange.capabilities.compare_and_set.replace(key, lease, value, expiry))
    });
    match reply.await {
        Ok((reply,)) => Ok(Value::Nil != reply),
        // Another program stored a value that is not a string, and so not a lease.
        Err(CacheError::WrongType) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the lease if the key holds it.
pub(in crate::valkey) async fn remove(servers: &Servers, key: &str, lease: &Lease) -> Result<(), CacheError> {
    match replace(servers, key, lease, b"", Some(Expiry::Past)).await {
        // A full server refuses every `SET`, even one that frees memory, but it may accept a script.
        Err(error @ CacheError::Unavailable(_)) => {
            let removed = servers.call::<Value>(key, 0, &remove_by_script(key, lease)).await;
            removed.map(|_removed| ()).map_err(|_refused| error)
        }
        outcome => outcome.map(|_was_held| ()),
    }
}

/// Returns soon after the key no longer holds the lease, or after the lease was renewed.
///
/// If the server reports changes, each read asks for a report of the key's next change in the same step, so that no
/// change is missed. The server reports a lapse late, when it happens to find the expired key, so the key is read again
/// when the lease lapses. With tracking a read takes three commands once a second; without it, two commands and up to
/// ten reads a second.
pub(in crate::valkey) async fn changed(servers: &Servers, key: &str, lease: &Lease) -> Result<(), CacheError> {
    let subscription = servers.invalidations().subscribe(key);
    let mut backoff = Backoff::new(FIRST_POLL, LONGEST_POLL);
    loop {
        let mut change = std::pin::pin!(subscription.change());
        change.as_mut().enable();
        // Set by the exchange: a redirect may lead to a server with other capabilities.
        let is_tracked = AtomicBool::default();
        let read = servers.exchange(key, 0, |exchange| {
            let mut read = Pipeline::with_capacity(5);
            // A node that serves the key by `ASKING` does not report its changes.
            let tracks = exchange.capabilities.tracking && !exchange.is_asking;
            is_tracked.store(tracks, Ordering::Relaxed);
            if tracks {
                read.cmd("CLIENT").arg("CACHING").arg("YES").ignore();
            }
            // A value may be large, and only the lease matters here.
            let mut start = redis::cmd("GETRANGE");
            start.arg(key).arg(0).arg(lease.as_bytes().len());
            exchange.add(&mut read, start);
            let mut time_left = redis::cmd("PTTL");
            time_left.arg(key);
            exchange.add(&mut read, time_left);
            read
        });
        let (found, time_left): (Bytes, i64) = read.await?;
        if found != lease.as_bytes() {
            return Ok(());
        }
        // Larder stores no lease without an expiry; such a lease does not lapse.
        let lapse = u64::try_from(time_left).ok().map(|left| StdDuration::from_millis(left.saturating_add(1)));
        let pause = backoff.next();
        let next_read = if is_tracked.into_inner() { POLL_WITH_TRACKING } else { pause };
        tokio::select! {
            () = change => return Ok(()),
            () = tokio::time::sleep(lapse.map_or(next_read, |lapse| lapse.min(next_read))) => {}
        }
    }
}
