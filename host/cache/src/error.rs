//! The errors of a cache, and how the host handles each of them.

use std::time::Duration as StdDuration;

use tracing::Level;

/// Why a call failed. A miss is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// An argument breaks a rule. The text names the argument and the rule. The plugin's author must fix it.
    #[error("{0}")]
    InvalidArgument(String),
    /// The value exceeds the cache's `max_value_bytes`, or the values of a batch exceed `max_batch_bytes`. The plugin
    /// can store less, or the operator can raise the limit.
    #[error("value of {len} bytes is over the limit: {max}")]
    ValueTooLarge {
        /// The length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The plugin's grant is read-only. Only the operator can change it.
    #[error("access denied: the grant is read-only")]
    ReadOnly,
    /// The server did not reply in time. A write may or may not have happened. The plugin can retry or continue without
    /// the cache.
    #[error("no answer within {0:?}")]
    Timeout(StdDuration),
    /// The connection was lost before the reply. A write may or may not have happened. The plugin can retry or continue
    /// without the cache.
    #[error("the connection was lost before the reply: {0}")]
    Lost(String),
    /// The server is unreachable or cannot serve the call. Nothing was written. The operator must find the cause.
    #[error("{0}")]
    Unavailable(String),
    /// Another cache of the host is connected to the same server, and the prefixes overlap, so that a grant of one cache
    /// would be a grant of the other. Nothing was read or written. The operator must change a prefix.
    #[error("{0}")]
    Overlap(String),
    /// The key holds a value that is not a string, stored by another program. The operator must remove it.
    #[error("the key holds a value of another type")]
    WrongType,
    /// The key holds a value that is not the decimal text of a number. The plugin's author must use another key, or set it
    /// first.
    #[error("key: must hold a decimal number")]
    NotANumber,
    /// The sum is outside of the range of 64-bit signed numbers. The key stays as it is. The plugin's author must fix it.
    #[error("delta: the sum must be in the range of 64-bit signed numbers")]
    NumberOverflow,
    /// The server refused the command. The text is the server's, for the operator.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// How the host handles a [`CacheError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handling<'a> {
    /// What the plugin gets.
    pub error: PluginError<'a>,
    /// The level at which the host logs the error's text. `None` if it is not logged, because the plugin gets all of
    /// it.
    pub level: Option<Level>,
}

impl Handling<'_> {
    /// The call's outcome in the metrics and traces: the name of the plugin's error.
    pub fn outcome(&self) -> &'static str {
        self.error.name()
    }
}

/// The variants of the interface's `error` that a call on an open cache returns. They contain nothing that only the
/// operator may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginError<'a> {
    /// `invalid-argument`, with the argument and the rule.
    InvalidArgument(&'a str),
    /// `value-too-large`, with the limit in bytes.
    ValueTooLarge(usize),
    /// `access-denied`.
    AccessDenied,
    /// `timeout`.
    Timeout,
    /// `unavailable`.
    Unavailable,
    /// `other`, with a message.
    Other(&'static str),
}

impl PluginError<'_> {
    /// The names of all variants in the interface.
    pub(crate) const NAMES: [&'static str; 6] =
        ["invalid-argument", "value-too-large", "access-denied", "timeout", "unavailable", "other"];

    /// The name of the variant in the interface.
    pub fn name(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "invalid-argument",
            Self::ValueTooLarge(_) => "value-too-large",
            Self::AccessDenied => "access-denied",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Other(_) => "other",
        }
    }
}

impl CacheError {
    /// What the plugin gets, what the host logs, and what the metrics count.
    pub fn handling(&self) -> Handling<'_> {
        let (error, level) = match self {
            Self::InvalidArgument(rule) => (PluginError::InvalidArgument(rule), None),
            Self::ValueTooLarge { max, .. } => (PluginError::ValueTooLarge(*max), None),
            Self::ReadOnly => (PluginError::AccessDenied, None),
            Self::Timeout(_) | Self::Lost(_) => (PluginError::Timeout, Some(Level::DEBUG)),
            Self::Unavailable(_) => (PluginError::Unavailable, Some(Level::DEBUG)),
            Self::Overlap(_) => (PluginError::Unavailable, Some(Level::WARN)),
            Self::WrongType => (PluginError::Other("the key holds a value of another type"), Some(Level::WARN)),
            // What the key holds is the plugin's own, so the mistake is the plugin's.
            Self::NotANumber => (PluginError::InvalidArgument("key: must hold a decimal number"), None),
            Self::NumberOverflow => {
                (PluginError::InvalidArgument("delta: the sum must be in the range of 64-bit signed numbers"), None)
            }
            Self::Refused(_) => (PluginError::Other("the server refused the command"), Some(Level::WARN)),
        };
        Handling { error, level }
    }

    /// True if the call failed because of an outage, and not because of the call itself.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Lost(_) | Self::Unavailable(_) | Self::Overlap(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name in the interface, log level and outcome in the metrics.
    fn row(error: &CacheError) -> (&'static str, Option<Level>, &'static str) {
        let handling = error.handling();
        assert!(PluginError::NAMES.contains(&handling.error.name()));
        (handling.error.name(), handling.level, handling.outcome())
    }

    #[test]
    fn an_invalid_argument_is_told_to_the_plugin_and_not_logged() {
        let error = CacheError::InvalidArgument("key: must not be empty".to_owned());
        assert_eq!(row(&error), ("invalid-argument", None, "invalid-argument"));
        assert_eq!(error.handling().error, PluginError::InvalidArgument("key: must not be empty"));
    }

    #[test]
    fn a_value_over_the_limit_gives_the_plugin_the_limit_and_is_not_logged() {
        let error = CacheError::ValueTooLarge { len: 11, max: 10 };
        assert_eq!(row(&error), ("value-too-large", None, "value-too-large"));
        assert_eq!(error.handling().error, PluginError::ValueTooLarge(10));
    }

    #[test]
    fn a_write_under_a_read_only_grant_is_access_denied_and_not_logged() {
        assert_eq!(row(&CacheError::ReadOnly), ("access-denied", None, "access-denied"));
    }

    #[test]
    fn a_timeout_is_logged_at_debug() {
        assert_eq!(row(&CacheError::Timeout(StdDuration::ZERO)), ("timeout", Some(Level::DEBUG), "timeout"));
    }

    #[test]
    fn a_lost_connection_is_a_timeout_and_logged_at_debug() {
        assert_eq!(row(&CacheError::Lost("reset".to_owned())), ("timeout", Some(Level::DEBUG), "timeout"));
    }

    #[test]
    fn an_unavailable_server_is_logged_at_debug_and_its_address_is_not_told_to_the_plugin() {
        let error = CacheError::Unavailable("cannot reach 10.0.0.1:6379".to_owned());
        assert_eq!(row(&error), ("unavailable", Some(Level::DEBUG), "unavailable"));
        assert_eq!(error.handling().error, PluginError::Unavailable);
    }

    #[test]
    fn a_server_of_another_cache_is_logged_at_warn_and_unavailable_to_the_plugin() {
        let error = CacheError::Overlap("it has the keys of cache `secrets`".to_owned());
        assert_eq!(row(&error), ("unavailable", Some(Level::WARN), "unavailable"));
        assert_eq!(error.handling().error, PluginError::Unavailable);
    }

    #[test]
    fn a_value_of_another_type_is_logged_at_warn() {
        assert_eq!(row(&CacheError::WrongType), ("other", Some(Level::WARN), "other"));
    }

    #[test]
    fn a_number_that_cannot_be_incremented_is_told_to_the_plugin_and_not_logged() {
        for error in [CacheError::NotANumber, CacheError::NumberOverflow] {
            assert_eq!(row(&error), ("invalid-argument", None, "invalid-argument"));
            assert_eq!(error.handling().error, PluginError::InvalidArgument(&error.to_string()));
            assert!(!error.is_outage());
        }
    }

    #[test]
    fn a_refusal_is_logged_at_warn_and_the_servers_text_is_not_told_to_the_plugin() {
        let error = CacheError::Refused("NOPERM user `worker`".to_owned());
        assert_eq!(row(&error), ("other", Some(Level::WARN), "other"));
        assert_eq!(error.handling().error, PluginError::Other("the server refused the command"));
    }

    #[test]
    fn an_outage_is_a_timeout_a_lost_connection_or_a_server_that_cannot_be_used() {
        let text = String::new;
        assert!(CacheError::Timeout(StdDuration::ZERO).is_outage());
        assert!(CacheError::Lost(text()).is_outage() && CacheError::Unavailable(text()).is_outage());
        assert!(CacheError::Overlap(text()).is_outage());
        assert!(!CacheError::WrongType.is_outage() && !CacheError::Refused(text()).is_outage());
        assert!(!CacheError::ReadOnly.is_outage() && !CacheError::InvalidArgument(text()).is_outage());
        assert!(!CacheError::ValueTooLarge { len: 11, max: 10 }.is_outage());
    }
}
