//! `larder serve`: plugins that answer HTTP requests, and the sandbox that plugins run in.
//!
//! - `connections`: clients that send nothing, take nothing, or open more connections than there may be.
//! - `concurrent`: an instance of WASI 0.3 answers many requests at the same time.
//! - `corpus`: the inputs in the corpus of each fuzz target are handled.
//! - `shutdown`: at shutdown, running requests are finished and new ones are refused.
//! - `fairness`: a plugin with many requests leaves room and processor time for the others.
//! - `host_memory`: what a plugin makes the host hold counts against its memory, and no call holds up others.
//! - `hostile`: random sequences of hostile calls neither panic the host nor make its memory grow.
//! - `http`: HTTP correctness: what is refused, what reaches the plugin, and what goes out.
//! - `limits`: requests above the concurrency limit are answered or refused; none is lost.
//! - `loading`: a file that cannot be loaded is refused in one line while the other plugins are served.
//! - `metrics`: the metrics, `/readyz` and `/healthz` of a host.
//! - `operator`: the metrics port and signals work whatever plugins, clients and servers do.
//! - `outgoing`: which hosts a plugin's requests may reach, and what the plugin receives.
//! - `pool`: an instance finds nothing of the one before it.
//! - `reload`: a plugin's file is replaced while requests run.
//! - `requests`: what a plugin receives, what the client receives, and errors in between.
//! - `reuse`: an instance answers many requests, and what holds for each of them.
//! - `routes`: several plugins in one server, each with its path and grant, and the errors at the start.
//! - `sandbox`: what a plugin can see of the machine, and what it cannot do to the host.
//! - `service_manager`: signals before the host listens, and what it tells a service manager such as systemd.
//! - `shared`: two processes share a server.
//! - `stalled`: nobody reads stdout or stderr, they are closed, or their disk is full.
//! - `uploads`: bodies of requests that are slow, tiny, endless or broken.
//! - `telemetry`: the log on standard error, and W3C traces.

mod concurrent;
mod connections;
mod corpus;
mod fairness;
mod host_memory;
mod hostile;
mod http;
mod limits;
mod loading;
pub(crate) mod metrics;
mod operator;
mod outgoing;
mod pool;
mod reload;
mod requests;
mod reuse;
mod routes;
mod sandbox;
mod service_manager;
mod shared;
mod shutdown;
mod stalled;
mod telemetry;
mod uploads;
