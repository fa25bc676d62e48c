//! Checks a history against the promises P1 to P4 of `docs/near.md`.
//!
//! Of an operation we know that it took effect between its sending and its answer; one with an error may do so at any later
//! time, or never. So a history is refused only if no order of effects within these bounds agrees with it. No rule has a
//! tolerance for slow machines.
//!
//! A failover may lose changes that were made while it lasted: those on the server that ended, and those made before that its
//! successor had not received. A change that may be among them is no reason to refuse a later read, and such a value may
//! come back until the failover is over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use super::record::{Answer, By, Call, Operation};

/// Servers count in whole milliseconds: a key that expires at one of them has a value until the next.
const SERVER_TICK: Duration = Duration::from_millis(1);

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A value that is read was written under this key before the read was answered.
    FromSomewhere,
    /// A read does not return a value that was replaced or removed more than `max_staleness` before the read was sent.
    P1,
    /// A call does not return a value that is older than what an earlier call of its process returned, or than what such a
    /// call proved to be gone.
    P2,
    /// A call does not return a value that is older than a set or clear of its process that had returned.
    P3,
    /// A value is not read by a call that was sent after its expiry. A life that is shortened is a change: what was read
    /// before may be read for `max_staleness` more.
    P4,
}

/// A broken promise.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    culprits: Vec<Operation>,
    story: Vec<Operation>,
}

/// What the check of a correct history found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// For each scene the greatest time between the end of a value and the sending of a call that returned it.
    pub(super) staleness: BTreeMap<usize, Duration>,
    pub(super) reads: usize,
}

/// Looks for a broken promise. The history is in any order.
pub(super) fn check(history: &[Operation], max_staleness: Duration) -> Result<Findings, Violation> {
    let mut findings = Findings::default();
    let keys: BTreeSet<&str> = history
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Get(key) | Call::Set(key, ..) | Call::GetOrSet(key, _) => Some(key.as_str()),
            _ => None,
        })
        .collect();
    let failovers: Vec<&Operation> = history.iter().filter(|operation| operation.call == Call::FailOver).collect();
    let expiry = expiry(history, max_staleness);
    for key in keys {
        Story::new(key, history, &failovers, max_staleness).check(&expiry, &mut findings)?;
    }
    Ok(findings)
}

/// The latest time at which each value that expires may be read. Nothing prolongs a life.
fn expiry(history: &[Operation], max_staleness: Duration) -> HashMap<&str, Duration> {
    let mut expiry: HashMap<&str, Duration> = HashMap::new();
    for operation in history {
        let (value, life) = match (&operation.call, &operation.answer) {
            (Call::Set(_, value, Some(life)), _) => (value, *life + SERVER_TICK),
            (Call::Expire(_, life), Answer::Hit(value)) => (value, max_staleness.max(*life + SERVER_TICK)),
            _ => continue,
        };
        if let Some(done) = operation.done() {
            let (end, known) = (done + life, expiry.entry(value).or_insert(Duration::MAX));
            *known = end.min(*known);
        }
    }
    expiry
}

/// The part of a history about one key.
struct Story<'a> {
    key: &'a str,
    history: &'a [Operation],
    failovers: &'a [&'a Operation],
    max_staleness: Duration,
    /// The writes of each value.
    writes: HashMap<&'a str, Vec<&'a Operation>>,
    /// When each value was first read, which is later than when it was written.
    first_read: HashMap<&'a str, Duration>,
    /// The certain ends of values: the earliest time of each, and its latest time with the operation. In the order of the
    /// earliest times; the latest time is the first of those of this end and all later ones.
    ends: Vec<(Duration, Duration, &'a Operation)>,
    /// From when on any value may have come under the key, by a renaming without an answer.
    unsure_from: Duration,
}

impl<'a> Story<'a> {
    fn new(key: &'a str, history: &'a [Operation], failovers: &'a [&'a Operation], max_staleness: Duration) -> Self {
        let mut story = Self {
            key,
            history,
            failovers,
            max_staleness,
            writes: HashMap::new(),
            first_read: HashMap::new(),
            ends: Vec::new(),
            unsure_from: Duration::MAX,
        };
        for operation in history.iter().filter(|operation| operation.concerns(key)) {
            if let Some(value) = operation.value_for(key) {
                story.writes.entry(value).or_default().push(operation);
            }
            if let Some(value) = returned(operation) {
                let first = story.first_read.entry(value).or_insert(operation.answered);
                *first = operation.answered.min(*first);
            }
            if matches!((&operation.call, &operation.answer), (Call::Rename(_, to), Answer::Error(_)) if to == key) {
                story.unsure_from = operation.sent.min(story.unsure_from);
            }
            if operation.replaces(key) && !story.is_doubtful(operation) {
                story.ends.push((story.earliest(operation), operation.answered, operation));
            }
        }
        story.ends.sort_by_key(|(earliest, ..)| *earliest);
        for nth in (1..story.ends.len()).rev() {
            if story.ends[nth].1 < story.ends[nth - 1].1 {
                (story.ends[nth - 1].1, story.ends[nth - 1].2) = (story.ends[nth].1, story.ends[nth].2);
            }
        }
        story
    }

    /// The earliest time at which an operation can have seen or changed the key. A call of a host may have waited for the
    /// fetch of another one, which was less than `max_staleness` old.
    fn earliest(&self, operation: &Operation) -> Duration {
        match (&operation.call, operation.by) {
            (Call::Get(_), By::Host(_)) => operation.sent.saturating_sub(self.max_staleness),
            _ => operation.sent,
        }
    }

    /// True if a failover may have lost what the operation changed or saw.
    fn is_doubtful(&self, operation: &Operation) -> bool {
        let overlaps =
            |failover: &&Operation| operation.answered > failover.sent && self.earliest(operation) < failover.answered;
        self.failovers.iter().any(overlaps)
    }

    /// The time since which the value was certainly written for the last time, if it has been written before `read`.
    /// `None` if it may be written still.
    fn settled(&self, value: &str, read: &Operation) -> Option<Duration> {
        let writes = self.writes.get(value).filter(|_| read.answered < self.unsure_from)?;
        let settled = |write: &&Operation| {
            let seen = if let [_] = writes[..] { self.first_read.get(value).copied() } else { None };
            let done = match (write.done(), seen) {
                (Some(done), Some(seen)) => done.min(seen),
                (done, seen) => done.or(seen)?,
            };
            let failovers =
                self.failovers.iter().filter(|failover| write.sent < failover.answered && done > failover.sent);
            Some(failovers.map(|failover| failover.answered).fold(done, Duration::max))
        };
        let before = writes.iter().filter(|write| write.sent <= read.answered);
        before.map(settled).try_fold(Duration::ZERO, |latest, settled| Some(latest.max(settled?)))
    }

    /// The first time at which something written until `settled` is certainly gone, and what ended it.
    fn end_after(&self, settled: Duration) -> Option<(Duration, &'a Operation)> {
        let first = self.ends.partition_point(|(earliest, ..)| *earliest <= settled);
        self.ends.get(first).map(|(_, latest, end)| (*latest, *end))
    }

    fn check(&self, expiry: &HashMap<&str, Duration>, findings: &mut Findings) -> Result<(), Violation> {
        let mut calls: Vec<&Operation> = self.history.iter().filter(|operation| operation.concerns(self.key)).collect();
        calls.sort_by_key(|operation| operation.sent);
        for read in calls.iter().copied() {
            let Some(value) = returned(read) else { continue };
            findings.reads += 1;
            let written = self.writes.get(value).and_then(|writes| writes.iter().min_by_key(|write| write.sent));
            match written {
                None if read.answered >= self.unsure_from => continue,
                None => return Err(self.violation(Rule::FromSomewhere, &[read])),
                Some(write) if write.sent > read.answered => {
                    return Err(self.violation(Rule::FromSomewhere, &[write, read]));
                }
                Some(_) => {}
            }
            if expiry.get(value).is_some_and(|end| read.sent > *end) {
                return Err(self.violation(Rule::P4, &[&self.writers_of(value)[..], &[read]].concat()));
            }
            let Some((gone, end)) = self.settled(value, read).and_then(|settled| self.end_after(settled)) else {
                continue;
            };
            let staleness = read.sent.saturating_sub(gone);
            if staleness > self.max_staleness {
                return Err(self.violation(Rule::P1, &[&self.writers_of(value)[..], &[end, read]].concat()));
            }
            let longest = findings.staleness.entry(read.scene).or_default();
            *longest = staleness.max(*longest);
        }
        let hosts: BTreeSet<usize> = calls.iter().filter_map(|call| host(call)).collect();
        hosts.into_iter().try_for_each(|host| self.check_host(host, &calls))
    }

    /// P2 and P3, for one process. `calls` is in the order of sending.
    fn check_host(&self, host: usize, calls: &[&'a Operation]) -> Result<(), Violation> {
        let own: Vec<&Operation> = calls.iter().filter(|call| self::host(call) == Some(host)).copied().collect();
        let mut answered: Vec<(&Operation, Duration)> =
            own.iter().filter_map(|call| Some((*call, self.floor(call)?))).collect();
        answered.sort_by_key(|(call, _)| call.answered);
        let mut answered = answered.into_iter().peekable();
        // The call that returned the newest state, and the time from which that is.
        let mut newest: Option<(&Operation, Duration)> = None;
        for call in own {
            while let Some(earlier) = answered.next_if(|(earlier, _)| earlier.answered < call.sent) {
                newest = newest.filter(|(_, floor)| *floor >= earlier.1).or(Some(earlier));
            }
            let Some(value) = returned(call) else { continue };
            if let (Some(settled), Some((earlier, floor))) = (self.settled(value, call), newest)
                && settled < floor
            {
                let is_read = matches!(earlier.call, Call::Get(_)) || matches!(earlier.answer, Answer::Hit(_));
                let rule = if is_read { Rule::P2 } else { Rule::P3 };
                let newer = returned(earlier).map(|value| self.writers_of(value)).unwrap_or_default();
                return Err(self.violation(rule, &[&self.writers_of(value)[..], &newer[..], &[earlier, call]].concat()));
            }
        }
        Ok(())
    }

    /// The time since which the state can have existed that a call returned or made: what was settled before is older.
    fn floor(&self, call: &Operation) -> Option<Duration> {
        if let Some(value) = returned(call) {
            let writes = self.writes.get(value)?;
            let is_certain = !writes.iter().any(|write| self.is_doubtful(write));
            return writes.iter().map(|write| write.sent).min().filter(|_| is_certain);
        }
        (call.replaces(self.key) && !self.is_doubtful(call)).then(|| self.earliest(call))
    }

    fn writers_of(&self, value: &str) -> Vec<&'a Operation> {
        self.writes.get(value).cloned().unwrap_or_default()
    }

    fn violation(&self, rule: Rule, culprits: &[&Operation]) -> Violation {
        let from = culprits.iter().map(|culprit| culprit.sent).min().unwrap_or_default();
        let until = culprits.iter().map(|culprit| culprit.answered).max().unwrap_or_default();
        let is_near = |operation: &&Operation| operation.answered >= from && operation.sent <= until;
        let mut story: Vec<Operation> =
            self.history.iter().filter(|operation| operation.concerns(self.key)).filter(is_near).cloned().collect();
        story.sort_by_key(|operation| operation.sent);
        Violation { rule, culprits: culprits.iter().map(|culprit| (*culprit).clone()).collect(), story }
    }
}

/// The value that a call of a host, or a look by another program, returned.
fn returned(operation: &Operation) -> Option<&str> {
    match (&operation.call, &operation.answer) {
        (Call::Get(_) | Call::GetOrSet(..), Answer::Hit(value)) => Some(value),
        _ => None,
    }
}

fn host(operation: &Operation) -> Option<usize> {
    match operation.by {
        By::Host(host) => Some(host),
        By::Other => None,
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {:?}, by", self.rule)?;
        for operation in &self.culprits {
            writeln!(f, "  {operation}")?;
        }
        writeln!(f, "in (sent and answered in milliseconds)")?;
        for operation in &self.story {
            let mark = if self.culprits.contains(operation) { '>' } else { ' ' };
            writeln!(f, "{mark} {operation}")?;
        }
        Ok(())
    }
}
