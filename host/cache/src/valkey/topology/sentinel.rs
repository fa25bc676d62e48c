//! Asking sentinels which server is the primary.

use std::time::Duration as StdDuration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisResult};

use crate::valkey::connection::reply_limit::{Bounded, Bounds};
use crate::valkey::connection::stream;
use crate::valkey::options::{Endpoint, Sentinels, TlsOptions};

/// A sentinel's answer is an address, and what it says of itself when greeted.
const BOUNDS: Bounds = Bounds { string: 64 << 10, answer: 1 << 20 };

/// The address of the primary, from the first sentinel that knows it. Of the time there is each sentinel has its share,
/// so that one which hangs does not keep us from the others.
///
/// # Errors
///
/// What the last sentinel that was asked said, for the operator.
pub(in crate::valkey) async fn primary(
    sentinels: &Sentinels,
    tls: Option<&TlsOptions>,
    time: StdDuration,
) -> Result<Endpoint, String> {
    let share = u32::try_from(sentinels.nodes.len()).ok().and_then(|nodes| time.checked_div(nodes.saturating_add(1)));
    let share = share.unwrap_or(time);
    let mut reason = "no sentinel is configured".to_owned();
    for node in &sentinels.nodes {
        reason = match tokio::time::timeout(share, ask(node, sentinels, tls)).await {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Ok(None)) => format!("the sentinel at `{node}` knows no master of that name"),
            Ok(Err(error)) => format!("the sentinel at `{node}`: {error}"),
            Err(_elapsed) => format!("the sentinel at `{node}`: no answer within {share:?}"),
        };
        tracing::debug!("{reason}");
    }
    Err(reason)
}

async fn ask(node: &Endpoint, sentinels: &Sentinels, tls: Option<&TlsOptions>) -> Result<Option<Endpoint>, String> {
    let stream = stream::open(node, tls).await.map_err(|error| error.to_string())?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let answer = async {
        let stream = Bounded::new(stream, BOUNDS);
        let mut greeting = RedisConnectionInfo::default();
        if let Some(username) = &sentinels.username {
            greeting = greeting.set_username(username);
        }
        if let Some(password) = &sentinels.password {
            greeting = greeting.set_password(password.reveal());
        }
        let (mut connection, driver) = MultiplexedConnection::new_with_config(&greeting, stream, config).await?;
        tokio::spawn(driver);
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&sentinels.master);
        question.query_async(&mut connection).await
    };
    let answer: RedisResult<Option<(String, u16)>> = answer.await;
    Ok(answer.map_err(|error| error.to_string())?.map(|(host, port)| Endpoint { host, port }))
}
