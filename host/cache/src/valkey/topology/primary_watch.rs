//! The watch on the sentinels: replaces the connections to a primary that they have replaced.

use std::sync::Weak;
use std::time::Duration as StdDuration;

use crate::tcp::TimeLimit;
use crate::valkey::connection::client::Client;
use crate::valkey::connection::connector::Connector;
use crate::valkey::connection::handshake::Access;
use crate::valkey::connection::pool::ConnectionPool;
use crate::valkey::options::{Endpoint, Sentinels};
use crate::valkey::topology::sentinel;

/// The interval at which a sentinel is asked whether the primary is still the same.
const INTERVAL: StdDuration = StdDuration::from_secs(1);

// Decision: docs/decisions/0086-a-host-asks-a-sentinel-each-second-which-server-is-the-primary.md
/// Replaces the connections of `pool` when the sentinels name another primary, until the pool is dropped.
///
/// A primary that the sentinels have replaced closes its connections when they make it a replica. They do so after some
/// seconds if it is healthy, and not as long as they cannot reach it. Until then it answers as before.
pub(in crate::valkey) async fn watch(sentinels: Sentinels, connector: Connector, pool: Weak<ConnectionPool>) {
    let mut connection = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if pool.strong_count() == 0 {
            return;
        }
        let Some(named) = watched(&sentinels, &connector, &mut connection).await else { continue };
        if pool.upgrade().is_none_or(|pool| pool.leads_only_to(&named)) {
            continue;
        }
        // Sentinels may disagree. A new connection would lead to the server that these name, in their order.
        let Connector { options, network, .. } = &connector;
        let primary = sentinel::primary(&sentinels, options.tls.as_ref(), network, options.connect_timeout).await;
        let (Some(pool), Ok(primary)) = (pool.upgrade(), primary) else { continue };
        if !pool.leads_only_to(&primary) {
            tracing::warn!("leaving a server that is not the primary any more: the sentinels name `{primary}`");
            pool.leave_all_but(&primary);
        }
    }
}

/// The primary that a sentinel names, over the connection of the last time if it is still open.
async fn watched(sentinels: &Sentinels, connector: &Connector, connection: &mut Option<Client>) -> Option<Endpoint> {
    let Connector { options, network, .. } = connector;
    if connection.is_none() {
        let access = Access::to_sentinels(sentinels, options.tls.as_ref(), network);
        for node in &sentinels.nodes {
            let time = TimeLimit::new(options.connect_timeout);
            let opened = tokio::time::timeout_at(time.deadline(), sentinel::connect(node, &access, time)).await;
            if let Ok(Ok(opened)) = opened {
                *connection = Some(opened);
                break;
            }
        }
    }
    let named = sentinel::named(connection.as_ref()?, &sentinels.master);
    let named = tokio::time::timeout(options.timeout, named).await;
    match named {
        Ok(Ok(Some(primary))) => Some(primary),
        // Another sentinel may know it.
        _ => {
            *connection = None;
            None
        }
    }
}
