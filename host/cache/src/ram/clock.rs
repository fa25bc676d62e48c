//! The clock by which entries expire. It goes on while the machine sleeps. It is read only if a cheaper clock has ticked.

// Decision: docs/decisions/0070-ram-entries-expire-while-the-machine-sleeps.md

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration as StdDuration;

use tokio::time::Instant;

/// The expiry time of an entry that does not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// How long a reading may have been the last one while the coarse clock shows the same time, in milliseconds. The kernel
/// advances that clock each few milliseconds; this is far more.
const COARSE_ERROR: u64 = 1_000;

/// Measures milliseconds.
#[derive(Debug)]
pub(crate) struct Clock(Source);

#[derive(Debug)]
enum Source {
    /// The system's clock that goes on while the machine sleeps.
    System(LastReading),
    // Decision: docs/decisions/0017-the-ram-cache-uses-tokios-clock.md
    /// Tokio's clock, since this time. It can be paused, and may stand still while the machine sleeps.
    Tokio(Instant),
    /// A clock that a test sets.
    #[cfg(test)]
    Set(std::sync::Arc<AtomicU64>),
}

impl Clock {
    /// A clock that shows what the test stores.
    #[cfg(test)]
    pub(crate) fn set_by(time: &std::sync::Arc<AtomicU64>) -> Self {
        Self(Source::Set(std::sync::Arc::clone(time)))
    }

    /// A clock that starts now. Tokio's time must not be paused later.
    pub(crate) fn new() -> Self {
        let before = std::time::Instant::now();
        let started = Instant::now();
        // If Tokio's time runs, it is between the two; if it is paused, it is before both.
        let runs = (before..=std::time::Instant::now()).contains(&started.into_std());
        Self(if runs && system::now().is_some() {
            Source::System(LastReading::default())
        } else {
            Source::Tokio(started)
        })
    }

    pub(crate) fn now(&self) -> u64 {
        match &self.0 {
            Source::System(_) => system_now(),
            Source::Tokio(started) => u64::try_from(started.elapsed().as_millis()).unwrap_or(NEVER),
            #[cfg(test)]
            Source::Set(time) => time.load(Ordering::SeqCst),
        }
    }

    /// The time after this duration; [`NEVER`] if that is out of range.
    pub(crate) fn after(&self, duration: StdDuration) -> u64 {
        self.now().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(NEVER))
    }

    /// True if a time is in the future. A reading of the coarse clock costs a third and suffices for most entries. The
    /// result is exact unless the kernel's tick is over a second late.
    pub(crate) fn is_before(&self, time: u64) -> bool {
        match &self.0 {
            _ if time == NEVER => true,
            Source::System(last) => last.is_before(time, system::coarse(), system_now),
            Source::Tokio(_) => self.now() < time,
            #[cfg(test)]
            Source::Set(_) => self.now() < time,
        }
    }
}

/// The system's clock, which was available when the clock was created. [`NEVER`], at which every entry has expired,
/// if it fails later.
fn system_now() -> u64 {
    system::now().unwrap_or(NEVER)
}

/// The last reading of the system's clock, and what the coarse clock showed at that time.
///
/// The coarse clock is the time of day as of the kernel's last tick. The kernel adds the time of a sleep to it before
/// any program runs again, so a reading from before a sleep is not used after it.
#[derive(Debug, Default)]
struct LastReading {
    coarse: AtomicU64,
    time: AtomicU64,
}

impl LastReading {
    /// True if the time `now()` is before `time`. `coarse` is read before `now` is called.
    fn is_before(&self, time: u64, coarse: Option<u64>, now: impl FnOnce() -> u64) -> bool {
        let has_ticked = coarse.is_none_or(|coarse| self.coarse.load(Ordering::Acquire) != coarse);
        if !has_ticked && self.time.load(Ordering::Relaxed).saturating_add(COARSE_ERROR) < time {
            return true;
        }
        let now = now();
        if let Some(coarse) = coarse.filter(|_| has_ticked) {
            // The time never goes back: another thread may be about to store an older reading, under an older tick.
            self.time.fetch_max(now, Ordering::Relaxed);
            self.coarse.store(coarse, Ordering::Release);
        }
        now < time
    }
}

/// `CLOCK_BOOTTIME` of Linux. The kernel lets programs read it without a call, as it does `CLOCK_MONOTONIC`.
#[cfg(target_os = "linux")]
mod system {
    use nix::time::{ClockId, clock_gettime};

    pub(super) fn now() -> Option<u64> {
        super::milliseconds(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?)
    }

    /// What the coarse clock shows. Two readings are equal if the kernel's clock has not ticked between them.
    pub(super) fn coarse() -> Option<u64> {
        let time = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).ok()?;
        let seconds = u64::try_from(time.tv_sec()).ok()?.wrapping_mul(1_000_000_000);
        Some(seconds.wrapping_add(u64::try_from(time.tv_nsec()).ok()?))
    }
}

/// `CLOCK_MONOTONIC` of macOS goes on while the machine sleeps, unlike the clock of the standard library.
#[cfg(target_os = "macos")]
mod system {
    use nix::time::{ClockId, clock_gettime};

    pub(super) fn now() -> Option<u64> {
        super::milliseconds(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?)
    }

    pub(super) fn coarse() -> Option<u64> {
        None
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn milliseconds(time: nix::sys::time::TimeSpec) -> Option<u64> {
    let seconds = u64::try_from(time.tv_sec()).ok()?.saturating_mul(1_000);
    Some(seconds.saturating_add(u64::try_from(time.tv_nsec()).ok()? / 1_000_000))
}

/// Entries expire by Tokio's clock. Whether it goes on while the machine sleeps depends on the system.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod system {
    pub(super) fn now() -> Option<u64> {
        None
    }

    pub(super) fn coarse() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn running_time_uses_the_systems_clock() {
        let clock = Clock::new();
        assert!(matches!(clock.0, Source::System(_)), "{clock:?}");
        let soon = clock.after(StdDuration::from_secs(3600));
        assert!(clock.is_before(soon) && clock.is_before(NEVER));
        assert!(!clock.is_before(clock.now()));
        assert!(!clock.is_before(0));
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_uses_tokios_clock() {
        let clock = Clock::new();
        assert!(matches!(clock.0, Source::Tokio(_)), "{clock:?}");
        tokio::time::advance(StdDuration::from_secs(60)).await;
        assert!(clock.is_before(60_001));
        assert!(!clock.is_before(60_000));
    }

    #[test]
    fn the_clock_is_not_read_again_before_the_coarse_clock_ticks() {
        let last = LastReading::default();
        assert!(last.is_before(10_000, Some(1), || 5_000));
        assert!(last.is_before(10_000, Some(1), || unreachable!("a reading of this tick exists")));
        // An entry that expires within the error needs a reading of its own.
        assert!(!last.is_before(5_500, Some(1), || 5_501));
        assert!(last.is_before(10_000, Some(2), || 9_999));
        assert!(!last.is_before(10_000, Some(3), || 10_000));
    }

    /// A sleep is between two instructions of a thread: the coarse clock differs before and after it.
    #[test]
    fn a_reading_from_before_a_sleep_is_not_used_after_it() {
        let (last, hour) = (LastReading::default(), 3_600_000);
        assert!(last.is_before(10_000, Some(1), || 5_000));
        assert!(!last.is_before(10_000, Some(2), || 5_000 + hour));
        // A thread that read the clock before the sleep stores its reading after it.
        assert!(last.is_before(10_000, Some(1), || 5_000));
        assert!(!last.is_before(10_000, Some(1), || 5_001 + hour));
        assert!(!last.is_before(10_000, Some(2), || 5_001 + hour));
    }

    #[test]
    fn without_a_coarse_clock_each_check_reads_the_clock() {
        let last = LastReading::default();
        assert!(last.is_before(10_000, None, || 5_000));
        assert!(!last.is_before(10_000, None, || 10_000));
    }
}
