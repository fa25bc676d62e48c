//! The queue of one stream: bounded in bytes, and shared so that neither one plugin nor all of them fill it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;

use super::{Backlog, Stream};
use crate::default_limits::MAX_QUEUED_OUTPUT;
use crate::metrics::{DROPPED_LOG_LINES, DROPPED_OUTPUT};

/// What a queued chunk costs besides its bytes, so that many short lines do not take more memory than the limit.
const CHUNK_OVERHEAD: usize = 64;

/// The most bytes of one write to the stream, except for a longer chunk.
const MAX_BATCH: usize = 64 * 1024;

/// How long the writer lets lines collect after a write. Waking it for each line would slow down those who log.
const LINGER: Duration = Duration::from_millis(5);

/// The pause between two log lines that report lost output.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The source of a chunk.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The log and other lines of the host. Dropped if the queue is full.
    Host,
    /// Whole lines of a plugin that answers requests. Dropped if the plugin has used its share.
    Plugin(Arc<str>),
    /// The output of one run, which waits for room. Not part of the queue's limit.
    Run(Arc<Backlog>),
}

/// What the writer thread takes: chunks that are written in one go. Their bytes are in the thread's buffer.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chunks: Vec<(Origin, usize)>,
    /// The buffer begins with a line end that is no chunk's, because the last write broke off within a line.
    mends_line: bool,
}

/// What the queue has lost since the last report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) bytes: BTreeMap<Arc<str>, u64>,
    /// Why the stream could not be written, if that is the reason.
    pub(super) error: Option<String>,
}

impl Lost {
    fn is_empty(&self) -> bool {
        self.lines == 0 && self.bytes.is_empty()
    }
}

/// The next work of the writer thread.
#[derive(Debug)]
pub(super) enum Work {
    Write(Batch),
    Report(Lost),
}

/// The queue of one stream.
#[derive(Debug)]
pub(super) struct Queue {
    stream: Stream,
    state: Mutex<State>,
    /// Wakes the writer thread.
    arrived: Condvar,
    /// Wakes those that wait until the queue is empty.
    emptied: Condvar,
}

/// What the writer thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// It is not started yet.
    None,
    /// It writes, and looks for more work afterwards.
    Busy,
    /// It has just written, and looks for more work soon.
    Lingers,
    /// It waits to be woken.
    Idle,
}

#[derive(Debug)]
struct State {
    writer: Writer,
    max: u64,
    chunks: VecDeque<(Origin, Vec<u8>)>,
    /// Chunks in the queue and in the writer's hands.
    unwritten: usize,
    /// Bytes that count against `max`, those in the writer's hands included.
    queued: usize,
    of_plugins: usize,
    by_plugin: BTreeMap<Arc<str>, usize>,
    lost: Lost,
    /// The last write failed.
    is_failing: bool,
    /// It broke off within a line.
    is_torn: bool,
    next_report: Option<Instant>,
}

impl Queue {
    pub(super) const fn new(stream: Stream) -> Self {
        let lost = Lost { lines: 0, bytes: BTreeMap::new(), error: None };
        let state = State {
            writer: Writer::None,
            max: MAX_QUEUED_OUTPUT,
            chunks: VecDeque::new(),
            unwritten: 0,
            queued: 0,
            of_plugins: 0,
            by_plugin: BTreeMap::new(),
            lost,
            is_failing: false,
            is_torn: false,
            next_report: None,
        };
        Self { stream, state: Mutex::new(state), arrived: Condvar::new(), emptied: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(any(feature = "serve", test))]
    pub(super) fn set_max(&self, bytes: u64) {
        self.state().max = bytes;
    }

    /// Queues a chunk of the host or of a plugin if there is room, else drops and counts it.
    pub(super) fn offer(&'static self, from: Origin, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        if self.has_writer(&mut state) && state.has_room(&from, cost(bytes.len())) {
            self.append(state, from, bytes);
        } else {
            state.lost.add(&from, bytes.len());
            drop(state);
            self.count(&from, bytes.len());
        }
    }

    /// Queues a chunk of a run, whose backlog limits it.
    pub(super) fn push(&'static self, backlog: &Arc<Backlog>, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        backlog.add(bytes.len());
        let mut state = self.state();
        if self.has_writer(&mut state) {
            self.append(state, Origin::Run(Arc::clone(backlog)), bytes);
        } else {
            drop(state);
            backlog.complete(bytes.len(), Some(&io::ErrorKind::OutOfMemory.into()));
        }
    }

    fn append(&self, mut state: MutexGuard<'_, State>, from: Origin, bytes: Vec<u8>) {
        // A run waits until it is written.
        let is_urgent = matches!(from, Origin::Run(_)) || state.queued > MAX_BATCH;
        state.charge(&from, cost(bytes.len()));
        state.unwritten = state.unwritten.saturating_add(1);
        state.chunks.push_back((from, bytes));
        self.wake(state, is_urgent);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>, is_urgent: bool) {
        if state.writer == Writer::Idle || (is_urgent && state.writer == Writer::Lingers) {
            state.writer = Writer::Busy;
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Starts the writer thread before the first write. A program that never writes has none.
    fn has_writer(&'static self, state: &mut State) -> bool {
        if state.writer == Writer::None {
            let thread = std::thread::Builder::new().name(format!("larder-{}", self.stream.name()));
            if thread.spawn(|| super::writer::run(self, self.stream)).is_ok() {
                state.writer = Writer::Busy;
            }
        }
        state.writer != Writer::None
    }

    /// Waits until there is something to write or to report. The bytes to write are put into the buffer.
    pub(super) fn next(&self, buffer: &mut Vec<u8>) -> Work {
        let mut state = self.state();
        loop {
            let until_report = state.until_report();
            if until_report == Some(Duration::ZERO) {
                state.next_report = Instant::now().checked_add(REPORT_INTERVAL);
                return Work::Report(std::mem::take(&mut state.lost));
            }
            if !state.chunks.is_empty() {
                return Work::Write(state.take(buffer));
            }
            state.writer = Writer::Idle;
            state = match until_report {
                Some(pause) => self.wait(state, pause),
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.writer = Writer::Busy;
        }
    }

    /// Lets lines collect, unless there is enough to write or a run waits for it.
    pub(super) fn linger(&self) {
        let mut state = self.state();
        let is_urgent = state.queued > MAX_BATCH || state.chunks.iter().any(|(from, _)| matches!(from, Origin::Run(_)));
        if !is_urgent {
            state.writer = Writer::Lingers;
            self.wait(state, LINGER).writer = Writer::Busy;
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, pause: Duration) -> MutexGuard<'a, State> {
        self.arrived.wait_timeout(state, pause).map_or_else(|error| error.into_inner().0, |(state, _)| state)
    }

    /// Takes note that this number of bytes of the buffer was written, and whether the rest failed.
    pub(super) fn complete(&self, batch: Batch, buffer: &[u8], written: usize, error: Option<&io::Error>) {
        let mut left = written.saturating_sub(usize::from(batch.mends_line));
        let (mut of_runs, mut failed) = (Vec::new(), Vec::new());
        let mut state = self.state();
        for (from, len) in batch.chunks {
            let error = error.filter(|_| left < len);
            left = left.saturating_sub(len);
            state.release(&from, cost(len));
            match (from, error) {
                (Origin::Run(backlog), error) => of_runs.push((backlog, len, error)),
                (from, Some(_)) => {
                    state.lost.add(&from, len);
                    failed.push((from, len));
                }
                (_, None) => {}
            }
        }
        match error {
            Some(error) if !failed.is_empty() => {
                if !state.is_failing {
                    // The first failure is reported at once, the others when writes succeed again.
                    state.lost.error = Some(error.to_string());
                    state.is_failing = true;
                }
                let last = written.checked_sub(1).and_then(|last| buffer.get(last));
                state.is_torn |= last.map_or(batch.mends_line, |last| *last != b'\n');
            }
            Some(_) => {}
            None => state.is_failing = false,
        }
        let is_empty = state.unwritten == 0;
        drop(state);
        // Without the lock: a woken task may write at once.
        of_runs.iter().for_each(|(backlog, len, error)| backlog.complete(*len, *error));
        failed.iter().for_each(|(from, len)| self.count(from, *len));
        if is_empty {
            self.emptied.notify_all();
        }
    }

    /// Leaves the queue to a test.
    #[cfg(test)]
    pub(super) fn without_thread(&self) {
        self.state().writer = Writer::Busy;
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.state().unwritten == 0
    }

    /// Counts a lost chunk. With 0 bytes, the counter exists from then on.
    pub(super) fn count(&self, from: &Origin, len: usize) {
        let stream = self.stream.name();
        match from {
            Origin::Host => counter!(DROPPED_LOG_LINES.name, "stream" => stream).increment(u64::from(len > 0)),
            Origin::Plugin(plugin) => {
                let bytes = u64::try_from(len).unwrap_or(u64::MAX);
                counter!(DROPPED_OUTPUT.name, "plugin" => plugin.to_string(), "stream" => stream).increment(bytes);
            }
            Origin::Run(_) => {}
        }
    }

    /// Blocks until the queue is empty or the deadline has passed. Returns true if it is empty.
    pub(super) fn flush(&self, deadline: Option<Instant>) -> bool {
        self.wake(self.state(), true);
        let mut state = self.state();
        while state.unwritten > 0 {
            let left = deadline.map_or(REPORT_INTERVAL, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
        true
    }
}

impl State {
    // Decision: docs/decisions/0056-output-that-is-not-read-is-dropped-under-serve.md
    /// A quarter of the queue is the host's alone. A plugin may queue no more than what is then left free for plugins:
    /// however many plugins flood the queue, there is room for a further one.
    fn has_room(&self, from: &Origin, cost: usize) -> bool {
        let max = usize::try_from(self.max).unwrap_or(usize::MAX);
        if self.queued.saturating_add(cost) > max {
            return false;
        }
        let Origin::Plugin(plugin) = from else { return true };
        let plugins = max.saturating_sub(max / 4);
        let used = self.by_plugin.get(plugin).copied().unwrap_or(0).saturating_add(cost);
        used <= plugins.saturating_sub(self.of_plugins.saturating_add(cost))
    }

    fn charge(&mut self, from: &Origin, cost: usize) {
        if matches!(from, Origin::Run(_)) {
            return;
        }
        self.queued = self.queued.saturating_add(cost);
        if let Origin::Plugin(plugin) = from {
            self.of_plugins = self.of_plugins.saturating_add(cost);
            let used = self.by_plugin.entry(Arc::clone(plugin)).or_default();
            *used = used.saturating_add(cost);
        }
    }

    fn release(&mut self, from: &Origin, cost: usize) {
        self.unwritten = self.unwritten.saturating_sub(1);
        if matches!(from, Origin::Run(_)) {
            return;
        }
        self.queued = self.queued.saturating_sub(cost);
        if let Origin::Plugin(plugin) = from {
            self.of_plugins = self.of_plugins.saturating_sub(cost);
            if let Some(used) = self.by_plugin.get_mut(plugin) {
                *used = used.saturating_sub(cost);
                if *used == 0 {
                    self.by_plugin.remove(plugin);
                }
            }
        }
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Batch {
        buffer.clear();
        let mut batch = Batch::default();
        if self.is_torn && !matches!(self.chunks.front(), Some((Origin::Run(_), _))) {
            self.is_torn = false;
            batch.mends_line = true;
            buffer.push(b'\n');
        }
        while let Some((from, bytes)) = self.chunks.pop_front() {
            buffer.extend_from_slice(&bytes);
            batch.chunks.push((from, bytes.len()));
            if self.chunks.front().is_none_or(|(_, next)| buffer.len().saturating_add(next.len()) > MAX_BATCH) {
                break;
            }
        }
        batch
    }

    /// The time until losses are reported: at most once per interval, when writes succeed or have just failed.
    fn until_report(&self) -> Option<Duration> {
        if self.lost.is_empty() || (self.is_failing && self.lost.error.is_none()) {
            return None;
        }
        let now = Instant::now();
        Some(self.next_report.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)))
    }
}

impl Lost {
    fn add(&mut self, from: &Origin, len: usize) {
        match from {
            Origin::Host => self.lines = self.lines.saturating_add(1),
            Origin::Plugin(plugin) => {
                let lost = self.bytes.entry(Arc::clone(plugin)).or_default();
                *lost = lost.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
            }
            Origin::Run(_) => {}
        }
    }
}

fn cost(len: usize) -> usize {
    len.saturating_add(CHUNK_OVERHEAD)
}
