//! The clock by which entries expire: Tokio's, which a test can pause. It is read only if a cheaper clock is not exact
//! enough.

// Decision: docs/decisions/0017-the-ram-cache-uses-tokios-clock.md

use std::time::Duration as StdDuration;

use tokio::time::Instant;

/// The expiry time of an entry that does not expire.
pub(super) const NEVER: u64 = u64::MAX;

/// The error of the coarse clock that is allowed for, in milliseconds. That clock shows the time of the kernel's last
/// tick, which is some milliseconds ago; this is far more.
const COARSE_ERROR: u64 = 1_000;

/// Measures milliseconds since it was created.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// The coarse clock at the same time. `None` if Tokio's time is paused, which the coarse clock does not follow.
    coarse: Option<coarsetime::Instant>,
}

impl Clock {
    /// A clock that starts now. Tokio's time must not be paused later.
    pub(super) fn new() -> Self {
        let before = std::time::Instant::now();
        let started = Instant::now();
        // If Tokio's time runs, it is between the two; if it is paused, it is before both.
        let runs = (before..=std::time::Instant::now()).contains(&started.into_std());
        // On other systems the two clocks have different sources and may drift apart.
        Self { started, coarse: (runs && cfg!(target_os = "linux")).then(coarsetime::Instant::now) }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// The time after this duration; [`NEVER`] if that is out of range.
    pub(super) fn after(&self, duration: StdDuration) -> u64 {
        self.now().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(NEVER))
    }

    /// True if a time is in the future. A reading of the coarse clock costs a third and suffices for most entries. The
    /// result is exact unless the kernel's tick is over a second late.
    pub(super) fn is_before(&self, time: u64) -> bool {
        time == NEVER || self.is_far_before(time) || self.now() < time
    }

    fn is_far_before(&self, time: u64) -> bool {
        self.coarse.is_some_and(|started| started.elapsed().as_millis().saturating_add(COARSE_ERROR) < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn running_time_uses_the_coarse_clock() {
        let clock = Clock::new();
        assert!(clock.coarse.is_some());
        assert!(clock.is_far_before(COARSE_ERROR * 60) && clock.is_before(COARSE_ERROR * 60));
        assert!(!clock.is_far_before(COARSE_ERROR));
        assert!(clock.is_before(NEVER));
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_does_not_use_the_coarse_clock() {
        let clock = Clock::new();
        assert!(clock.coarse.is_none());
        tokio::time::advance(StdDuration::from_secs(60)).await;
        assert!(clock.is_before(60_001));
        assert!(!clock.is_before(60_000));
    }
}
