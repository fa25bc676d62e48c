//! Metrics of the loads and runs of a plugin: files by outcome, running instances, and completed runs by outcome.
//!
//! The series of all outcomes exist from the first load on: a rate or an alarm sees the first failure only if the series
//! was 0 before it.

use std::sync::Arc;

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics::{INSTANCES, LOADS, REFUSED_WRITES, RUNS};

/// The outcomes of a run: the label `outcome` of [`RUNS`].
const RUN_OUTCOMES: [&str; 8] =
    ["returned", "exited", "trapped", "cut-off", "timeout", "max_cpu_time", "max_memory", "max_output"];

/// The outcomes of a load: the label `outcome` of [`LOADS`].
const LOAD_OUTCOMES: [&str; 11] = [
    "compiled",
    "kept",
    "unreadable",
    "too-large",
    "too-complex",
    "invalid",
    "over-limit",
    "timed-out",
    "out-of-memory",
    "crashed",
    "killed",
];

/// Counts a load of a plugin's file by its outcome.
pub(crate) fn count_load(plugin: &str, outcome: &'static str) {
    debug_assert!(LOAD_OUTCOMES.contains(&outcome), "`{outcome}` is in no series from the start");
    let loads = |outcome| counter!(LOADS.name, "plugin" => plugin.to_owned(), "outcome" => outcome);
    LOAD_OUTCOMES.iter().for_each(|other| loads(*other).increment(0));
    loads(outcome).increment(1);
}

/// Metrics of the runs of one plugin.
#[derive(Debug)]
pub(crate) struct RunMetrics {
    plugin: String,
    instances: Gauge,
    returned: Counter,
    /// Writes over `max_dir_bytes`.
    pub(crate) refused_writes: Counter,
}

/// A run in progress. If it is dropped before its outcome is known, the run was cut off.
pub(crate) struct Run {
    metrics: Arc<RunMetrics>,
    outcome: &'static str,
}

impl RunMetrics {
    pub(crate) fn new(plugin: &str) -> Self {
        let instances = gauge!(INSTANCES.name, "plugin" => plugin.to_owned());
        let refused_writes = counter!(REFUSED_WRITES.name, "plugin" => plugin.to_owned());
        RUN_OUTCOMES.iter().for_each(|outcome| Self::completed(plugin, outcome).increment(0));
        Self { plugin: plugin.to_owned(), instances, returned: Self::completed(plugin, "returned"), refused_writes }
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Run {
        self.instances.increment(1);
        Run { metrics: Arc::clone(self), outcome: "cut-off" }
    }

    fn completed(plugin: &str, outcome: &'static str) -> Counter {
        counter!(RUNS.name, "plugin" => plugin.to_owned(), "outcome" => outcome)
    }
}

impl Run {
    pub(crate) fn end(mut self, outcome: &'static str) {
        debug_assert!(RUN_OUTCOMES.contains(&outcome), "`{outcome}` is in no series from the start");
        self.outcome = outcome;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let RunMetrics { plugin, instances, returned, .. } = &*self.metrics;
        instances.decrement(1);
        match self.outcome {
            "returned" => returned.increment(1),
            outcome => RunMetrics::completed(plugin, outcome).increment(1),
        }
    }
}
