//! Exponential back-off: pauses that double up to a maximum.

use std::time::Duration as StdDuration;

/// The pause after the first failed attempt to reach a server, and the maximum. A server that is reachable again is
/// noticed within a second.
const FIRST_RECONNECT: StdDuration = StdDuration::from_millis(50);
const LONGEST_RECONNECT: StdDuration = StdDuration::from_millis(800);

/// The pauses of a loop of attempts.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) struct Backoff {
    pause: StdDuration,
    longest: StdDuration,
}

impl Backoff {
    /// Starts with `first` and doubles up to `longest`.
    pub(in crate::valkey) fn new(first: StdDuration, longest: StdDuration) -> Self {
        Self { pause: first, longest }
    }

    /// The pauses between attempts to reach a server.
    pub(in crate::valkey) fn reconnect() -> Self {
        Self::new(FIRST_RECONNECT, LONGEST_RECONNECT)
    }

    /// The next pause.
    pub(in crate::valkey) fn next(&mut self) -> StdDuration {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// Between half of the next pause and all of it, so that hosts which lost the same server do not return at the same
    /// moment.
    pub(in crate::valkey) fn next_with_jitter(&mut self) -> StdDuration {
        self.next().mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(StdDuration::from_millis(5), StdDuration::from_millis(15));
        let pauses = [(); 4].map(|()| backoff.next().as_millis());
        assert_eq!(pauses, [5, 10, 15, 15]);
    }
}
