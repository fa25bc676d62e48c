//! The command line: its types and help, and one file for each subcommand.

mod cache;
mod check;
mod run;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use larder_host::Config;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Exit status for usage and configuration errors; run-time failures are 1.
pub(crate) const USAGE: u8 = 2;

/// One shared cache for WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, long_about = None)]
pub(crate) struct Cli {
    #[command(flatten)]
    config: ConfigOption,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct ConfigOption {
    /// The configuration file; else the one `LARDER_CONFIG` names, else `larder.toml` here, else one RAM cache.
    #[arg(long = "config", value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a plugin: a command component, or one of its exported functions.
    Run(run::Run),
    /// Check the configuration and reach every cache.
    Check,
    /// Look into a cache on a server, and purge it.
    Cache(cache::CacheCommand),
}

/// Does what the command line asks for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::load(cli.config.path.as_deref()).map_err(larder_host::Error::from)?;
    match cli.command {
        Command::Run(command) => command.run(config).await,
        Command::Check => check::run(&config).await,
        Command::Cache(command) => command.run(&config).await,
    }
}

/// Starts the log on standard error: warnings and worse, unless `LARDER_LOG` says otherwise, as in `larder_host=debug`.
pub(crate) fn start_log() {
    let filter = match std::env::var("LARDER_LOG") {
        Ok(wanted) => wanted.parse().unwrap_or_else(|error| {
            eprintln!("larder: `LARDER_LOG`: {error}");
            Targets::new().with_default(tracing::Level::WARN)
        }),
        Err(_) => Targets::new().with_default(tracing::Level::WARN),
    };
    let is_terminal = std::io::stderr().is_terminal();
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal).without_time();
    tracing_subscriber::registry().with(format).with(filter).init();
}
