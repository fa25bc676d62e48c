//! How long a value may be served.

use crate::bindings;

/// How long a value may be served; an upper bound, since a value may be evicted sooner.
///
/// A [`std::time::Duration`] converts into it, so most calls just pass one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duration {
    /// The cache's configured `default_expire`.
    #[default]
    Default,
    /// So many milliseconds. Zero is an [`InvalidArgument`](crate::Error::InvalidArgument); longer than the cache's
    /// `max_expire` is shortened to it.
    Milliseconds(u64),
    /// Until cleared or evicted, or the cache's `max_expire` where it has one.
    Unlimited,
}

impl From<std::time::Duration> for Duration {
    /// Drops fractions of a millisecond, except that less than one, but more than none, is one: a value meant to
    /// live for an instant is not the mistake that zero is. What exceeds 2^64-1 milliseconds becomes that.
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
