//! All metrics of a host: those of its caches, of plugin runs and of HTTP requests.

pub use larder_cache::metrics::*;

/// Plugins that run.
pub const INSTANCES: Metric = metric("larder_instances", Kind::Gauge, &["plugin"], "Instances of a plugin that run.");
/// Ends of plugins.
pub const RUNS: Metric = metric(
    "larder_runs_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "Runs of a plugin by their end: `returned`, `exited`, `trapped`, `cut-off` at the host's end, or the bound of \
     `[sandbox]` that stopped it.",
);
/// HTTP requests.
pub const REQUESTS: Metric = metric(
    "larder_requests_total",
    Kind::Counter,
    &["plugin", "status"],
    "HTTP requests by the class of the answer's status, `2xx` for one, or `gone` where the client did not wait; \
     `plugin` is `-` where no route fits.",
);
/// Times of HTTP requests.
pub const REQUEST_SECONDS: Metric =
    metric("larder_request_seconds", Kind::Histogram, &["plugin"], "From an HTTP request to the head of its answer.");
/// HTTP requests without a plugin.
pub const REFUSALS: Metric = metric(
    "larder_refused_requests_total",
    Kind::Counter,
    &["reason"],
    "HTTP requests that the host answered itself: `no-route`, `no-host`, `body-too-large`, `busy`, `ending`, `failed` or \
     `timed-out`.",
);
/// Outgoing HTTP requests.
pub const OUTGOING: Metric = metric(
    "larder_outgoing_requests_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "HTTP requests that a plugin sent: `answered`, `denied` as `outgoing_hosts` does not name the host, `refused` over \
     `max_outgoing_requests`, `timed-out`, `failed` otherwise, or `gone` where the plugin did not wait.",
);

/// The metrics of plugin runs and HTTP requests.
pub const OF_PLUGINS: &[Metric] = &[INSTANCES, RUNS, REQUESTS, REQUEST_SECONDS, REFUSALS, OUTGOING];

/// All metrics of a host.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    ALL.iter().chain(OF_PLUGINS)
}
