//! The command line: its types and help, and one file for each subcommand.

mod cache;
mod check;
mod metrics;
mod run;
mod serve;

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
    /// Answer HTTP requests with plugins, each request in a sandbox of its own.
    Serve(serve::Serve),
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
        Command::Serve(command) => command.run(config).await,
        Command::Check => check::run(&config).await,
        Command::Cache(command) => command.run(&config).await,
    }
}

impl Cli {
    /// Whether it runs until it is told to end, and does many things at a time.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

/// Starts the log on standard error: warnings and worse, and of a server what it does, with the time; unless `LARDER_LOG`
/// says otherwise, as in `larder_host=debug`.
pub(crate) fn start_log(is_server: bool) {
    let mut filter = Targets::new().with_default(tracing::Level::WARN);
    if is_server {
        filter = filter.with_target("larder_host", tracing::Level::INFO);
    }
    if let Ok(wanted) = std::env::var("LARDER_LOG") {
        match wanted.parse() {
            Ok(wanted) => filter = wanted,
            Err(error) => eprintln!("larder: `LARDER_LOG`: {error}"),
        }
    }
    let is_terminal = std::io::stderr().is_terminal();
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
    let registry = tracing_subscriber::registry().with(filter);
    if is_server {
        registry.with(format).init();
    } else {
        registry.with(format.without_time()).init();
    }
}
