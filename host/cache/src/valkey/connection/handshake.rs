//! The handshake with a server or a sentinel: the stream, the greeting, the reply limit, and the login of the client.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};

use crate::tcp::TimeLimit;
use crate::valkey::connection::client::Client;
use crate::valkey::connection::driver::Event;
use crate::valkey::connection::greeting::{self, GreetingError};
use crate::valkey::connection::lent::Lent;
use crate::valkey::connection::reply_limit::{ReplyLimiter, ReplyLimits};
use crate::valkey::connection::stream::{self, Network, StreamError};
use crate::valkey::error::{needs_login, server_text};
use crate::valkey::options::{Endpoint, Sentinels, ServerOptions, TlsOptions};
use crate::valkey::password::{PasswordError, PasswordSource};

/// Why a handshake failed, for the operator.
#[derive(Debug, thiserror::Error)]
pub(in crate::valkey) enum HandshakeError {
    /// No stream could be opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The password file cannot be used.
    #[error("`password_file`: {0}")]
    Password(#[from] PasswordError),
    /// There is no server to log in to.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// The server does not accept the login. The text may add where the password came from.
    #[error("it was reached, but refused the user name or password{0}")]
    WrongPassword(String),
    /// The server refused a command of the handshake, or the stream broke.
    #[error("{}", describe(.0))]
    Exchange(#[from] RedisError),
}

impl From<std::io::Error> for HandshakeError {
    fn from(error: std::io::Error) -> Self {
        StreamError::from(error).into()
    }
}

impl HandshakeError {
    /// What could not be done: a server that refuses a login, or a command of it, was reached.
    pub(in crate::valkey) fn action(&self) -> &'static str {
        match self {
            Self::WrongPassword(_) => "cannot log in to",
            Self::Exchange(error) if needs_login(error) => "cannot log in to",
            Self::Exchange(error) if error.code().is_some() || is_of_database(error) => "cannot use",
            _ => "cannot reach",
        }
    }

    /// What can be done, as the end of a message.
    pub(in crate::valkey) fn advice(&self) -> &'static str {
        match self {
            Self::Stream(StreamError::Connect(error)) if error.is_refused() => {
                "; start the server, or correct its address"
            }
            _ => "",
        }
    }

    /// True if another attempt fails too unless the operator changes the configuration or the server: the server
    /// refuses the login, the database or the protocol, or a file of the configuration cannot be used.
    pub(in crate::valkey) fn is_final(&self) -> bool {
        match self {
            Self::Stream(StreamError::Connect(_) | StreamError::Connection(_) | StreamError::SilentTls(_)) => false,
            // In protected mode; otherwise the server is at the limit of its clients.
            Self::Greeting(GreetingError::Refused(reason)) => reason.starts_with("DENIED"),
            // A server that is starting or ending.
            Self::Greeting(GreetingError::Closed | GreetingError::Broken(_)) => false,
            Self::Stream(_) | Self::Greeting(_) | Self::Password(_) | Self::WrongPassword(_) => true,
            Self::Exchange(error) => {
                let is_refusal = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM" | "NOPROTO" | "DENIED"));
                let is_of_client =
                    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::RESP3NotSupported);
                // A server that is busy refuses too.
                let is_busy = error.to_string().contains("is busy running");
                is_refusal || is_of_client || is_of_database(error) && !is_busy
            }
        }
    }
}

/// True if the server refused to select the database. These are the client's words: the server's own code is that of any
/// error.
fn is_of_database(error: &RedisError) -> bool {
    error.to_string().contains("refused to switch database")
}

/// True if the server refused a command for lack of a right. Where the client selects the database, it replaces the code and
/// keeps the words.
fn is_denied(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("has no permissions")
}

fn describe(error: &RedisError) -> String {
    match error.kind() {
        _ if error.code() == Some("WRONGPASS") => "it was reached, but refused the user name or password".to_owned(),
        _ if needs_login(error) => {
            "it was reached, but asks for a password: set `password_file` or `password`".to_owned()
        }
        _ if is_denied(error) => {
            format!("it was reached, but its user lacks a right, which `larder check` names: {}", server_text(error))
        }
        ErrorKind::RESP3NotSupported => {
            "it does not know `HELLO 3`: it is older than Redis 6, or no server but a proxy \
                                         without RESP3"
                .to_owned()
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            "this is no Valkey or Redis server: its replies are not in their protocol".to_owned()
        }
        _ => server_text(error),
    }
}

/// How a cache logs in to its servers, or to its sentinels.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) struct Access<'a> {
    /// `None` logs in as the user `default`.
    pub(in crate::valkey) username: Option<&'a str>,
    pub(in crate::valkey) password: Option<&'a PasswordSource>,
    pub(in crate::valkey) tls: Option<&'a TlsOptions>,
    pub(in crate::valkey) network: &'a Network,
}

impl<'a> Access<'a> {
    /// The login to the servers of a cache.
    pub(in crate::valkey) fn to_servers(options: &'a ServerOptions, network: &'a Network) -> Self {
        Self {
            username: options.username.as_deref(),
            password: options.password.as_ref(),
            tls: options.tls.as_ref(),
            network,
        }
    }

    /// The login to the sentinels of a cache.
    pub(in crate::valkey) fn to_sentinels(
        sentinels: &'a Sentinels,
        tls: Option<&'a TlsOptions>,
        network: &'a Network,
    ) -> Self {
        Self { username: sentinels.username.as_deref(), password: sentinels.password.as_ref(), tls, network }
    }

    /// Opens a stream to the endpoint, logs in, and starts a client. `time` limits the TCP connection only: the caller's
    /// deadline covers everything.
    pub(in crate::valkey) async fn connect(
        &self,
        endpoint: &Endpoint,
        login: RedisConnectionInfo,
        limits: ReplyLimits,
        on_event: impl FnMut(Event) + Unpin + Send + 'static,
        time: TimeLimit,
    ) -> Result<Client, HandshakeError> {
        let login = self.with_credentials(login).await?;
        let mut stream = stream::open(endpoint, self.tls, self.network, time).await?;
        greeting::exchange(&mut stream).await?;
        // The Redis crate logs in. Its own driver takes twice as long for a call as ours.
        let (stream, returned) = Lent::lend(ReplyLimiter::new(stream, limits));
        let logged_in = MultiplexedConnection::new_with_config(&login, stream, AsyncConnectionConfig::new()).await;
        drop(logged_in.map_err(|error| self.login_error(error))?);
        Ok(Client::start(returned.take()?, on_event))
    }

    /// Reads the password anew: the operator may have replaced the file.
    async fn with_credentials(&self, mut login: RedisConnectionInfo) -> Result<RedisConnectionInfo, HandshakeError> {
        if let Some(username) = self.username {
            login = login.set_username(username);
        }
        let password = match self.password {
            None => return Ok(login),
            Some(source @ PasswordSource::Text(_)) => source.read()?,
            Some(source @ PasswordSource::File(_)) => {
                let source = source.clone();
                self.network.files.run(move || source.read()).await??
            }
        };
        Ok(login.set_password(password.reveal()))
    }

    fn login_error(&self, error: RedisError) -> HandshakeError {
        let is_refused = error.code() == Some("WRONGPASS") || error.kind() == ErrorKind::AuthenticationFailed;
        if is_refused {
            HandshakeError::WrongPassword(self.password.map(PasswordSource::hint).unwrap_or_default())
        } else {
            HandshakeError::Exchange(error)
        }
    }
}
