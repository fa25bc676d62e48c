//! All metrics of a host: those of its caches, of plugin runs and of HTTP requests.

pub use larder_cache::metrics::*;

/// Plugins that run.
pub const INSTANCES: Metric = metric("larder_instances", Kind::Gauge, &["plugin"], "Running instances of a plugin.");
/// Ends of plugins.
pub const RUNS: Metric = metric(
    "larder_runs_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "Completed runs of a plugin: `returned`, `exited`, `trapped`, `cut-off` when the host shut down, or the limit of \
     `[sandbox]` that stopped the run.",
);
/// Writes over `max_dir_bytes`.
pub const REFUSED_WRITES: Metric = metric(
    "larder_refused_writes_total",
    Kind::Counter,
    &["plugin"],
    "Writes below a directory of a plugin that were refused over `max_dir_bytes`.",
);
/// HTTP requests.
pub const REQUESTS: Metric = metric(
    "larder_requests_total",
    Kind::Counter,
    &["plugin", "status"],
    "HTTP requests by status class, such as `2xx`, or `gone` if the client disconnected first; `plugin` is `-` if no \
     route matches.",
);
/// Times of HTTP requests.
pub const REQUEST_SECONDS: Metric = metric(
    "larder_request_seconds",
    Kind::Histogram,
    &["plugin"],
    "Time from an HTTP request to the head of its response.",
);
/// HTTP requests without a plugin.
pub const REFUSALS: Metric = metric(
    "larder_refused_requests_total",
    Kind::Counter,
    &["reason"],
    "HTTP requests that the host answered without a response from a plugin: `no-route`, `no-host`, `body-too-large`, \
     `busy`, `ending`, `failed` or `timed-out`.",
);
/// Outgoing HTTP requests.
pub const OUTGOING: Metric = metric(
    "larder_outgoing_requests_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "HTTP requests sent by a plugin: `answered`, `denied` because `outgoing_hosts` does not name the host, `refused` \
     over `max_outgoing_requests`, `timed-out`, `gone` if the plugin stopped waiting, or `failed` for any other \
     reason.",
);

/// The metrics of plugin runs and HTTP requests.
pub const OF_PLUGINS: &[Metric] = &[INSTANCES, RUNS, REFUSED_WRITES, REQUESTS, REQUEST_SECONDS, REFUSALS, OUTGOING];

/// All metrics of a host.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    ALL.iter().chain(OF_PLUGINS)
}
