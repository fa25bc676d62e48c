//! The plugins of a host: their counts, their rates, and the columns that show them.

use super::columns::{count, latency, name, rate};
use super::latency::{Buckets, Latency};

/// The metrics of a plugin that answers requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PluginCounts {
    pub(super) requests: f64,
    /// Requests that were answered with a status from 500 on.
    pub(super) failed: f64,
    /// Running instances.
    pub(super) running: f64,
    /// Instances that wait for a request. `None` for a plugin without `reuse`.
    pub(super) idle: Option<f64>,
    /// The time from a request to the head of its response.
    pub(super) latency: Buckets,
}

/// The counts and rates of a plugin.
#[derive(Debug, PartialEq)]
pub(super) struct PluginStats {
    pub(super) name: String,
    pub(super) counts: PluginCounts,
    /// `None` after the first snapshot.
    pub(super) rates: Option<PluginRates>,
}

/// The rates of a plugin between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PluginRates {
    /// Requests per second.
    pub(super) requests: f64,
    /// Failed requests per second.
    pub(super) failed: f64,
    /// The median time to the head of a response. `None` without a request.
    pub(super) p50: Option<Latency>,
    pub(super) p99: Option<Latency>,
}

impl PluginRates {
    pub(super) fn new(counts: &PluginCounts, earlier: &PluginCounts, seconds: f64) -> Self {
        let latency = counts.latency.since(&earlier.latency);
        Self {
            requests: (counts.requests - earlier.requests).max(0.0) / seconds,
            failed: (counts.failed - earlier.failed).max(0.0) / seconds,
            p50: latency.percentile(0.5),
            p99: latency.percentile(0.99),
        }
    }
}

impl PluginStats {
    /// True if requests to it have just failed.
    pub(super) fn is_failing(&self) -> bool {
        self.rates.is_some_and(|rates| rates.failed > 0.0)
    }
}

/// A column.
#[derive(Debug)]
pub(super) struct PluginColumn {
    pub(super) heading: &'static str,
    pub(super) cell: fn(&PluginStats) -> String,
}

/// The columns. All but the first have numbers.
pub(super) const PLUGIN_COLUMNS: [PluginColumn; 7] = [
    PluginColumn { heading: "PLUGIN", cell: |plugin| name(&plugin.name) },
    PluginColumn { heading: "REQUESTS/S", cell: |plugin| rate(plugin.rates.map(|rates| rates.requests)) },
    PluginColumn { heading: "5XX/S", cell: |plugin| rate(plugin.rates.map(|rates| rates.failed)) },
    PluginColumn { heading: "P50", cell: |plugin| latency(plugin.rates.and_then(|rates| rates.p50)) },
    PluginColumn { heading: "P99", cell: |plugin| latency(plugin.rates.and_then(|rates| rates.p99)) },
    PluginColumn { heading: "RUNNING", cell: |plugin| count(Some(plugin.counts.running)) },
    PluginColumn { heading: "IDLE", cell: |plugin| count(plugin.counts.idle) },
];
