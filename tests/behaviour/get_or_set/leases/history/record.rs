//! The record of a run: each operation, the times of its sending and its answer, and the answer.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// An operation of the `session` plugin, or a fault of its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Get(String),
    /// Key and value; no two writes of a run have the same value.
    Set(String, String),
    Take(String),
    /// A get-or-refresh for which every value is stale.
    Refresh(String),
    Fill(String, String),
    Drop(String),
    Clear(String),
    /// All keys that begin so; a `*` follows on the wire.
    ClearPattern(String),
    ClearAll,
    Trap,
    Kill,
    /// Held for a while, which is no sign of life.
    Freeze,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Hit(String),
    /// A value, and the right to refresh it.
    Stale(String),
    Miss,
    Vacant,
    Filled(bool),
    /// Carried out, and the answer says no more that is of use.
    Done,
    /// The process ended before it answered.
    Lost,
    Error(String),
}

/// One operation. Instants count from the beginning of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) process: usize,
    /// How often the process was started again before.
    pub(super) life: usize,
    pub(super) call: Call,
    pub(super) sent: Duration,
    /// Later than the operation's effect, if it had one, unless the outcome is unknown.
    pub(super) answered: Duration,
    pub(super) answer: Answer,
}

impl Call {
    /// Whether it may replace or remove the value or lease of the key.
    pub(super) fn ends(&self, key: &str) -> bool {
        match self {
            Self::Set(own, _) | Self::Clear(own) => own == key,
            _ => self.clears(key),
        }
    }

    /// Whether it may leave the key without a value.
    pub(super) fn clears(&self, key: &str) -> bool {
        match self {
            Self::Clear(own) => own == key,
            Self::ClearPattern(prefix) => key.starts_with(prefix),
            Self::ClearAll => true,
            _ => false,
        }
    }

    /// Whether it has to do with the key, and so belongs to its history.
    pub(super) fn concerns(&self, key: &str) -> bool {
        match self {
            Self::Get(own) | Self::Set(own, _) | Self::Take(own) | Self::Refresh(own) => own == key,
            Self::Fill(own, _) | Self::Drop(own) | Self::Clear(own) => own == key,
            Self::ClearPattern(_) | Self::ClearAll => self.clears(key),
            Self::Trap | Self::Kill | Self::Freeze => true,
        }
    }
}

impl Operation {
    /// The time after which it can have no effect. An operation without an answer may take effect at any later time.
    pub(super) fn over(&self) -> Duration {
        match self.answer {
            Answer::Lost | Answer::Error(_) => Duration::MAX,
            _ => self.answered,
        }
    }

    /// How long it took.
    pub(super) fn took(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }

    /// Whether the same process did both, and was not started again in between.
    pub(super) fn is_of_one_life_with(&self, other: &Self) -> bool {
        (self.process, self.life) == (other.process, other.life)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "get {key}"),
            Self::Set(key, value) => write!(f, "set {key} {value}"),
            Self::Take(key) => write!(f, "take {key}"),
            Self::Refresh(key) => write!(f, "refresh {key}"),
            Self::Fill(key, value) => write!(f, "fill {key} {value}"),
            Self::Drop(key) => write!(f, "drop {key}"),
            Self::Clear(key) => write!(f, "clear {key}"),
            Self::ClearPattern(prefix) => write!(f, "clear-pattern {prefix}*"),
            Self::ClearAll => write!(f, "clear-all"),
            Self::Trap => write!(f, "trap"),
            Self::Kill => write!(f, "kill"),
            Self::Freeze => write!(f, "freeze"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: Duration| at.as_secs_f64() * 1000.0;
        let Self { process, life, call, .. } = self;
        let done = format!("{process}.{life} {:>9.3}..{:<9.3} {call}", ms(self.sent), ms(self.answered));
        write!(f, "{done:<54} -> {:?}", self.answer)
    }
}

impl Answer {
    /// Reads a line of the plugin; an empty one is the end of its output.
    pub(super) fn read(line: &str) -> Self {
        match line.split_once(' ') {
            Some(("hit", value)) => Self::Hit(value.to_owned()),
            Some(("stale", value)) => Self::Stale(value.to_owned()),
            Some(("filled", "true")) => Self::Filled(true),
            Some(("filled", "false")) => Self::Filled(false),
            Some(_) => Self::Error(line.to_owned()),
            None => match line {
                "" => Self::Lost,
                "miss" => Self::Miss,
                "vacant" => Self::Vacant,
                "ok" | "dropped" | "true" | "false" => Self::Done,
                count if count.parse::<u64>().is_ok() => Self::Done,
                _ => Self::Error(line.to_owned()),
            },
        }
    }
}

/// A vacancy that a process received, of a missing or of a stale value, and its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Computation<'a> {
    pub(super) take: &'a Operation,
    /// The fill or drop, or the end of its process; none where the history ends earlier.
    pub(super) end: Option<&'a Operation>,
}

/// The part of a history about one key.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) key: &'a str,
    pub(super) all: &'a [Operation],
    pub(super) computations: Vec<Computation<'a>>,
    /// Who wrote which value: the operation that did, and when its value was begun.
    pub(super) writers: HashMap<&'a str, Writer<'a>>,
}

/// A write of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) write: &'a Operation,
    /// What is sent later than this and carried out supersedes the value. Of a set it is the answer; of a fill it is
    /// the moment the vacancy was handed out, however late the fill.
    pub(super) settled: Duration,
}

impl<'a> Story<'a> {
    /// The history is in the order of sending.
    pub(super) fn new(key: &'a str, all: &'a [Operation]) -> Self {
        let is_end = |call: &Call| match call {
            Call::Fill(own, _) | Call::Drop(own) => own == key,
            Call::Trap | Call::Kill => true,
            _ => false,
        };
        let computations: Vec<_> = all
            .iter()
            .filter(|take| matches!(&take.call, Call::Take(own) | Call::Refresh(own) if own == key))
            .filter(|take| matches!(take.answer, Answer::Vacant | Answer::Stale(_)))
            .map(|take| {
                let is_later = |other: &Operation| other.is_of_one_life_with(take) && other.sent > take.sent;
                Computation { take, end: all.iter().find(|other| is_later(other) && is_end(&other.call)) }
            })
            .collect();
        let sets = all.iter().filter_map(|write| match &write.call {
            Call::Set(own, value) if own == key => Some((value.as_str(), Writer { write, settled: write.over() })),
            _ => None,
        });
        let fills = computations.iter().filter_map(|computation| match computation.end {
            Some(write @ Operation { call: Call::Fill(_, value), .. }) => {
                Some((value.as_str(), Writer { write, settled: computation.take.answered }))
            }
            _ => None,
        });
        let writers = sets.chain(fills).collect();
        Self { key, all, computations, writers }
    }

    /// The operations after which the key does not hold what it held before: sets, clears, and fills that stored.
    pub(super) fn changes(&self) -> impl Iterator<Item = &'a Operation> {
        let key = self.key;
        self.all.iter().filter(move |change| match &change.call {
            Call::Fill(own, _) => own == key && change.answer != Answer::Filled(false),
            call => call.ends(key),
        })
    }

    /// Those of them that write a value which is there when they are over.
    pub(super) fn writes(&self) -> impl Iterator<Item = &'a Operation> {
        self.changes().filter(|change| matches!(change.call, Call::Set(..) | Call::Fill(..)))
    }

    pub(super) fn reads(&self) -> impl Iterator<Item = &'a Operation> {
        let key = self.key;
        self.all.iter().filter(
            move |read| matches!(&read.call, Call::Get(own) | Call::Take(own) | Call::Refresh(own) if own == key),
        )
    }
}

impl<'a> Computation<'a> {
    /// Its fill, where it came to that.
    pub(super) fn fill(&self) -> Option<&'a Operation> {
        self.end.filter(|end| matches!(end.call, Call::Fill(..)))
    }

    /// Whether it refreshes a value, and so holds another lease than one that computes a missing value.
    pub(super) fn is_refresh(&self) -> bool {
        matches!(self.take.answer, Answer::Stale(_))
    }

    pub(super) fn is_stored(&self) -> bool {
        self.fill().is_some_and(|fill| fill.answer == Answer::Filled(true))
    }
}
