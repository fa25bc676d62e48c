//! Warnings that repeat: at most one in an interval.

use std::sync::{Mutex, PoisonError};
use std::time::Duration as StdDuration;

use tokio::time::Instant;

use crate::CacheError;

/// The least interval between two warnings that a server cannot be reached. The host tries it about once a second.
const INTERVAL: StdDuration = StdDuration::from_secs(60);

/// Limits the warnings about one server, which all its connections share.
#[derive(Debug, Default)]
pub(in crate::valkey) struct WarningLimit(Mutex<Option<Instant>>);

impl WarningLimit {
    /// Logs why the server cannot be reached: as a warning if it is the only report of that and a warning is allowed.
    pub(in crate::valkey) fn report(&self, reason: &CacheError, is_only: bool) {
        if is_only && self.allows() {
            tracing::warn!("{reason}; still trying");
        } else {
            tracing::debug!("{reason}");
        }
    }

    /// True if a warning may be logged, which then counts as logged.
    fn allows(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if allowed {
            *last = Some(Instant::now());
        }
        allowed
    }

    /// Begins an interval without a warning: the caller reports the first failure in another way.
    pub(in crate::valkey) fn postpone(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_warning_a_minute_is_allowed() {
        let limit = WarningLimit::default();
        assert!(limit.allows() && !limit.allows());
        tokio::time::advance(INTERVAL - StdDuration::from_millis(1)).await;
        assert!(!limit.allows());
        tokio::time::advance(StdDuration::from_millis(1)).await;
        assert!(limit.allows() && !limit.allows());
        tokio::time::advance(INTERVAL).await;
        limit.postpone();
        assert!(!limit.allows());
    }
}
