//! What is told of the runs of a plugin: how many there are, and how they ended.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics as listed;

/// What is told of the runs of one plugin.
#[derive(Debug)]
pub(crate) struct Runs {
    plugin: String,
    instances: Gauge,
    returned: Counter,
}

/// A run under way: one that is dropped before its end is known was cut off.
pub(crate) struct Run<'a> {
    runs: &'a Runs,
    outcome: &'static str,
}

impl Runs {
    pub(crate) fn of(plugin: &str) -> Self {
        let instances = gauge!(listed::INSTANCES.name, "plugin" => plugin.to_owned());
        Self { plugin: plugin.to_owned(), instances, returned: Self::ended(plugin, "returned") }
    }

    pub(crate) fn begin(&self) -> Run<'_> {
        self.instances.increment(1);
        Run { runs: self, outcome: "cut-off" }
    }

    fn ended(plugin: &str, outcome: &'static str) -> Counter {
        counter!(listed::RUNS.name, "plugin" => plugin.to_owned(), "outcome" => outcome)
    }
}

impl Run<'_> {
    pub(crate) fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let Runs { plugin, instances, returned } = self.runs;
        instances.decrement(1);
        match self.outcome {
            "returned" => returned.increment(1),
            outcome => Runs::ended(plugin, outcome).increment(1),
        }
    }
}
