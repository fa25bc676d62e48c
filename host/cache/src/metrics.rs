//! The metrics of a cache: names, labels and help texts.
//!
//! They are recorded through the facade of the [`metrics`] crate. An embedder installs the recorder of an exporter
//! before it connects the caches; without one, recording costs almost nothing. Counters and histograms are updated as
//! calls happen. Gauges are set by [`Cache::publish`](crate::Cache::publish), which runs before each export. No label
//! holds a key or a value.

// Decision: docs/decisions/0032-metrics-always-go-through-the-metrics-facade.md

use metrics::Unit;

/// The description of one metric. [`metric`] constructs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name in Prometheus.
    pub name: &'static str,
    /// The type of the metric.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A total that only increases, from the start of the process.
    Counter,
    /// A current value.
    Gauge,
    /// Durations in seconds, in the buckets of [`BUCKETS`].
    Histogram,
}

impl Kind {
    /// The name of the type in Prometheus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Describes a metric by its name, type, labels and help text.
pub const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

/// The upper bounds of the histograms' buckets, in seconds: from a call on RAM to a long run of a plugin.
pub const BUCKETS: &[f64] = &[
    1e-6, 5e-6, 25e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Calls on a cache.
pub const CALLS: Metric = metric(
    "larder_calls_total",
    Kind::Counter,
    &["cache", "operation", "outcome"],
    "Calls by operation, as named in the interface; and `exists`, `list-keys`, `increment`, `read-version`, `replace` and \
     `clear-many` for those that only interfaces of other projects have. Outcomes: `hit` or `miss` for `get`, `get-or-set`, \
     `get-or-refresh`, `exists` and `read-version`, `stored` or `superseded` for `fill`, `fill-stale` and `replace`, `ok` \
     for all others; for a failed call the name of the error in the interface.",
);
/// Keys that `get-many` looked up.
pub const GET_MANY_KEYS: Metric = metric(
    "larder_get_many_keys_total",
    Kind::Counter,
    &["cache", "outcome"],
    "Keys looked up by `get-many`: `hit` or `miss`.",
);
/// Degraded reads.
pub const DEGRADED: Metric = metric(
    "larder_degraded_reads_total",
    Kind::Counter,
    &["cache"],
    "Reads served as misses because the server was unreachable.",
);
/// Durations of the backend's part of calls.
pub const BACKEND_SECONDS: Metric = metric(
    "larder_backend_seconds",
    Kind::Histogram,
    &["cache", "backend", "operation"],
    "Duration of the backend's part of a call; the backend is `ram`, `valkey` or `redis`. Waits for another caller's \
     computation are not included. Calls on the synchronous fast path of RAM (`get`, `get-many`, `set` and hits of \
     `get-or-set`) are sampled: 1 in 64 is timed and counts for all 64.",
);
/// Events of get-or-set.
pub const GET_OR_SET: Metric = metric(
    "larder_get_or_set_total",
    Kind::Counter,
    &["cache", "event"],
    "Events of get-or-set: values `computed`, calls that `waited`, waits for another process (`joined-remotely`), \
     waits that `expired`, values `superseded` before they were stored, vacancies `abandoned`.",
);
/// Stale values that `get-or-refresh` returned.
pub const STALE_VALUES: Metric = metric(
    "larder_stale_values_total",
    Kind::Counter,
    &["cache"],
    "Stale values that `get-or-refresh` returned, to the caller that refreshes and to all others.",
);
/// Refreshes of stale values.
pub const REFRESHES: Metric = metric(
    "larder_refreshes_total",
    Kind::Counter,
    &["cache", "outcome"],
    "Refreshes of stale values: `stored`; `superseded` if the key was set, filled, cleared or evicted, or expired, in \
     between; `failed` if the value could not be computed or stored, or if the server did not let a refresh begin.",
);
/// Vacancies held by plugins.
pub const VACANCIES: Metric = metric(
    "larder_vacancies",
    Kind::Gauge,
    &["cache"],
    "Vacancies held by plugins: values being computed in this process.",
);
/// The size of a RAM cache.
pub const RAM_BYTES: Metric =
    metric("larder_ram_bytes", Kind::Gauge, &["cache"], "Size of all entries of a RAM cache, in bytes.");
/// The maximum size of a RAM cache.
pub const RAM_MAX_BYTES: Metric = metric(
    "larder_ram_max_bytes",
    Kind::Gauge,
    &["cache"],
    "Maximum size of all entries of a RAM cache, in bytes: `max_bytes`.",
);
/// The entries of a RAM cache.
pub const RAM_ENTRIES: Metric = metric(
    "larder_ram_entries",
    Kind::Gauge,
    &["cache"],
    "Entries of a RAM cache, including expired ones that are not yet swept.",
);
/// Evictions from a RAM cache.
pub const RAM_EVICTIONS: Metric = metric(
    "larder_ram_evictions_total",
    Kind::Counter,
    &["cache"],
    "Entries that a RAM cache evicted to make room for others.",
);
/// Whether the connections to a server are up.
pub const UP: Metric = metric(
    "larder_up",
    Kind::Gauge,
    &["cache"],
    "1 if all connections to the cache's server are up, 0 while one is lost and calls fail immediately.",
);
/// Re-established connections to a server.
pub const RECONNECTS: Metric = metric(
    "larder_reconnects_total",
    Kind::Counter,
    &["cache"],
    "Connections to the cache's server that were re-established after a loss.",
);
/// Look-ups in a near tier.
pub const NEAR_LOOKUPS: Metric = metric(
    "larder_near_lookups_total",
    Kind::Counter,
    &["cache", "outcome"],
    "Keys looked up in a near tier: `hit` if the value was near, `miss` if the server was asked.",
);
/// The size of a near tier.
pub const NEAR_BYTES: Metric =
    metric("larder_near_bytes", Kind::Gauge, &["cache"], "Size of all entries of a near tier, in bytes.");
/// The maximum size of a near tier.
pub const NEAR_MAX_BYTES: Metric = metric(
    "larder_near_max_bytes",
    Kind::Gauge,
    &["cache"],
    "Maximum size of all entries of a near tier, in bytes: `max_bytes` of `near`.",
);
/// The entries of a near tier.
pub const NEAR_ENTRIES: Metric = metric(
    "larder_near_entries",
    Kind::Gauge,
    &["cache"],
    "Entries of a near tier, including those that are not served any more and not yet swept.",
);
/// Evictions from a near tier.
pub const NEAR_EVICTIONS: Metric = metric(
    "larder_near_evictions_total",
    Kind::Counter,
    &["cache"],
    "Entries that a near tier evicted to make room for others.",
);
/// Announced changes.
pub const NEAR_INVALIDATIONS: Metric = metric(
    "larder_near_invalidations_total",
    Kind::Counter,
    &["cache"],
    "Keys that the server announced as changed to a near tier.",
);
/// Events after which nothing that was read over a connection is served near.
pub const NEAR_FLUSHES: Metric = metric(
    "larder_near_flushes_total",
    Kind::Counter,
    &["cache", "cause"],
    "Events after which nothing that was read over a connection is served near: all keys were removed or \
     a cluster node lost slots (`flush`), or the connection was lost (`loss`).",
);
/// The age of the horizon.
pub const NEAR_HORIZON: Metric = metric(
    "larder_near_horizon_seconds",
    Kind::Gauge,
    &["cache"],
    "How long ago all announcements to a near tier are known to have arrived, for the connection for which it is longest. \
     Over `max_staleness` nothing is served near; `NaN` while no connection announces.",
);
/// The bound on the age of the horizon.
pub const NEAR_MAX_STALENESS: Metric = metric(
    "larder_near_max_staleness_seconds",
    Kind::Gauge,
    &["cache"],
    "The age of the horizon over which nothing is served near: `max_staleness` of `near`.",
);
/// The values of the label `outcome` for calls that succeeded. Every other value is the name of an error.
pub const GOOD_OUTCOMES: &[&str] = &["hit", "miss", "stored", "superseded", "ok"];

/// All metrics of a cache.
pub const ALL: &[Metric] = &[
    CALLS,
    GET_MANY_KEYS,
    DEGRADED,
    BACKEND_SECONDS,
    GET_OR_SET,
    STALE_VALUES,
    REFRESHES,
    VACANCIES,
    RAM_BYTES,
    RAM_MAX_BYTES,
    RAM_ENTRIES,
    RAM_EVICTIONS,
    UP,
    RECONNECTS,
    NEAR_LOOKUPS,
    NEAR_BYTES,
    NEAR_MAX_BYTES,
    NEAR_ENTRIES,
    NEAR_EVICTIONS,
    NEAR_INVALIDATIONS,
    NEAR_FLUSHES,
    NEAR_HORIZON,
    NEAR_MAX_STALENESS,
];

/// Registers the help text and unit of each metric with the recorder.
pub fn describe(metrics: &[Metric]) {
    for Metric { name, kind, help, .. } in metrics {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
}
