//! Durations, the value limit and the choice for outages: what is alike for all backends.

use std::time::Duration as StdDuration;

use bytes::Bytes;

use crate::{CacheError, Duration, Lease};

/// What the operator decided about a cache, whatever stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The duration of a value set without one; none for no expiry. Defaults to 300 s.
    pub default_expire: Option<StdDuration>,
    /// The longest duration of any value. Defaults to none, which is no bound.
    pub max_expire: Option<StdDuration>,
    /// The longest value in bytes. Defaults to 1 MiB.
    pub max_value_bytes: usize,
    /// The most bytes of values that a `get-many` brings. Defaults to 64 MiB.
    pub max_batch_bytes: usize,
    /// How long a `get-or-set` waits for another caller's computation. Defaults to 5 s.
    pub wait: StdDuration,
    /// How long a vacancy keeps others from computing. Then its lease is given back, and its fill comes too late.
    /// Defaults to 5 minutes.
    pub max_lease: StdDuration,
    /// What a read answers while the server is out of reach. Defaults to a miss.
    pub on_outage: OnOutage,
}

/// What a read answers while the server is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// A miss, and a vacancy from `get-or-set`: plugins go on without the cache.
    #[default]
    Miss,
    /// The error.
    Error,
}

impl Policy {
    /// The duration a backend gets.
    pub(super) fn resolve(&self, duration: Duration) -> Result<Option<StdDuration>, CacheError> {
        let asked = match duration {
            Duration::Default => self.default_expire,
            Duration::Milliseconds(0) => {
                return Err(CacheError::InvalidArgument("duration: must not be zero".to_owned()));
            }
            Duration::Milliseconds(milliseconds) => Some(StdDuration::from_millis(milliseconds)),
            Duration::Unlimited => None,
        };
        let bounded = match (asked, self.max_expire) {
            (Some(asked), Some(max)) => Some(asked.min(max)),
            (asked, max) => asked.or(max),
        };
        Ok(bounded.map(|duration| duration.min(Duration::LONGEST)))
    }

    /// Refuses values that are too many bytes together.
    pub(super) fn check_batch(&self, values: &[Option<Bytes>]) -> Result<(), CacheError> {
        let len = values.iter().flatten().map(Bytes::len).fold(0, usize::saturating_add);
        let max = self.max_batch_bytes.max(self.max_value_bytes);
        if len > max { Err(CacheError::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    /// Refuses a value that is too large, or no value.
    pub(super) fn check_value(&self, value: &Bytes) -> Result<(), CacheError> {
        let (len, max) = (value.len(), self.max_value_bytes);
        if len > max {
            return Err(CacheError::ValueTooLarge { len, max });
        }
        if Lease::is_marked(value) {
            return Err(CacheError::InvalidArgument(
                "value: must not begin with the bytes that mark a lease".to_owned(),
            ));
        }
        Ok(())
    }
}
