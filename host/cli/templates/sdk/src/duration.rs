//! The lifetime of a value.

use crate::bindings;

/// How long a value may be served. This is an upper bound: a value may be evicted earlier.
///
/// The resolution is one millisecond. A [`std::time::Duration`] converts into this type, so most calls pass one. The
/// default is [`Duration::Default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duration {
    /// The `default_expire` of the cache, which the operator configures; 300 seconds by default.
    #[default]
    Default,
    /// This number of milliseconds. Zero is an [`InvalidArgument`](crate::Error::InvalidArgument). A duration longer
    /// than the cache's `max_expire` is shortened to it.
    Milliseconds(u64),
    /// Until the value is cleared or evicted, or for the cache's `max_expire` if it has one.
    Unlimited,
}

impl From<std::time::Duration> for Duration {
    /// Rounds down to whole milliseconds and saturates at 2^64-1. A duration between zero and one millisecond becomes
    /// one millisecond, because zero is an error.
    fn from(duration: std::time::Duration) -> Self {
        if duration.is_zero() {
            return Self::Milliseconds(0);
        }
        Self::Milliseconds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

impl From<Duration> for bindings::Duration {
    fn from(duration: Duration) -> Self {
        match duration {
            Duration::Default => Self::Default,
            Duration::Milliseconds(ms) => Self::Milliseconds(ms),
            Duration::Unlimited => Self::Unlimited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Duration::Milliseconds;

    fn convert(duration: std::time::Duration) -> super::Duration {
        duration.into()
    }

    #[test]
    fn a_std_duration_becomes_milliseconds_rounded_down() {
        assert_eq!(convert(std::time::Duration::from_micros(1_999)), Milliseconds(1));
        assert_eq!(convert(std::time::Duration::from_secs(30)), Milliseconds(30_000));
    }

    #[test]
    fn zero_stays_zero_and_less_than_a_millisecond_is_one() {
        assert_eq!(convert(std::time::Duration::ZERO), Milliseconds(0));
        assert_eq!(convert(std::time::Duration::from_nanos(1)), Milliseconds(1));
    }

    #[test]
    fn the_longest_std_duration_does_not_overflow() {
        assert_eq!(convert(std::time::Duration::MAX), Milliseconds(u64::MAX));
    }
}
