//! The time by which entries expire: Tokio's, which a test can pause, and read only where a cheaper clock leaves a doubt.

// Decision: docs/decisions/0017-the-ram-cache-uses-tokios-clock.md

use std::time::Duration as StdDuration;

use tokio::time::Instant;

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// How far off an expiry must be, in milliseconds, for the coarse clock to settle that it has not come. That clock is the
/// time of the kernel's last tick, so some milliseconds old; this is far more.
const DOUBT: u64 = 1_000;

/// Milliseconds since it was made.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// The coarse clock at that moment; none where Tokio's time is paused, which the coarse clock does not know of.
    coarse: Option<coarsetime::Instant>,
}

impl Clock {
    /// A clock that begins now. A pause of Tokio's time is known to it if it began before.
    pub(super) fn new() -> Self {
        let before = std::time::Instant::now();
        let started = Instant::now();
        // Time that runs is between the two, and time that is paused stands before both.
        let runs = (before..=std::time::Instant::now()).contains(&started.into_std());
        // Elsewhere the two clocks are not one and the same, and may drift apart.
        Self { started, coarse: (runs && cfg!(target_os = "linux")).then(coarsetime::Instant::now) }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// The time when this much has passed; [`NEVER`] where that is out of range.
    pub(super) fn after(&self, duration: StdDuration) -> u64 {
        self.now().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(NEVER))
    }

    /// Whether a time is yet to come. A look at the coarse clock is a third of the price and enough for most; it is exact
    /// unless the kernel's tick is over a second late.
    pub(super) fn is_before(&self, time: u64) -> bool {
        time == NEVER || self.is_far_from(time) || self.now() < time
    }

    fn is_far_from(&self, time: u64) -> bool {
        self.coarse.is_some_and(|started| started.elapsed().as_millis().saturating_add(DOUBT) < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn time_that_runs_has_a_coarse_clock_beside_it() {
        let clock = Clock::new();
        assert!(clock.coarse.is_some());
        assert!(clock.is_far_from(DOUBT * 60) && clock.is_before(DOUBT * 60));
        assert!(!clock.is_far_from(DOUBT));
        assert!(clock.is_before(NEVER));
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_has_none() {
        let clock = Clock::new();
        assert!(clock.coarse.is_none());
        tokio::time::advance(StdDuration::from_secs(60)).await;
        assert!(clock.is_before(60_001));
        assert!(!clock.is_before(60_000));
    }
}
