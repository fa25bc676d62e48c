//! The record of a run: each operation, when it took effect, and its answer.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Who made an operation: a host process, or another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Host(usize),
    Other,
}

/// An operation. No two operations of a run write the same value, but a value that is renamed is written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Get(String),
    /// Key and value, and the time after which it expires.
    Set(String, String, Option<Duration>),
    /// Key and value. If the key has no value, it is filled at once.
    GetOrSet(String, String),
    Clear(String),
    /// All keys that begin so.
    ClearPattern(String),
    ClearAll,
    /// The value, if there is one, gets this time to live.
    Expire(String, Duration),
    /// The value under the first key, if there is one, goes to the second one.
    Rename(String, String),
    /// The server ends without keeping anything.
    Crash,
    /// From its sending until its answer, changes may have been made on a server that does not survive.
    FailOver,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Also of an expiry or a renaming that took effect on this value.
    Hit(String),
    /// An expiry or a renaming that took effect on something that this run has not written, such as a lease.
    HitUnknown,
    Miss,
    Filled(bool),
    Done,
    /// It may have taken effect, or may still do so.
    Error(String),
}

/// One operation. Times count from the beginning of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) by: By,
    pub(super) call: Call,
    /// It took effect, if at all, between these two, unless it has no answer.
    pub(super) sent: Duration,
    pub(super) answered: Duration,
    pub(super) answer: Answer,
    /// The number of the scene in which it was sent.
    pub(super) scene: usize,
}

impl Operation {
    /// The time at which it had taken effect, if it is known that it did.
    pub(super) fn done(&self) -> Option<Duration> {
        (!matches!(self.answer, Answer::Error(_))).then_some(self.answered)
    }

    /// The value that it may have written under this key.
    pub(super) fn value_for(&self, key: &str) -> Option<&str> {
        match (&self.call, &self.answer) {
            (Call::Set(own, value, _), _) if own == key => Some(value),
            (Call::GetOrSet(own, value), Answer::Filled(true) | Answer::Error(_)) if own == key => Some(value),
            (Call::Rename(_, to), Answer::Hit(value)) if to == key => Some(value),
            _ => None,
        }
    }

    /// True if it certainly ended what the key held before, by another value or none.
    pub(super) fn replaces(&self, key: &str) -> bool {
        match (&self.call, &self.answer) {
            (_, Answer::Error(_)) => false,
            (Call::Set(own, ..) | Call::Clear(own), _) => own == key,
            // That the key had no value is an observation as good as a change.
            (Call::GetOrSet(own, _), Answer::Filled(_)) => own == key,
            (Call::Rename(from, to), Answer::Hit(_) | Answer::HitUnknown) => from == key || to == key,
            (Call::Rename(own, _) | Call::Expire(own, _) | Call::Get(own), Answer::Miss) => own == key,
            (Call::ClearPattern(prefix), _) => key.starts_with(prefix),
            (Call::ClearAll | Call::Crash, _) => true,
            _ => false,
        }
    }

    /// True if it belongs to the story of the key.
    pub(super) fn concerns(&self, key: &str) -> bool {
        match &self.call {
            Call::Get(own) | Call::Set(own, ..) | Call::GetOrSet(own, _) | Call::Clear(own) | Call::Expire(own, _) => {
                own == key
            }
            Call::Rename(from, to) => from == key || to == key,
            Call::ClearPattern(prefix) => key.starts_with(prefix),
            Call::ClearAll | Call::Crash | Call::FailOver => true,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "get {key}"),
            Self::Set(key, value, None) => write!(f, "set {key} {value}"),
            Self::Set(key, value, Some(life)) => write!(f, "set {key} {value} {}", life.as_millis()),
            Self::GetOrSet(key, value) => write!(f, "get-or-set {key} {value}"),
            Self::Clear(key) => write!(f, "clear {key}"),
            Self::ClearPattern(prefix) => write!(f, "clear-pattern {prefix}*"),
            Self::ClearAll => write!(f, "clear-all"),
            Self::Expire(key, life) => write!(f, "expire {key} {}", life.as_millis()),
            Self::Rename(from, to) => write!(f, "rename {from} {to}"),
            Self::Crash => write!(f, "crash"),
            Self::FailOver => write!(f, "fail-over"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: Duration| at.as_secs_f64() * 1000.0;
        let by = match self.by {
            By::Host(host) => format!("host {host}"),
            By::Other => "other ".to_owned(),
        };
        let done = format!("{by} {:>10.3}..{:<10.3} {}", ms(self.sent), ms(self.answered), self.call);
        write!(f, "{done:<60} -> {:?}", self.answer)
    }
}

/// The clock of a run, and how the clock of the servers, which are on this machine, relates to it.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    /// The least and the greatest time of day at which the run can have begun.
    offset: (Duration, Duration),
}

impl Clock {
    pub(super) fn start() -> Self {
        let began = Instant::now();
        Self { began, offset: offset(began) }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Between which times of the run an operation took effect, given the server's times of day before and after it, in
    /// microseconds, and the times of its sending and its answer.
    pub(super) fn narrow(
        &self,
        before: Duration,
        after: Duration,
        sent: Duration,
        answered: Duration,
    ) -> (Duration, Duration) {
        let (least, greatest) = self.offset;
        let (least_now, greatest_now) = offset(self.began);
        // The machine's time of day was set.
        if greatest_now < least || greatest < least_now {
            return (sent, answered);
        }
        let earliest = before.saturating_sub(greatest);
        let latest = (after + Duration::from_micros(1)).saturating_sub(least);
        (earliest.clamp(sent, answered), latest.clamp(sent, answered))
    }
}

fn offset(began: Instant) -> (Duration, Duration) {
    let sample = || {
        let before = began.elapsed();
        let time_of_day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (time_of_day.saturating_sub(began.elapsed()), time_of_day.saturating_sub(before))
    };
    // The narrowest of some: this thread may lose its processor between two readings.
    (0..3).map(|_| sample()).min_by_key(|(least, greatest)| *greatest - *least).unwrap()
}
