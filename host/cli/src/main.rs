//! The `larder` program: parse, start the log, call the library, answer with an exit status.

// A plugin, a file or a server may control any value here.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod commands;

use std::process::ExitCode;

use clap::Parser;
use larder_host::Error;
use larder_host::cache::text::one_line;

use commands::telemetry::Telemetry;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    let (is_server, runs_plugins, log) = (cli.is_server(), cli.runs_plugins(), cli.log);
    let mut runtime = if is_server {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        // One plugin runs at a time, and it yields often, so one thread serves it and the connections alike.
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
        telemetry.end(&runtime);
        outcome
    });
    // A plugin that was stopped may have left a thread waiting for standard input.
    runtime.shutdown_background();
    match outcome {
        Ok(status) => status,
        Err(error) => {
            // What a plugin's file calls its parts, or an operator a plugin, must not look like a line of ours.
            eprintln!("larder: {}", one_line(&format!("{error:#}")));
            match error.downcast_ref::<Error>() {
                Some(Error::Config(_) | Error::Invoke { .. } | Error::Option(_)) => ExitCode::from(commands::USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
