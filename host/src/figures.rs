//! The figures that an operator watches: their names, labels and meaning.
//!
//! They go through the facade of the [`metrics`] crate, so an embedder installs the recorder of the exporter he has,
//! before he connects the caches; without one they cost next to nothing. Counters and histograms are kept up as things
//! happen. What a cache holds at the moment is told when [`Caches::publish`](crate::Caches::publish) is called, which
//! is before each export. No label ever has a key or a value.

use metrics::Unit;

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name, as in Prometheus.
    pub name: &'static str,
    /// How it is to be read.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// How a figure is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the start of the process.
    Counter,
    /// How things are at the moment.
    Gauge,
    /// Times in seconds.
    Histogram,
}

impl Kind {
    /// Its word in Prometheus and in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn figure(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Figure {
    Figure { name, kind, labels, help }
}

/// The bounds of the histograms' buckets, in seconds: from what RAM takes to what a plugin may.
pub const BUCKETS: &[f64] = &[
    1e-6, 5e-6, 25e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Calls to a cache.
pub const CALLS: Figure = figure(
    "larder_calls_total",
    Kind::Counter,
    &["cache", "operation", "outcome"],
    "Calls by the operation's name in the interface. `hit` or `miss` of `get` and `get-or-set`, `stored` or `superseded` \
     of `fill`, `ok` of the others; else the error's name in the interface.",
);
/// Keys of batches.
pub const GET_MANY_KEYS: Figure = figure(
    "larder_get_many_keys_total",
    Kind::Counter,
    &["cache", "outcome"],
    "Keys that `get-many` looked for: `hit` or `miss`.",
);
/// Reads without their server.
pub const DEGRADED: Figure = figure(
    "larder_degraded_reads_total",
    Kind::Counter,
    &["cache"],
    "Reads that were answered as misses because the server was out of reach.",
);
/// Times of the backend.
pub const BACKEND_SECONDS: Figure = figure(
    "larder_backend_seconds",
    Kind::Histogram,
    &["cache", "backend", "operation"],
    "How long the backend, `ram`, `valkey` or `redis`, took for its part of a call; waits for another caller's \
     computation are not in it. Of the calls that RAM answers at once, `get`, `get-many`, `set` and hits of \
     `get-or-set`, one in 64 is timed, and counts for all of them.",
);
/// What became of get-or-set calls.
pub const GET_OR_SET: Figure = figure(
    "larder_get_or_set_total",
    Kind::Counter,
    &["cache", "event"],
    "What get-or-set calls came to: values `computed`, calls that `waited`, waits for another process \
     (`joined-remotely`), waits that `expired`, values `superseded` before they were stored, vacancies `abandoned`.",
);
/// Values being computed.
pub const VACANCIES: Figure =
    figure("larder_vacancies", Kind::Gauge, &["cache"], "Vacancies that plugins hold: values being computed here.");
/// Memory in use.
pub const RAM_BYTES: Figure =
    figure("larder_ram_bytes", Kind::Gauge, &["cache"], "What the entries of a RAM cache weigh, in bytes.");
/// Memory that may be in use.
pub const RAM_MAX_BYTES: Figure =
    figure("larder_ram_max_bytes", Kind::Gauge, &["cache"], "What they may weigh: `max_bytes`.");
/// Entries in memory.
pub const RAM_ENTRIES: Figure = figure(
    "larder_ram_entries",
    Kind::Gauge,
    &["cache"],
    "Entries of a RAM cache, expired ones included until they are swept.",
);
/// Entries dropped for others.
pub const RAM_EVICTIONS: Figure = figure(
    "larder_ram_evictions_total",
    Kind::Counter,
    &["cache"],
    "Entries that a RAM cache dropped to make room for others.",
);
/// Whether a server is reached.
pub const UP: Figure = figure(
    "larder_up",
    Kind::Gauge,
    &["cache"],
    "1 while the connections to the cache's server stand, 0 while one is lost and calls fail at once.",
);
/// Losses of a server that were made good.
pub const RECONNECTS: Figure = figure(
    "larder_reconnects_total",
    Kind::Counter,
    &["cache"],
    "Connections to the cache's server that were made anew after a loss.",
);
/// Plugins that run.
pub const INSTANCES: Figure = figure("larder_instances", Kind::Gauge, &["plugin"], "Instances of a plugin that run.");
/// Ends of plugins.
pub const RUNS: Figure = figure(
    "larder_runs_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "Runs of a plugin by their end: `returned`, `exited`, `trapped`, `cut-off` at the host's end, or the bound of \
     `[sandbox]` that stopped it.",
);
/// HTTP requests.
pub const REQUESTS: Figure = figure(
    "larder_requests_total",
    Kind::Counter,
    &["plugin", "status"],
    "HTTP requests by the class of the answer's status, `2xx` for one, or `gone` where the client did not wait; \
     `plugin` is `-` where no route fits.",
);
/// Times of HTTP requests.
pub const REQUEST_SECONDS: Figure =
    figure("larder_request_seconds", Kind::Histogram, &["plugin"], "From an HTTP request to the head of its answer.");
/// HTTP requests without a plugin.
pub const REFUSALS: Figure = figure(
    "larder_refused_requests_total",
    Kind::Counter,
    &["reason"],
    "HTTP requests that the host answered itself: `no-route`, `no-host`, `body-too-large`, `busy`, `ending`, `failed` or \
     `timed-out`.",
);
pub(crate) const OUTGOING: Figure = figure(
    "larder_outgoing_requests_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "HTTP requests that a plugin sent: `answered`, `denied` as `outgoing_hosts` does not name the host, `refused` over \
     `max_outgoing_requests`, `timed-out`, `failed` otherwise, or `gone` where the plugin did not wait.",
);

/// The values of the label `outcome` that say that a call did what it was to do; any other is an error's name.
pub const GOOD_OUTCOMES: &[&str] = &["hit", "miss", "stored", "superseded", "ok"];

/// All figures.
pub const ALL: &[Figure] = &[
    CALLS,
    GET_MANY_KEYS,
    DEGRADED,
    BACKEND_SECONDS,
    GET_OR_SET,
    VACANCIES,
    RAM_BYTES,
    RAM_MAX_BYTES,
    RAM_ENTRIES,
    RAM_EVICTIONS,
    UP,
    RECONNECTS,
    INSTANCES,
    RUNS,
    REQUESTS,
    REQUEST_SECONDS,
    REFUSALS,
    OUTGOING,
];

/// Tells the recorder what each figure says.
pub(crate) fn describe() {
    for Figure { name, kind, help, .. } in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
}
