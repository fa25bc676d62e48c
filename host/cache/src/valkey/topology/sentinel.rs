//! Sentinel: asks the sentinels which server is the primary.

use std::sync::Weak;
use std::time::Duration as StdDuration;

use redis::{RedisConnectionInfo, RedisResult};

use crate::tcp::TimeLimit;
use crate::valkey::connection::client::Client;
use crate::valkey::connection::connector::Connector;
use crate::valkey::connection::handshake::{Access, HandshakeError};
use crate::valkey::connection::pool::ConnectionPool;
use crate::valkey::connection::reply_limit::ReplyLimits;
use crate::valkey::connection::stream::Network;
use crate::valkey::options::{Endpoint, Sentinels, TlsOptions};

/// A sentinel replies with what it reports at the login, and with an address.
const LIMITS: ReplyLimits = ReplyLimits { string: 64 << 10, reply: 1 << 20 };

/// The interval at which a sentinel is asked whether the primary is still the same.
const WATCH_INTERVAL: StdDuration = StdDuration::from_secs(1);

/// The address of the primary, from the first sentinel that knows it. Each sentinel gets a share of the time, so that a
/// sentinel that hangs does not use up the time of the others.
///
/// # Errors
///
/// The reason why the last sentinel gave no address, for the operator.
pub(in crate::valkey) async fn primary(
    sentinels: &Sentinels,
    tls: Option<&TlsOptions>,
    network: &Network,
    time: StdDuration,
) -> Result<Endpoint, String> {
    let access = Access::to_sentinels(sentinels, tls, network);
    let share = u32::try_from(sentinels.nodes.len()).ok().and_then(|nodes| time.checked_div(nodes.saturating_add(1)));
    let share = share.unwrap_or(time);
    let mut reason = "no sentinel is configured".to_owned();
    for node in &sentinels.nodes {
        let time = TimeLimit::new(share);
        reason = match tokio::time::timeout_at(time.deadline(), ask(node, &sentinels.master, &access, time)).await {
            Ok(Ok(Some(primary))) => return Ok(primary),
            Ok(Ok(None)) => format!("the sentinel at `{node}` knows no master of that name"),
            Ok(Err(error)) => format!("the sentinel at `{node}`: {error}"),
            Err(_elapsed) => format!("the sentinel at `{node}`: no answer within {share:?}"),
        };
        tracing::debug!("{reason}");
    }
    Err(reason)
}

/// The address of the primary, from one sentinel; `None` if it does not know the name.
pub(in crate::valkey) async fn ask(
    node: &Endpoint,
    master: &str,
    access: &Access<'_>,
    time: TimeLimit,
) -> Result<Option<Endpoint>, HandshakeError> {
    let client = connect(node, access, time).await?;
    Ok(named(&client, master).await?)
}

async fn connect(node: &Endpoint, access: &Access<'_>, time: TimeLimit) -> Result<Client, HandshakeError> {
    access.connect(node, RedisConnectionInfo::default(), LIMITS, |_event| {}, time).await
}

async fn named(sentinel: &Client, master: &str) -> RedisResult<Option<Endpoint>> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let primary: Option<(String, u16)> = question.query_async(&mut sentinel.unlimited()).await?;
    Ok(primary.map(|(host, port)| Endpoint { host, port }))
}

// Decision: docs/decisions/0086-a-host-asks-a-sentinel-each-second-which-server-is-the-primary.md
/// Replaces the connections of `pool` when the sentinels name another primary, until the pool is dropped.
///
/// A primary that the sentinels have replaced closes its connections when they make it a replica. They do so after some
/// seconds if it is healthy, and not as long as they cannot reach it. Until then it answers as before.
pub(in crate::valkey) async fn watch(sentinels: Sentinels, connector: Connector, pool: Weak<ConnectionPool>) {
    let mut connection = None;
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        if pool.strong_count() == 0 {
            return;
        }
        let Some(named) = watched(&sentinels, &connector, &mut connection).await else { continue };
        if pool.upgrade().is_none_or(|pool| pool.leads_only_to(&named)) {
            continue;
        }
        // Sentinels may disagree. A new connection would lead to the server that these name, in their order.
        let Connector { options, network, .. } = &connector;
        let primary = primary(&sentinels, options.tls.as_ref(), network, options.connect_timeout).await;
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
            let opened = tokio::time::timeout_at(time.deadline(), connect(node, &access, time)).await;
            if let Ok(Ok(opened)) = opened {
                *connection = Some(opened);
                break;
            }
        }
    }
    let named = named(connection.as_ref()?, &sentinels.master);
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
