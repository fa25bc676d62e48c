//! The settings of a cache that are independent of its backend: durations, size limits and behaviour in an outage.

use std::time::Duration as StdDuration;

use bytes::Bytes;

use crate::error::CacheError;
use crate::get_or_set::lease::Lease;

/// How long a value may be served, as the plugin specifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// The cache's `default_expire`.
    Default,
    /// A number of milliseconds. Zero is an error.
    Milliseconds(u64),
    /// No expiry: until the value is cleared or evicted, or for the cache's `max_expire` if it is set.
    Unlimited,
}

impl Duration {
    /// The longest finite duration, 100 years. A duration is an upper bound, so a longer one is shortened to this. Sums
    /// with a clock thus stay in range, in this process and on the server.
    pub const LONGEST: StdDuration = StdDuration::from_secs(100 * 365 * 24 * 60 * 60);

    /// A value that remains at least this long, 50 years, counts as one that does not expire: what is left of
    /// [`Duration::lasting`] is longer.
    pub(crate) const LASTING: StdDuration = StdDuration::from_secs(50 * 365 * 24 * 60 * 60);

    /// 97 to 100 years, drawn at random to the millisecond: for a value that does not expire, but must have another
    /// [`Version`](crate::Version) each time it is stored. Values without expiry have the same one if they are the same.
    pub fn lasting() -> Self {
        // 36 bits are 2.2 years.
        let longest = u64::try_from(Self::LONGEST.as_millis()).unwrap_or(u64::MAX);
        Self::Milliseconds(longest.saturating_sub(rand::random::<u64>() >> 28))
    }
}

/// The settings of a cache that are independent of its backend. To change some of them, assign to the fields of
/// [`Policy::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The duration of a value that is set without one; `None` for no expiry. Defaults to 300 s.
    pub default_expire: Option<StdDuration>,
    /// The longest duration of any value; `None`, the default, for no maximum.
    pub max_expire: Option<StdDuration>,
    /// The maximum length of a value in bytes. Defaults to 1 MiB.
    pub max_value_bytes: usize,
    /// The maximum total length in bytes of the values that one `get-many` returns; at least `max_value_bytes` applies.
    /// Defaults to 8 MiB.
    pub max_batch_bytes: usize,
    /// How long a `get-or-set` waits for another caller's computation. Defaults to 5 s.
    pub wait: StdDuration,
    /// How long a vacancy may keep other callers from computing. Then its lease is released, and its fill is not
    /// stored. Defaults to 5 minutes.
    pub max_lease: StdDuration,
    /// What a read returns in an outage. Defaults to a miss.
    pub on_outage: OnOutage,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_expire: Some(StdDuration::from_secs(300)),
            max_expire: None,
            max_value_bytes: 1 << 20,
            max_batch_bytes: 8 << 20,
            wait: StdDuration::from_secs(5),
            max_lease: StdDuration::from_secs(300),
            on_outage: OnOutage::Miss,
        }
    }
}

/// What a read returns in an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnOutage {
    /// A miss; `get-or-set` returns a vacancy. Plugins continue without the cache.
    #[default]
    Miss,
    /// The error.
    Error,
}

/// The least limit for a string of a server's reply, in bytes. What a server reports about itself and the keys that a scan
/// finds may be longer than the values of the cache.
const LEAST_STRING: usize = 64 << 10;

/// The least limit for a server's reply, in bytes. What a plugin reads at once may be held up to this size although its limit
/// is lower, so it is within the smallest `max_memory`.
const LEAST_REPLY: usize = 2 << 20;

impl Policy {
    /// The limit for a string of a server's reply, whoever stored it.
    pub(crate) fn max_string(&self) -> usize {
        self.max_value_bytes.max(LEAST_STRING)
    }

    /// The limit for a server's reply.
    pub(crate) fn max_reply(&self) -> usize {
        self.max_batch_bytes.max(self.max_value_bytes).max(LEAST_REPLY)
    }

    /// Checks values that a plugin stores, and returns the duration that the backend gets.
    pub(crate) fn check_store<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
        duration: Duration,
    ) -> Result<Option<StdDuration>, CacheError> {
        let duration = self.resolve(duration)?;
        values.into_iter().try_for_each(|value| self.check_value(value))?;
        Ok(duration)
    }

    /// As [`Policy::check_store`], for a value that may be served stale for a further `stale`.
    pub(crate) fn check_store_stale(
        &self,
        value: &[u8],
        duration: Duration,
        stale: Duration,
    ) -> Result<Option<StdDuration>, CacheError> {
        let (duration, stale) = (self.resolve(duration)?, self.resolve_stale(stale)?);
        self.check_value(value)?;
        let total = duration.map(|duration| duration.saturating_add(stale).min(Duration::LONGEST));
        Ok(match (total, self.max_expire) {
            (Some(total), Some(max)) => Some(total.min(max)),
            (total, _) => total,
        })
    }

    /// The time before its expiry in which a value is stale.
    ///
    /// At most half of `max_expire`: otherwise the values of a plugin that asks for more would be stale from the start, and
    /// be computed again and again.
    pub(crate) fn resolve_stale(&self, stale: Duration) -> Result<StdDuration, CacheError> {
        let requested = match stale {
            Duration::Default => self.default_expire,
            Duration::Milliseconds(0) => None,
            Duration::Milliseconds(milliseconds) => Some(StdDuration::from_millis(milliseconds)),
            Duration::Unlimited => None,
        };
        let Some(requested) = requested else {
            return Err(CacheError::InvalidArgument("stale: must be neither zero nor unlimited".to_owned()));
        };
        let max = self.max_expire.map_or(Duration::LONGEST, |max| max.checked_div(2).unwrap_or(max));
        Ok(requested.min(max))
    }

    /// Checks the total length of the values that a batch returns.
    pub(crate) fn check_found(&self, values: &[Option<Bytes>]) -> Result<(), CacheError> {
        let len = values.iter().flatten().map(Bytes::len).fold(0, usize::saturating_add);
        let max = self.max_batch_bytes.max(self.max_value_bytes);
        if len > max { Err(CacheError::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    fn resolve(&self, duration: Duration) -> Result<Option<StdDuration>, CacheError> {
        let requested = match duration {
            Duration::Default => self.default_expire,
            Duration::Milliseconds(0) => {
                return Err(CacheError::InvalidArgument("duration: must not be zero".to_owned()));
            }
            Duration::Milliseconds(milliseconds) => Some(StdDuration::from_millis(milliseconds)),
            Duration::Unlimited => None,
        };
        let limited = match (requested, self.max_expire) {
            (Some(requested), Some(max)) => Some(requested.min(max)),
            (requested, max) => requested.or(max),
        };
        Ok(limited.map(|duration| duration.min(Duration::LONGEST)))
    }

    fn check_value(&self, value: &[u8]) -> Result<(), CacheError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_durations_differ_and_are_at_most_the_longest() {
        let lasting = || match Duration::lasting() {
            Duration::Milliseconds(milliseconds) => StdDuration::from_millis(milliseconds),
            other => panic!("{other:?}"),
        };
        let (one, two) = (lasting(), lasting());
        assert_ne!(one, two);
        let years = |years: u64| StdDuration::from_secs(years * 365 * 24 * 60 * 60);
        assert!((years(97)..=Duration::LONGEST).contains(&one), "{one:?}");
    }
}
