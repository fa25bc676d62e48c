//! The `larder` program: parses the command line, starts the log, runs a command, and exits with its status.

// A plugin, a file or a server may control any value here.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod commands;
mod metrics_server;
mod metrics_url;
mod signals;
mod telemetry;
#[cfg(feature = "otlp")]
mod traces;

use std::process::ExitCode;

use clap::Parser;
use larder_host::Error;
use larder_host::cache::text::one_line;

use telemetry::Telemetry;

/// The exit status for errors in the command line or the configuration. Failures at run time exit with 1.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before any thread is started, and before the command line is parsed: it is on the way of each new plugin.
    if let Some(status) = commands::compile_plugin::run() {
        return status;
    }
    let cli = commands::Cli::parse();
    let (is_server, runs_plugins, log) = (cli.is_server(), cli.runs_plugins(), cli.log);
    let mut runtime = if is_server {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        // One plugin runs at a time and yields often, so one thread is enough for it and the connections.
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("larder: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = Telemetry::start(log, is_server, runs_plugins, &runtime).and_then(|telemetry| {
        let outcome = runtime.block_on(commands::run(cli));
        telemetry.shut_down(&runtime);
        outcome
    });
    // Does not wait: a plugin that was stopped may have left a thread that reads standard input.
    runtime.shutdown_background();
    match outcome {
        Ok(status) => status,
        Err(error) => {
            // Names in a plugin's file are part of some messages. A line break in a name must not forge a log line.
            eprintln!("larder: {}", one_line(&format!("{error:#}")));
            match error.downcast_ref::<Error>() {
                Some(Error::Config(_) | Error::Invoke { .. } | Error::Option(_)) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
