//! The log on stderr and, with the feature `otlp`, the export of traces.

use std::io::IsTerminal;

use clap::{ArgAction, Args, ValueEnum};
use tokio::runtime::Runtime;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

use crate::log_line::{LogWriter, print_error};

/// The prefix of the log targets of all crates of this project: `larder`, `larder_cache` and `larder_host`. A filter
/// for a target also applies to all targets that begin with it.
pub(crate) const TARGET: &str = "larder";

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogOptions {
    /// Format of the log on stderr
    #[arg(long, value_name = "FORMAT", global = true, value_enum, env = "LARDER_LOG_FORMAT", default_value_t)]
    log_format: LogFormat,
    /// Log errors only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Log what the host does; twice, also why calls failed
    #[arg(long, short, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The running log and trace export.
#[derive(Debug)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otlp")]
    traces: Option<crate::traces::TraceExporter>,
}

impl Telemetry {
    /// Starts the log. With the feature `otlp`, also exports traces if the command runs plugins and the environment
    /// names a collector.
    ///
    /// # Errors
    ///
    /// If the environment names a collector that cannot be used; the operator must correct the variable.
    pub(crate) fn start(
        options: LogOptions,
        is_server: bool,
        runs_plugins: bool,
        runtime: &Runtime,
    ) -> anyhow::Result<Self> {
        let (layer, filter) = (log_layer(options.log_format, is_server), options.filter(is_server));
        let registry = tracing_subscriber::registry();
        #[cfg(feature = "otlp")]
        {
            let traces = match runs_plugins {
                true => crate::traces::TraceExporter::start(runtime.handle())?,
                false => None,
            };
            match &traces {
                // The exporter gets spans that the log does not.
                Some(traces) => registry.with(layer.with_filter(filter)).with(traces.layer()).init(),
                None => registry.with(layer).with(filter).init(),
            }
            Ok(Self { traces })
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _unused = (runs_plugins, runtime);
            // A filter of the whole registry costs each span less than one of a layer.
            registry.with(layer).with(filter).init();
            Ok(Self {})
        }
    }

    /// Exports the remaining traces.
    pub(crate) fn shut_down(self, runtime: &Runtime) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            traces.shut_down(runtime);
        }
        #[cfg(not(feature = "otlp"))]
        let _unused = runtime;
    }
}

fn log_layer(format: LogFormat, is_server: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = fmt::layer().with_writer(move || LogWriter(format)).log_internal_errors(false);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => {
            let layer = layer.with_ansi(std::io::stderr().is_terminal() && has_colors());
            if is_server { layer.boxed() } else { layer.without_time().boxed() }
        }
    }
}

/// False if the environment asks for no colours: `NO_COLOR` is set and not empty.
pub(crate) fn has_colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl LogOptions {
    /// The options as a command line, for another `larder` process.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        let mut arguments = match self.log_format {
            LogFormat::Text => Vec::new(),
            LogFormat::Json => vec!["--log-format", "json"],
        };
        arguments.extend(self.quiet.then_some("--quiet"));
        arguments.extend((0..self.verbose).map(|_| "--verbose"));
        arguments
    }

    /// The filter that the options ask for, which precede the environment.
    fn filter(self, is_server: bool) -> Targets {
        let of_larder =
            |level| Targets::new().with_default(Level::WARN).with_target("h2", Level::ERROR).with_target(TARGET, level);
        match (self.quiet, self.verbose) {
            (true, _) => Targets::new().with_default(Level::ERROR),
            (false, 0) => log_filter(is_server),
            (false, 1) => of_larder(Level::INFO),
            (false, _) => of_larder(Level::DEBUG),
        }
    }
}

/// The filter in `LARDER_LOG`, such as `larder=debug`, or the default.
fn log_filter(is_server: bool) -> Targets {
    if let Ok(filter) = std::env::var("LARDER_LOG") {
        match filter.parse() {
            Ok(filter) => return filter,
            Err(error) => print_error(&format!("`LARDER_LOG`: {error}; using the default filter")),
        }
    }
    default_filter(is_server)
}

/// Warnings and errors of every crate; for a server also what Larder's crates log at `info`. Of `h2` errors only: it warns
/// of what any client may do, such as resetting many streams, as often as the client likes.
fn default_filter(is_server: bool) -> Targets {
    let filter = Targets::new().with_default(Level::WARN).with_target("h2", Level::ERROR);
    if is_server { filter.with_target(TARGET, Level::INFO) } else { filter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_logs_information_of_every_larder_crate_by_default() {
        for target in ["larder", "larder_cache::valkey", "larder_host::access"] {
            assert!(default_filter(true).would_enable(target, &Level::INFO), "{target}");
            assert!(!default_filter(true).would_enable(target, &Level::DEBUG), "{target}");
            assert!(!default_filter(false).would_enable(target, &Level::INFO), "{target}");
        }
        assert!(!default_filter(true).would_enable("hyper", &Level::INFO));
        assert!(default_filter(true).would_enable("hyper", &Level::WARN));
        assert!(!default_filter(true).would_enable("h2::proto::streams::recv", &Level::WARN));
        assert!(default_filter(true).would_enable("h2::proto::streams::recv", &Level::ERROR));
    }

    #[test]
    fn options_ask_for_fewer_and_for_more_lines() {
        let filter = |quiet, verbose| LogOptions { log_format: LogFormat::Text, quiet, verbose }.filter(false);
        assert!(!filter(true, 0).would_enable("larder", &Level::WARN));
        assert!(filter(true, 0).would_enable("larder", &Level::ERROR));
        assert!(filter(false, 1).would_enable("larder_host::linker", &Level::INFO));
        assert!(!filter(false, 1).would_enable("larder_host::linker", &Level::DEBUG));
        assert!(filter(false, 2).would_enable("larder_host::linker", &Level::DEBUG));
        assert!(!filter(false, 2).would_enable("hyper", &Level::INFO));
    }

    #[test]
    fn a_filter_for_larder_applies_to_every_larder_crate() {
        let filter: Targets = "larder=debug".parse().unwrap();
        for target in ["larder", "larder_cache::valkey", "larder_host::linker"] {
            assert!(filter.would_enable(target, &Level::DEBUG), "{target}");
        }
        assert!(!filter.would_enable("hyper", &Level::ERROR));
    }
}
