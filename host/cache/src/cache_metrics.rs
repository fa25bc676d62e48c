//! Metrics of one cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::backend::{BackendStatus, KeyPage, NearStatus};
use crate::error::{CacheError, PluginError};
use crate::get_or_set::stats::{GetOrSetStats, RefreshStats};
use crate::metrics::{self as names, Metric};

// Decision: docs/decisions/0044-fast-path-latency-is-sampled-1-call-in-64.md
/// Sampling of synchronous calls: the first is timed, and then 1 in 64. Two readings of the clock take longer than most
/// of these calls.
const SAMPLE_INTERVAL: usize = 64;

/// The handles of one cache's metrics, created once so that calls need not look them up.
#[derive(Debug)]
pub(crate) struct CacheMetrics {
    cache: String,
    pub(crate) get: Operation,
    pub(crate) get_many: Operation,
    pub(crate) set: Operation,
    pub(crate) set_many: Operation,
    pub(crate) get_or_set: Operation,
    pub(crate) fill: Operation,
    pub(crate) get_or_refresh: Operation,
    pub(crate) fill_stale: Operation,
    pub(crate) clear: Operation,
    pub(crate) clear_pattern: Operation,
    pub(crate) clear_all: Operation,
    pub(crate) exists: Operation,
    pub(crate) list_keys: Operation,
    pub(crate) increment: Operation,
    pub(crate) read_version: Operation,
    pub(crate) replace: Operation,
    pub(crate) clear_many: Operation,
    /// The hits and misses among the keys of `get-many`.
    keys: [Counter; 2],
    pub(crate) degraded: Counter,
    vacancies: Gauge,
}

/// Metrics of one operation of the interface.
#[derive(Debug)]
pub(crate) struct Operation {
    cache: String,
    name: &'static str,
    /// The outcomes of successful calls by [`Reply::is_positive`], positive first, and their counters.
    outcomes: [(&'static str, Counter); 2],
    seconds: Histogram,
    /// The number of synchronous backend calls, for the sampling.
    sync_calls: AtomicUsize,
}

/// What a successful call returns. It selects one of the two outcomes of an [`Operation`].
pub(crate) trait Reply {
    /// True for the outcomes `hit`, `stored` and `ok`; false for `miss` and `superseded`.
    fn is_positive(&self) -> bool {
        true
    }
}

impl Reply for () {}
impl Reply for u64 {}
impl Reply for i64 {}
impl Reply for KeyPage {}
impl Reply for Vec<Option<Bytes>> {}
impl Reply for Vec<String> {}

impl Reply for bool {
    fn is_positive(&self) -> bool {
        *self
    }
}

impl<T> Reply for Option<T> {
    fn is_positive(&self) -> bool {
        self.is_some()
    }
}

/// Counts one held vacancy until it is dropped.
#[derive(Debug)]
pub(crate) struct VacancyCount(Gauge);

impl Drop for VacancyCount {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl CacheMetrics {
    pub(crate) fn new(cache: &str, backend: &'static str) -> Self {
        let operation = |name, outcomes: [&'static str; 2]| {
            // A rate or an alarm sees the first error only if the series was 0 before it.
            PluginError::NAMES.iter().for_each(|error| calls(cache, name, error).increment(0));
            Operation {
                cache: cache.to_owned(),
                name,
                outcomes: outcomes.map(|outcome| (outcome, calls(cache, name, outcome))),
                seconds: histogram!(
                    names::BACKEND_SECONDS.name, "cache" => cache.to_owned(), "backend" => backend, "operation" => name
                ),
                sync_calls: AtomicUsize::new(0),
            }
        };
        let (found, ok) = (["hit", "miss"], ["ok", "ok"]);
        let keys = |outcome| counter!(names::GET_MANY_KEYS.name, "cache" => cache.to_owned(), "outcome" => outcome);
        Self {
            cache: cache.to_owned(),
            get: operation("get", found),
            get_many: operation("get-many", ok),
            set: operation("set", ok),
            set_many: operation("set-many", ok),
            get_or_set: operation("get-or-set", found),
            fill: operation("fill", ["stored", "superseded"]),
            get_or_refresh: operation("get-or-refresh", found),
            fill_stale: operation("fill-stale", ["stored", "superseded"]),
            clear: operation("clear", ok),
            clear_pattern: operation("clear-pattern", ok),
            clear_all: operation("clear-all", ok),
            exists: operation("exists", found),
            list_keys: operation("list-keys", ok),
            increment: operation("increment", ok),
            read_version: operation("read-version", found),
            replace: operation("replace", ["stored", "superseded"]),
            clear_many: operation("clear-many", ok),
            keys: [keys("hit"), keys("miss")],
            degraded: counter!(names::DEGRADED.name, "cache" => cache.to_owned()),
            vacancies: gauge!(names::VACANCIES.name, "cache" => cache.to_owned()),
        }
    }

    /// Counts the hits and misses among the keys of a batch.
    pub(crate) fn count_keys<T>(&self, values: &[Option<T>]) {
        let hits = values.iter().flatten().count();
        let [hit, miss] = &self.keys;
        hit.increment(hits as u64);
        miss.increment(values.len().saturating_sub(hits) as u64);
    }

    pub(crate) fn count_vacancy(&self) -> VacancyCount {
        self.vacancies.increment(1);
        VacancyCount(self.vacancies.clone())
    }

    /// Sets the metrics that are not recorded as calls happen.
    pub(crate) fn publish(&self, status: &BackendStatus, stats: &GetOrSetStats, refreshes: &RefreshStats) {
        let set = |metric: Metric, value: f64| gauge!(metric.name, "cache" => self.cache.clone()).set(value);
        let count = |metric: Metric, total| counter!(metric.name, "cache" => self.cache.clone()).absolute(total);
        match status {
            BackendStatus::Ram { bytes, max_bytes, entries, evictions } => {
                set(names::RAM_BYTES, *bytes as f64);
                set(names::RAM_MAX_BYTES, *max_bytes as f64);
                set(names::RAM_ENTRIES, *entries as f64);
                count(names::RAM_EVICTIONS, *evictions);
            }
            BackendStatus::Server { is_up, reconnects, .. } => {
                set(names::UP, f64::from(u8::from(*is_up)));
                count(names::RECONNECTS, *reconnects);
            }
            BackendStatus::Other => {}
        }
        let GetOrSetStats { computed, waited, joined_remotely, expired, superseded, abandoned } = *stats;
        for (event, total) in [
            ("computed", computed),
            ("waited", waited),
            ("joined-remotely", joined_remotely),
            ("expired", expired),
            ("superseded", superseded),
            ("abandoned", abandoned),
        ] {
            counter!(names::GET_OR_SET.name, "cache" => self.cache.clone(), "event" => event).absolute(total);
        }
        let RefreshStats { stale, stored, superseded, failed } = *refreshes;
        count(names::STALE_VALUES, stale);
        for (outcome, total) in [("stored", stored), ("superseded", superseded), ("failed", failed)] {
            counter!(names::REFRESHES.name, "cache" => self.cache.clone(), "outcome" => outcome).absolute(total);
        }
    }
}

impl CacheMetrics {
    /// Sets the metrics of a near tier.
    pub(crate) fn publish_near(&self, status: &NearStatus) {
        let cache = || self.cache.clone();
        let set = |metric: Metric, value: f64| gauge!(metric.name, "cache" => cache()).set(value);
        set(names::NEAR_BYTES, status.bytes as f64);
        set(names::NEAR_MAX_BYTES, status.max_bytes as f64);
        set(names::NEAR_ENTRIES, status.entries as f64);
        // Without an announcing connection nothing is served near, and there is no age.
        set(names::NEAR_HORIZON, status.horizon_age.map_or(f64::NAN, |age| age.as_secs_f64()));
        set(names::NEAR_MAX_STALENESS, status.max_staleness.as_secs_f64());
        counter!(names::NEAR_EVICTIONS.name, "cache" => cache()).absolute(status.evictions);
        counter!(names::NEAR_INVALIDATIONS.name, "cache" => cache()).absolute(status.invalidations);
        for (outcome, total) in [("hit", status.hits), ("miss", status.misses)] {
            counter!(names::NEAR_LOOKUPS.name, "cache" => cache(), "outcome" => outcome).absolute(total);
        }
        for (cause, total) in [("flush", status.flushes), ("loss", status.losses)] {
            counter!(names::NEAR_FLUSHES.name, "cache" => cache(), "cause" => cause).absolute(total);
        }
    }
}

impl Operation {
    /// Makes a call in a span, and counts it by its outcome.
    pub(crate) async fn call<T: Reply>(
        &self,
        call: impl Future<Output = Result<T, CacheError>>,
    ) -> Result<T, CacheError> {
        let span = self.span();
        if span.is_disabled() {
            let outcome = call.await;
            self.count(&outcome);
            return outcome;
        }
        let outcome = call.instrument(span.clone()).await;
        span.record("outcome", self.count(&outcome));
        outcome
    }

    /// [`Operation::call`] for a synchronous call.
    pub(crate) fn call_sync<T: Reply>(&self, call: impl FnOnce() -> Result<T, CacheError>) -> Result<T, CacheError> {
        let span = self.span();
        // To record a field, it is searched by its name even if the span is disabled.
        if span.is_disabled() {
            let outcome = call();
            self.count(&outcome);
            return outcome;
        }
        let outcome = span.in_scope(call);
        span.record("outcome", self.count(&outcome));
        outcome
    }

    /// The span has no key and no value, because spans leave the host as metrics do.
    fn span(&self) -> Span {
        let Self { cache, name, .. } = self;
        debug_span!(target: "larder_host::call", "call", cache, operation = name, outcome = Empty, otel.name = name)
    }

    fn count<T: Reply>(&self, outcome: &Result<T, CacheError>) -> &'static str {
        let [positive, negative] = &self.outcomes;
        let (name, counter) = match outcome {
            Ok(reply) if reply.is_positive() => positive,
            Ok(_) => negative,
            Err(error) => {
                // Errors are too rare to keep a handle for each. Their series exist: `CacheMetrics::new`.
                let name = error.handling().outcome();
                calls(&self.cache, self.name, name).increment(1);
                return name;
            }
        };
        counter.increment(1);
        name
    }

    /// Times the backend's part of a call. A part that is dropped before it completes is not recorded.
    pub(crate) async fn timed<F: Future>(&self, part: F) -> F::Output {
        let began = Instant::now();
        let outcome = part.await;
        self.seconds.record(began.elapsed());
        outcome
    }

    /// Times 1 in [`SAMPLE_INTERVAL`] synchronous parts.
    pub(crate) fn timed_sync<T>(&self, part: impl FnOnce() -> T) -> T {
        self.timed_sync_if(part, |_| true)
    }

    /// [`Operation::timed_sync`] for a part that is recorded only if `is_recorded` accepts its result.
    pub(crate) fn timed_sync_if<T>(&self, part: impl FnOnce() -> T, is_recorded: impl FnOnce(&T) -> bool) -> T {
        // Two threads may read the same number. Both are then timed or neither, so that the samples stay 1 in 64; an atomic
        // addition would take longer than the rest of the look-up's metrics.
        let earlier = self.sync_calls.load(Ordering::Relaxed);
        self.sync_calls.store(earlier.wrapping_add(1), Ordering::Relaxed);
        if !earlier.is_multiple_of(SAMPLE_INTERVAL) {
            return part();
        }
        let began = Instant::now();
        let outcome = part();
        if is_recorded(&outcome) {
            // A sample counts for all calls since the last one; there are none before the first.
            self.seconds.record_many(began.elapsed(), if earlier == 0 { 1 } else { SAMPLE_INTERVAL });
        }
        outcome
    }
}

fn calls(cache: &str, operation: &'static str, outcome: &'static str) -> Counter {
    counter!(names::CALLS.name, "cache" => cache.to_owned(), "operation" => operation, "outcome" => outcome)
}
