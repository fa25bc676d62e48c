//! What one cache publishes: its calls as they happen, and how it stands when asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::metrics as listed;
use crate::{BackendStatus, CacheError, GetOrSetStats};

// Decision: docs/decisions/0044-fast-path-latency-is-sampled-1-call-in-64.md
/// Of the parts that are done at once the first is timed, and then one in so many, which stands for all of them: two looks
/// at the clock take longer than most parts.
const TIMED_ONE_IN: usize = 64;

/// The handles of one cache's figures, made once so that a call need not look them up.
#[derive(Debug)]
pub(super) struct CacheMetrics {
    cache: String,
    pub(super) get: Operation,
    pub(super) get_many: Operation,
    pub(super) set: Operation,
    pub(super) set_many: Operation,
    pub(super) get_or_set: Operation,
    pub(super) fill: Operation,
    pub(super) clear: Operation,
    pub(super) clear_pattern: Operation,
    pub(super) clear_all: Operation,
    /// The keys of `get-many` that had a value, and that had none.
    keys: [Counter; 2],
    pub(super) degraded: Counter,
    vacancies: Gauge,
}

/// One operation of the interface.
#[derive(Debug)]
pub(super) struct Operation {
    cache: String,
    name: &'static str,
    /// Calls with the better outcome, and with the other one where there are two; and what these are called.
    outcomes: [Counter; 2],
    outcome_names: [&'static str; 2],
    seconds: Histogram,
    /// How many parts were done at once.
    at_once: AtomicUsize,
}

/// A vacancy in somebody's hand, for as long as this lives.
#[derive(Debug)]
pub(super) struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl CacheMetrics {
    pub(super) fn new(cache: &str, backend: &'static str) -> Self {
        let operation = |name, outcomes: [Option<&'static str>; 2]| Operation {
            cache: cache.to_owned(),
            name,
            outcomes: outcomes.map(|outcome| outcome.map_or_else(Counter::noop, |outcome| calls(cache, name, outcome))),
            outcome_names: outcomes.map(Option::unwrap_or_default),
            seconds: histogram!(
                listed::BACKEND_SECONDS.name, "cache" => cache.to_owned(), "backend" => backend, "operation" => name
            ),
            at_once: AtomicUsize::new(0),
        };
        let (found, only) = ([Some("hit"), Some("miss")], [Some("ok"), None]);
        let keys = |outcome| counter!(listed::GET_MANY_KEYS.name, "cache" => cache.to_owned(), "outcome" => outcome);
        Self {
            cache: cache.to_owned(),
            get: operation("get", found),
            get_many: operation("get-many", only),
            set: operation("set", only),
            set_many: operation("set-many", only),
            get_or_set: operation("get-or-set", found),
            fill: operation("fill", [Some("stored"), Some("superseded")]),
            clear: operation("clear", only),
            clear_pattern: operation("clear-pattern", only),
            clear_all: operation("clear-all", only),
            keys: [keys("hit"), keys("miss")],
            degraded: counter!(listed::DEGRADED.name, "cache" => cache.to_owned()),
            vacancies: gauge!(listed::VACANCIES.name, "cache" => cache.to_owned()),
        }
    }

    /// Counts the keys of a batch.
    pub(super) fn count_keys<T>(&self, values: &[Option<T>]) {
        let hits = values.iter().flatten().count();
        let [hit, miss] = &self.keys;
        hit.increment(hits as u64);
        miss.increment(values.len().saturating_sub(hits) as u64);
    }

    pub(super) fn hold(&self) -> Held {
        self.vacancies.increment(1);
        Held(self.vacancies.clone())
    }

    /// Tells what is not told as it happens.
    pub(super) fn publish(&self, standing: &BackendStatus, statistics: &GetOrSetStats) {
        let of_cache = |metric: listed::Metric| gauge!(metric.name, "cache" => self.cache.clone());
        let counted =
            |metric: listed::Metric, count| counter!(metric.name, "cache" => self.cache.clone()).absolute(count);
        match standing {
            BackendStatus::Ram { bytes, max_bytes, entries, evictions } => {
                of_cache(listed::RAM_BYTES).set(*bytes as f64);
                of_cache(listed::RAM_MAX_BYTES).set(*max_bytes as f64);
                of_cache(listed::RAM_ENTRIES).set(*entries as f64);
                counted(listed::RAM_EVICTIONS, *evictions);
            }
            BackendStatus::Server { is_up, reconnects, .. } => {
                of_cache(listed::UP).set(f64::from(u8::from(*is_up)));
                counted(listed::RECONNECTS, *reconnects);
            }
            BackendStatus::Other => {}
        }
        let GetOrSetStats { computed, waited, joined_remotely, expired, superseded, abandoned } = *statistics;
        for (event, count) in [
            ("computed", computed),
            ("waited", waited),
            ("joined-remotely", joined_remotely),
            ("expired", expired),
            ("superseded", superseded),
            ("abandoned", abandoned),
        ] {
            counter!(listed::GET_OR_SET.name, "cache" => self.cache.clone(), "event" => event).absolute(count);
        }
    }
}

impl Operation {
    /// Makes a call in a span of its own, and counts it by how it came out: well, or best.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, CacheError>>,
        is_best: impl FnOnce(&T) -> bool,
    ) -> Result<T, CacheError> {
        let span = self.span();
        let outcome = call.instrument(span.clone()).await;
        span.record("outcome", self.count(&outcome, is_best));
        outcome
    }

    /// [`Operation::call`] for one that needs no waiting.
    pub(super) fn call_at_once<T>(
        &self,
        call: impl FnOnce() -> Result<T, CacheError>,
        is_best: impl FnOnce(&T) -> bool,
    ) -> Result<T, CacheError> {
        let span = self.span();
        let outcome = if span.is_disabled() { call() } else { span.in_scope(call) };
        span.record("outcome", self.count(&outcome, is_best));
        outcome
    }

    /// No key and no value: spans go where figures go.
    fn span(&self) -> Span {
        let Self { cache, name, .. } = self;
        debug_span!(target: "larder_host::call", "call", cache, operation = name, outcome = Empty, otel.name = name)
    }

    fn count<T>(&self, outcome: &Result<T, CacheError>, is_best: impl FnOnce(&T) -> bool) -> &'static str {
        let ([best, well], [best_name, well_name]) = (&self.outcomes, self.outcome_names);
        let (counter, name) = match outcome {
            Ok(answer) if is_best(answer) => (best, best_name),
            Ok(_) => (well, well_name),
            Err(error) => {
                // Few enough to be looked up, and too many to have a handle each.
                calls(&self.cache, self.name, error.name()).increment(1);
                return error.name();
            }
        };
        counter.increment(1);
        name
    }

    /// Takes the time of the backend's part. One that is dropped half-way has none.
    pub(super) async fn timed<F: Future>(&self, part: F) -> F::Output {
        let began = Instant::now();
        let outcome = part.await;
        self.seconds.record(began.elapsed());
        outcome
    }

    /// Takes the time of one in [`TIMED_ONE_IN`] such parts.
    pub(super) fn timed_at_once<T>(&self, part: impl FnOnce() -> T) -> T {
        self.timed_at_once_if(part, |_| true)
    }

    /// The same for a part that is timed by another one where it comes to nothing.
    pub(super) fn timed_at_once_if<T>(&self, part: impl FnOnce() -> T, counts: impl FnOnce(&T) -> bool) -> T {
        let nth = self.at_once.fetch_add(1, Ordering::Relaxed);
        if !nth.is_multiple_of(TIMED_ONE_IN) {
            return part();
        }
        let began = Instant::now();
        let outcome = part();
        if counts(&outcome) {
            self.seconds.record_many(began.elapsed(), if nth == 0 { 1 } else { TIMED_ONE_IN });
        }
        outcome
    }
}

fn calls(cache: &str, operation: &'static str, outcome: &'static str) -> Counter {
    counter!(listed::CALLS.name, "cache" => cache.to_owned(), "operation" => operation, "outcome" => outcome)
}
