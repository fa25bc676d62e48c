//! The command line: its types and help, and one file for each subcommand.

mod cache;
mod check;
mod man;
mod metrics;
mod new;
mod ready;
mod run;
mod serve;
pub(crate) mod telemetry;
mod top;
#[cfg(feature = "otlp")]
mod traces;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use larder_host::Config;
use larder_host::config::json_schema;

/// Exit status for usage and configuration errors; run-time failures are 1.
pub(crate) const USAGE: u8 = 2;

/// One shared cache for WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, long_about = None)]
pub(crate) struct Cli {
    #[command(flatten)]
    config: ConfigOption,
    #[command(flatten)]
    pub(crate) log: telemetry::LogOptions,
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
    /// Write a new plugin into a folder of its own.
    New(new::New),
    /// Run a plugin: a command component, or one of its exported functions.
    Run(run::Run),
    /// Answer HTTP requests with plugins, each request in a sandbox of its own.
    Serve(serve::Serve),
    /// Watch what a `larder serve` with a `--metrics-addr` does.
    Top(top::Top),
    /// Ask a `larder serve` with a `--metrics-addr` whether it is ready.
    Ready(ready::Ready),
    /// Check the configuration and reach every cache.
    Check,
    /// Look into a cache on a server, and purge it.
    Cache(cache::CacheCommand),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print what completes `larder` commands in a shell.
    Completions(man::Completions),
    /// Write the man pages into a folder.
    Man(man::Man),
}

/// Does what the command line asks for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let path = cli.config.path.as_deref();
    let config = || Config::load(path).map_err(larder_host::Error::from);
    match cli.command {
        Command::New(command) => command.run(),
        Command::Run(command) => command.run(config()?).await,
        Command::Serve(command) => command.run(config()?).await,
        Command::Top(command) => command.run(path).await,
        Command::Ready(command) => command.run(path).await,
        Command::Check => check::run(&config()?).await,
        Command::Cache(command) => command.run(&config()?).await,
        Command::Schema => {
            std::io::stdout().write_all(json_schema().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}

impl Cli {
    /// Whether it runs until it is told to end, and does many things at a time.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }

    /// Whether there may be something to trace.
    pub(crate) fn runs_plugins(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Serve(_))
    }
}
