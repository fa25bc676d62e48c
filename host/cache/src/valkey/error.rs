//! Errors of exchanges: how the errors of a server and of the client become errors of the cache.

use std::time::Duration as StdDuration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::CacheError;
use crate::text::short_line;
use crate::valkey::connection::reply_limit::{Oversized, ReplyLimits};

/// Why an exchange failed.
#[derive(Debug)]
pub(in crate::valkey) struct ExchangeError {
    pub(in crate::valkey) error: CacheError,
    /// The node that has the key, if a node of a cluster named another one.
    pub(in crate::valkey) redirect: Option<Redirect>,
}

impl From<CacheError> for ExchangeError {
    fn from(error: CacheError) -> Self {
        Self { error, redirect: None }
    }
}

/// A redirect to another node of the cluster.
#[derive(Debug)]
pub(in crate::valkey) struct Redirect {
    /// The node, as the server wrote it.
    pub(in crate::valkey) to: String,
    /// True for `ASK`: the slot is moving to that node, and each command must be preceded by `ASKING`.
    pub(in crate::valkey) is_asking: bool,
}

impl Redirect {
    /// Reads a redirect from an error, if it is one.
    pub(in crate::valkey) fn read(error: &RedisError) -> Option<Self> {
        let (to, _slot) = error.redirect_node()?;
        Some(Self { to: to.to_owned(), is_asking: error.kind() == ErrorKind::Server(ServerErrorKind::Ask) })
    }
}

/// The limits of a cache that apply to its exchanges, and that errors name.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) struct ExchangeLimits {
    /// The deadline of an exchange, counted from its start.
    pub(in crate::valkey) timeout: StdDuration,
    /// The longest value of the cache, in bytes.
    pub(in crate::valkey) max_value: u64,
    pub(in crate::valkey) reply: ReplyLimits,
}

impl ExchangeLimits {
    /// The cache error for an error of the client or the server.
    pub(in crate::valkey) fn cache_error(&self, error: &RedisError) -> CacheError {
        if let Some(Oversized { len, limit }) = Oversized::read(error) {
            // The limit for strings may be above the limit for values. The error names the latter.
            let max = if limit == self.reply.string { self.max_value } else { limit };
            return value_too_large(len, max);
        }
        let text = server_text(error);
        match error.kind() {
            _ if error.code() == Some("WRONGTYPE") => CacheError::WrongType,
            _ if cannot_serve(error) || needs_login(error) => CacheError::Unavailable(text),
            ErrorKind::Server(_) | ErrorKind::Extension => CacheError::Refused(text),
            _ if error.is_timeout() => CacheError::Timeout(self.timeout),
            ErrorKind::UnexpectedReturnType => CacheError::Refused(text),
            // The command was sent, or it is unknown whether it was.
            _ => CacheError::Lost(text),
        }
    }
}

fn value_too_large(len: u64, max: u64) -> CacheError {
    let bytes = |number| usize::try_from(number).unwrap_or(usize::MAX);
    CacheError::ValueTooLarge { len: bytes(len), max: bytes(max) }
}

/// True if the server takes no writes because it is a replica.
pub(in crate::valkey) fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// True if the server wants another login than that of the connection: its password or user has changed since.
pub(in crate::valkey) fn needs_login(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// The text of an error for the operator: the server's own words if it sent the error, as one short line.
pub(in crate::valkey) fn server_text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => short_line(&format!("{code} {detail}")),
        (Some(code), None) => short_line(code),
        (None, _) => short_line(&error.to_string()),
    }
}

/// True if the server is in a state in which it cannot serve, as opposed to a command that it never accepts.
pub(in crate::valkey) fn cannot_serve(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain,
        )
    ) || matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS"))
}
