//! Metrics of the runs of a plugin: the running instances, and completed runs by outcome.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics::{INSTANCES, REFUSED_WRITES, RUNS};

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
pub(crate) struct Run<'a> {
    metrics: &'a RunMetrics,
    outcome: &'static str,
}

impl RunMetrics {
    pub(crate) fn new(plugin: &str) -> Self {
        let instances = gauge!(INSTANCES.name, "plugin" => plugin.to_owned());
        let refused_writes = counter!(REFUSED_WRITES.name, "plugin" => plugin.to_owned());
        Self { plugin: plugin.to_owned(), instances, returned: Self::completed(plugin, "returned"), refused_writes }
    }

    pub(crate) fn begin(&self) -> Run<'_> {
        self.instances.increment(1);
        Run { metrics: self, outcome: "cut-off" }
    }

    fn completed(plugin: &str, outcome: &'static str) -> Counter {
        counter!(RUNS.name, "plugin" => plugin.to_owned(), "outcome" => outcome)
    }
}

impl Run<'_> {
    pub(crate) fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let RunMetrics { plugin, instances, returned, .. } = self.metrics;
        instances.decrement(1);
        match self.outcome {
            "returned" => returned.increment(1),
            outcome => RunMetrics::completed(plugin, outcome).increment(1),
        }
    }
}
