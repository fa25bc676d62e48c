//! What the program tells of itself: the log on standard error and, with the feature `otlp`, traces for a collector.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogOptions {
    /// How the log is written, on standard error: as text, or as a JSON object a line.
    #[arg(long, global = true, value_enum, env = "LARDER_LOG_FORMAT", default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What has to be sent before the program ends.
#[derive(Debug)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otlp")]
    traces: Option<super::traces::Traces>,
}

impl Telemetry {
    /// Starts the log: warnings and worse, and of a server what it does, with the time; unless `LARDER_LOG` says otherwise, as in
    /// `larder=debug`. Starts to export traces of what runs plugins, where the environment names a collector.
    pub(crate) fn start(
        options: LogOptions,
        is_server: bool,
        runs_plugins: bool,
        runtime: &Runtime,
    ) -> anyhow::Result<Self> {
        let registry = tracing_subscriber::registry().with(log(options.log_format, is_server));
        #[cfg(feature = "otlp")]
        {
            let traces = match runs_plugins {
                true => super::traces::Traces::start(runtime.handle())?,
                false => None,
            };
            registry.with(traces.as_ref().map(super::traces::Traces::layer)).init();
            Ok(Self { traces })
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _not_needed = (runs_plugins, runtime);
            registry.init();
            Ok(Self {})
        }
    }

    /// Sends what is left.
    pub(crate) fn end(self, runtime: &Runtime) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            traces.end(runtime);
        }
        #[cfg(not(feature = "otlp"))]
        let _nothing = runtime;
    }
}

fn log(format: LogFormat, is_server: bool) -> impl Layer<Registry> {
    let mut filter = Targets::new().with_default(tracing::Level::WARN);
    if is_server {
        filter = filter.with_target("larder", tracing::Level::INFO);
    }
    if let Ok(wanted) = std::env::var("LARDER_LOG") {
        match wanted.parse() {
            Ok(wanted) => filter = wanted,
            Err(error) => eprintln!("larder: `LARDER_LOG`: {error}"),
        }
    }
    // A line that cannot be written is lost; to say so on the same stream would be a panic.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            if is_server { lines.boxed() } else { lines.without_time().boxed() }
        }
    };
    lines.with_filter(filter)
}
