//! The handshake with a server or a sentinel: the stream, the reply limit, and the login of the client.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};

use crate::valkey::connection::reply_limit::{ReplyLimiter, ReplyLimits};
use crate::valkey::connection::stream::{self, StreamError};
use crate::valkey::options::{Endpoint, Secret, TlsOptions};

/// Why a handshake failed, for the operator.
#[derive(Debug, thiserror::Error)]
pub(in crate::valkey) enum HandshakeError {
    /// No stream could be opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The server refused the login or a command of the handshake, or the stream broke.
    #[error("{}", describe(.0))]
    Login(#[from] RedisError),
}

impl HandshakeError {
    /// True if another attempt fails too unless the operator changes the configuration or the server: the server
    /// refuses the login, the database or the protocol, or a file of the configuration cannot be used.
    pub(in crate::valkey) fn is_final(&self) -> bool {
        match self {
            Self::Stream(StreamError::Connection(_)) => false,
            Self::Stream(_) => true,
            Self::Login(error) => {
                let is_refusal = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM" | "NOPROTO" | "DENIED"));
                let is_of_client =
                    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::RESP3NotSupported);
                // The client's words: the server's own code is that of any error.
                is_refusal || is_of_client || error.to_string().contains("refused to switch database")
            }
        }
    }
}

fn describe(error: &RedisError) -> String {
    match error.code() {
        Some("WRONGPASS") => "it refused the user name or password".to_owned(),
        Some("NOAUTH") => "it asks for a password".to_owned(),
        _ => error.to_string(),
    }
}

/// The settings of a login as `username`, or as the user `default`.
pub(in crate::valkey) fn login(username: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(username) = username {
        login = login.set_username(username);
    }
    if let Some(password) = password {
        login = login.set_password(password.reveal());
    }
    login
}

/// Opens a stream to the endpoint and logs in. The client's deadlines are off: the caller's deadline covers everything,
/// which the client's own would not.
pub(in crate::valkey) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&TlsOptions>,
    limits: ReplyLimits,
    login: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, HandshakeError> {
    let stream = ReplyLimiter::new(stream::open(endpoint, tls).await?, limits);
    let config = config.set_connection_timeout(None).set_response_timeout(None);
    let (client, driver) = MultiplexedConnection::new_with_config(login, stream, config).await?;
    // The driver ends when the last clone of the client is dropped or the stream ends.
    tokio::spawn(driver);
    Ok(client)
}
