//! All metrics of a host: those of its caches, of plugin runs and of HTTP requests.

pub use larder_cache::metrics::*;

/// Plugins that run.
pub const INSTANCES: Metric = metric("larder_instances", Kind::Gauge, &["plugin"], "Running instances of a plugin.");
/// Instances that wait for a request.
pub const IDLE_INSTANCES: Metric = metric(
    "larder_idle_instances",
    Kind::Gauge,
    &["plugin"],
    "Instances of a plugin with `reuse` that wait for a request.",
);
/// New instances.
pub const CREATED_INSTANCES: Metric = metric(
    "larder_created_instances_total",
    Kind::Counter,
    &["plugin"],
    "Instances of a plugin with `reuse` that were created because none was idle.",
);
/// Requests without a new instance.
pub const REUSED_INSTANCES: Metric = metric(
    "larder_reused_instances_total",
    Kind::Counter,
    &["plugin"],
    "Requests to a plugin with `reuse` that got an idle instance.",
);
/// Ends of instances.
pub const ENDED_INSTANCES: Metric = metric(
    "larder_ended_instances_total",
    Kind::Counter,
    &["plugin", "reason"],
    "Ends of instances that may answer many requests: after `requests`, `idle` or `max_age`; `full` if less than a quarter of \
     a bound of the instance was left, `open` if an HTTP message was not finished, `displaced` if another request needed \
     the place, `closed` by a reload or at shutdown, or `stopped` after a trap, an exit or a limit of the request.",
);
/// Ends of plugins.
pub const RUNS: Metric = metric(
    "larder_runs_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "Completed runs of a plugin: `returned`, `exited`, `trapped`, `cut-off` when the host shut down, or the limit of \
     `[sandbox]` that stopped the run.",
);
/// Files of plugins that were loaded or refused.
pub const LOADS: Metric = metric(
    "larder_plugin_loads_total",
    Kind::Counter,
    &["plugin", "outcome"],
    "Files of a plugin that were `compiled`, were taken from the directory of compiled plugins (`kept`), or were \
     refused: `unreadable`, `too-large` for `max_plugin_bytes`, `too-complex`, `invalid`, `over-limit` for what one \
     instance may need, `timed-out` or `out-of-memory` during compilation, `crashed` if the compiler did, or `killed` if \
     something else ended it.",
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
    "HTTP requests that the host answered without a response from a plugin: `no-route`, `no-host`, `no-target`, \
     `method`, `body-too-large`, `broken-body`, `slow-body`, `busy`, `plugin-busy` over the \
     plugin's own `max_concurrent_requests`, `ending`, `failed` or `timed-out`.",
);
/// Open connections.
pub const CONNECTIONS: Metric = metric("larder_connections", Kind::Gauge, &[], "Open HTTP connections.");
/// Connections that the host closed.
pub const CONNECTIONS_CLOSED: Metric = metric(
    "larder_closed_connections_total",
    Kind::Counter,
    &["reason"],
    "HTTP connections that the host closed: `head-timeout` without a request in time, `idle` between two requests, \
     `write-timeout` if the client took nothing of an answer, `over-limit` if idle when another needed its place, \
     `no-room` if no other was idle, or `malformed`.",
);
/// Answers of HTTP/2 that the client did not take.
pub const UNTAKEN_ANSWERS: Metric = metric(
    "larder_untaken_answers_total",
    Kind::Counter,
    &[],
    "Answers over HTTP/2 that were broken off because the client took nothing of them.",
);
/// Bodies of requests that the client did not send.
pub const SLOW_UPLOADS: Metric = metric(
    "larder_slow_uploads_total",
    Kind::Counter,
    &[],
    "Bodies of requests that were given up because the client sent too little of them while a plugin waited.",
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

/// Lost output of plugins.
pub const DROPPED_OUTPUT: Metric = metric(
    "larder_dropped_output_bytes_total",
    Kind::Counter,
    &["plugin", "stream"],
    "Bytes that plugins printed during requests and that the host dropped, because the stream, `stdout` or `stderr`, \
     was not read, was closed, or was on a full disk.",
);
/// Lost log lines.
pub const DROPPED_LOG_LINES: Metric = metric(
    "larder_dropped_log_lines_total",
    Kind::Counter,
    &["stream"],
    "Lines of the host itself, such as its log on `stderr`, that it dropped for the same reasons.",
);

/// The metrics of plugin runs and HTTP requests.
pub const OF_PLUGINS: &[Metric] = &[
    INSTANCES,
    IDLE_INSTANCES,
    CREATED_INSTANCES,
    REUSED_INSTANCES,
    ENDED_INSTANCES,
    RUNS,
    LOADS,
    REFUSED_WRITES,
    REQUESTS,
    REQUEST_SECONDS,
    REFUSALS,
    CONNECTIONS,
    CONNECTIONS_CLOSED,
    UNTAKEN_ANSWERS,
    SLOW_UPLOADS,
    OUTGOING,
    DROPPED_OUTPUT,
    DROPPED_LOG_LINES,
];

/// The version of the program.
pub const BUILD_INFO: Metric = metric(
    "larder_build_info",
    Kind::Gauge,
    &["version"],
    "Always 1. The label is the version of the program `larder`.",
);
/// The processor time of the process.
pub const PROCESS_CPU_SECONDS: Metric = metric(
    "process_cpu_seconds_total",
    Kind::Counter,
    &[],
    "Processor time of the process, in user and system mode, in seconds.",
);
/// The memory of the process.
pub const PROCESS_RESIDENT_MEMORY: Metric =
    metric("process_resident_memory_bytes", Kind::Gauge, &[], "Memory of the process, in bytes.");
/// The address space of the process.
pub const PROCESS_VIRTUAL_MEMORY: Metric = metric(
    "process_virtual_memory_bytes",
    Kind::Gauge,
    &[],
    "Address space of the process, in bytes. Much more than its memory: each instance reserves address space.",
);
/// The open file descriptors.
pub const PROCESS_OPEN_FDS: Metric =
    metric("process_open_fds", Kind::Gauge, &[], "Open file descriptors of the process.");
/// The limit of the file descriptors.
pub const PROCESS_MAX_FDS: Metric =
    metric("process_max_fds", Kind::Gauge, &[], "Maximum number of open file descriptors of the process.");
/// The threads of the process.
pub const PROCESS_THREADS: Metric = metric("process_threads", Kind::Gauge, &[], "Threads of the process.");
/// The start of the process.
pub const PROCESS_START_TIME: Metric = metric(
    "process_start_time_seconds",
    Kind::Gauge,
    &[],
    "Start time of the process, in seconds since the Unix epoch.",
);

/// The metrics that the program `larder` adds: its version, and its process as Linux describes it in `/proc`. The names
/// of the latter are those of the client libraries of Prometheus.
pub const OF_PROGRAM: &[Metric] = &[
    BUILD_INFO,
    PROCESS_CPU_SECONDS,
    PROCESS_RESIDENT_MEMORY,
    PROCESS_VIRTUAL_MEMORY,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_THREADS,
    PROCESS_START_TIME,
];

/// All metrics of a host.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    ALL.iter().chain(OF_PLUGINS).chain(OF_PROGRAM)
}
