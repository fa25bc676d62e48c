//! Checks a history against the guarantees in the guide.
//!
//! Of an operation we know that it took effect, if at all, between its sending and its answer; one without an answer
//! may do so at any later time. "Before" here always means that one was answered before the other was sent. So a
//! history is refused only where no order of effects within these bounds agrees with it, whatever the scheduler did.
//!
//! Time enters in two rules, because a lease lapses when its holder is not heard of, and on a busy machine that happens
//! to the living too. There a holder counts as alive only while its process answered calls in quick succession.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::record::{Answer, Call, Computation, Operation, Story};

/// How much longer than `wait` and `lease` together an operation may take on a busy machine.
const SLACK: Duration = Duration::from_secs(15);

/// The configuration of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) lease: Duration,
    pub(super) wait: Duration,
}

/// A broken promise.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    /// The operations that contradict each other, and all that concerned their key.
    culprits: Vec<Operation>,
    story: Vec<Operation>,
}

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Every operation is answered, and not with a refusal, unless its process was killed or trapped.
    Answered,
    /// No operation takes longer than `wait` and `lease` together, give or take what a busy machine does.
    Prompt,
    /// A value that is read was set or filled under this key before the read was answered, and if filled, the fill did
    /// not say `false`.
    FromSomewhere,
    /// A value is not read when a set, a clear or a fill that stored came after the value and before the read. The time
    /// of a value is the answer of its set. For a computed value it is the answer that returned its vacancy, because a
    /// clear invalidates a computation that began before it.
    UpToDate,
    /// When a set or a fill that stored came before a read, the read finds a value, unless something was cleared between
    /// the write's sending and the read's answer. Nothing expires in these runs.
    Kept,
    /// A fill says `false` when a set or clear came after its vacancy or refresh was handed out and before it was sent.
    Overtaken,
    /// Of two computations, each begun before the other's fill was sent, only one is stored.
    StoredOnce,
    /// No caller gets a vacancy while the key certainly holds another caller's lease, and none gets a refresh while another
    /// caller certainly holds its lease.
    ///
    /// It is certainly there from the answer that handed it out until its fill is sent, where that fill then says
    /// `true`: a lease that is lost never comes back. Where it does not come to that, it is there while its holder
    /// answers calls in quick succession, from the sending of its `take` up to its fill, drop, trap or crash.
    ///
    /// Excused are takes that lasted for `wait`, for these compute without the lease, and a set or clear that may have
    /// come between the two.
    OneHolder,
    /// A fill does not say `false` without a reason: a set, a clear or another fill since the `take` was sent; that the
    /// `take` had lasted for `wait`; or a holder that did not answer calls in quick succession.
    Renewed,
}

/// Looks for a broken promise.
pub(super) fn check(history: &[Operation], terms: Terms) -> Result<(), Violation> {
    for operation in history {
        check_answer(history, operation, terms)?;
    }
    let keys: BTreeSet<&str> = history
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Get(key) | Call::Set(key, _) | Call::Take(key) | Call::Refresh(key) => Some(key.as_str()),
            _ => None,
        })
        .collect();
    for key in keys {
        let story = Story::new(key, history);
        for read in story.reads() {
            check_read(&story, read)?;
        }
        for (nth, computation) in story.computations.iter().enumerate() {
            check_fill(&story, computation)?;
            check_is_renewed(&story, computation, terms)?;
            for other in story.computations.iter().take(nth) {
                check_pair(&story, computation, other, terms)?;
            }
        }
    }
    Ok(())
}

fn check_answer(history: &[Operation], operation: &Operation, terms: Terms) -> Result<(), Violation> {
    let is_answered = match &operation.answer {
        Answer::Lost => history
            .iter()
            .any(|other| other.is_of_one_life_with(operation) && matches!(other.call, Call::Kill | Call::Trap)),
        // The server may be late on a busy machine.
        Answer::Error(error) => error == "error Timeout" || error == "error Unavailable",
        _ => true,
    };
    let breaks = |rule| {
        let concerned = |other: &&Operation| other.process == operation.process;
        Violation {
            rule,
            culprits: vec![operation.clone()],
            story: history.iter().filter(concerned).cloned().collect(),
        }
    };
    if !is_answered {
        return Err(breaks(Rule::Answered));
    }
    if operation.took() > terms.wait + terms.lease + SLACK {
        return Err(breaks(Rule::Prompt));
    }
    Ok(())
}

fn check_read(story: &Story<'_>, read: &Operation) -> Result<(), Violation> {
    match &read.answer {
        Answer::Hit(value) | Answer::Stale(value) => {
            let Some(writer) = story.writers.get(value.as_str()) else {
                return Err(violation(story, Rule::FromSomewhere, [read]));
            };
            let write = writer.write;
            if write.sent > read.answered || write.answer == Answer::Filled(false) {
                return Err(violation(story, Rule::FromSomewhere, [write, read]));
            }
            let supersedes =
                |change: &&Operation| *change != write && change.sent > writer.settled && change.over() < read.sent;
            if let Some(change) = story.changes().find(supersedes) {
                return Err(violation(story, Rule::UpToDate, [write, change, read]));
            }
        }
        Answer::Miss | Answer::Vacant => {
            let is_cleared_since = |write: &Operation| {
                let comes_between = |clear: &Operation| clear.over() > write.sent && clear.sent < read.answered;
                story.all.iter().any(|clear| clear.call.clears(story.key) && comes_between(clear))
            };
            let is_kept = |write: &&Operation| write.over() < read.sent && !is_cleared_since(write);
            if let Some(write) = story.writes().find(is_kept) {
                return Err(violation(story, Rule::Kept, [write, read]));
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_fill(story: &Story<'_>, computation: &Computation<'_>) -> Result<(), Violation> {
    let Some(fill) = computation.fill().filter(|_| computation.is_stored()) else { return Ok(()) };
    let overtakes = |change: &&Operation| {
        change.call.ends(story.key) && change.sent > computation.take.answered && change.over() < fill.sent
    };
    match story.changes().find(overtakes) {
        Some(change) => Err(violation(story, Rule::Overtaken, [computation.take, change, fill])),
        None => Ok(()),
    }
}

fn check_pair(story: &Story<'_>, a: &Computation<'_>, b: &Computation<'_>, terms: Terms) -> Result<(), Violation> {
    if let (Some(fill_a), Some(fill_b)) = (a.fill(), b.fill())
        && a.is_stored()
        && b.is_stored()
        && a.take.answered < fill_b.sent
        && b.take.answered < fill_a.sent
    {
        return Err(violation(story, Rule::StoredOnce, [a.take, b.take, fill_a, fill_b]));
    }
    // A refresh and the computation of a missing value have leases of their own.
    if a.is_refresh() != b.is_refresh() {
        return Ok(());
    }
    let (first, second) = if a.take.answered <= b.take.answered { (a, b) } else { (b, a) };
    if is_without_lease(first.take, terms) || is_without_lease(second.take, terms) {
        return Ok(());
    }
    let Some(held) = certainly_held_until(story, first, terms) else { return Ok(()) };
    // Where the second was sent first, it may have been granted first, and have lapsed before it was answered.
    let is_second = second.take.sent > first.take.answered || certainly_held_until(story, second, terms).is_some();
    let earliest = first.take.sent.min(second.take.sent);
    let comes_between = |change: &Operation| {
        change.call.ends(story.key) && change.over() > earliest && change.sent < second.take.answered
    };
    if second.take.answered < held && is_second && !story.all.iter().any(comes_between) {
        return Err(violation(story, Rule::OneHolder, [first.take, second.take]));
    }
    Ok(())
}

fn check_is_renewed(story: &Story<'_>, computation: &Computation<'_>, terms: Terms) -> Result<(), Violation> {
    let take = computation.take;
    let Some(fill) = computation.fill().filter(|fill| fill.answer == Answer::Filled(false)) else { return Ok(()) };
    let is_alive = fill.took() <= succession(terms)
        && certainly_held_until(story, computation, terms).is_some_and(|held| held == fill.sent);
    let is_reason = |change: &Operation| change != fill && change.over() > take.sent && change.sent < fill.answered;
    if is_alive && !is_without_lease(take, terms) && !story.changes().any(is_reason) {
        return Err(violation(story, Rule::Renewed, [take, fill]));
    }
    Ok(())
}

/// Whether the wait of a `take` that was answered `vacant` may have run out. Then it has no lease.
fn is_without_lease(take: &Operation, terms: Terms) -> bool {
    take.took() >= terms.wait
}

/// How far apart two answers of a process may be for it to count as alive in between. A lease that is renewed every
/// third of its time lapses when a renewal is two thirds late.
fn succession(terms: Terms) -> Duration {
    terms.lease / 4
}

/// Until when a computation's lease is certainly there, if nothing ends it; none where it may have lapsed before its
/// holder heard of it.
fn certainly_held_until(story: &Story<'_>, computation: &Computation<'_>, terms: Terms) -> Option<Duration> {
    let take = computation.take;
    if let Some(fill) = computation.fill().filter(|_| computation.is_stored()) {
        return Some(fill.sent);
    }
    if take.took() > succession(terms) {
        return None;
    }
    let end = computation.end.map_or(Duration::MAX, |end| end.sent);
    let mut heard = take.answered.min(end);
    let is_sign = |other: &&Operation| other.is_of_one_life_with(take) && other.call != Call::Freeze;
    for other in story.all.iter().filter(is_sign).filter(|other| other.sent >= take.answered) {
        let next = other.answered.min(end);
        if next.saturating_sub(heard) > succession(terms) {
            break;
        }
        heard = next;
    }
    Some(heard)
}

fn violation<const N: usize>(story: &Story<'_>, rule: Rule, culprits: [&Operation; N]) -> Violation {
    let concerns = |operation: &&Operation| operation.call.concerns(story.key);
    Violation {
        rule,
        culprits: culprits.into_iter().cloned().collect(),
        story: story.all.iter().filter(concerns).cloned().collect(),
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {:?}, by", self.rule)?;
        for operation in &self.culprits {
            writeln!(f, "  {operation}")?;
        }
        writeln!(f, "in (process.life, sent and answered in milliseconds)")?;
        for operation in &self.story {
            let mark = if self.culprits.contains(operation) { '>' } else { ' ' };
            writeln!(f, "{mark} {operation}")?;
        }
        Ok(())
    }
}
