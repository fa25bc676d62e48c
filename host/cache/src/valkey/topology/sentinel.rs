//! Sentinel: asks the sentinels which server is the primary.

use std::time::Duration as StdDuration;

use redis::{RedisConnectionInfo, RedisResult};

use crate::tcp::TimeLimit;
use crate::valkey::connection::client::Client;
use crate::valkey::connection::handshake::{Access, HandshakeError};
use crate::valkey::connection::reply_limit::ReplyLimits;
use crate::valkey::connection::stream::Network;
use crate::valkey::options::{Endpoint, Sentinels, TlsOptions};

/// A sentinel replies with what it reports at the login, and with an address.
const LIMITS: ReplyLimits = ReplyLimits { string: 64 << 10, reply: 1 << 20 };

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

/// Connects to a sentinel.
pub(in crate::valkey) async fn connect(
    node: &Endpoint,
    access: &Access<'_>,
    time: TimeLimit,
) -> Result<Client, HandshakeError> {
    access.connect(node, RedisConnectionInfo::default(), LIMITS, |_event| {}, time).await
}

/// The address of the primary, from a sentinel to which there is a connection; `None` if it does not know the name.
pub(in crate::valkey) async fn named(sentinel: &Client, master: &str) -> RedisResult<Option<Endpoint>> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let primary: Option<(String, u16)> = question.query_async(&mut sentinel.unlimited()).await?;
    Ok(primary.map(|(host, port)| Endpoint { host, port }))
}
