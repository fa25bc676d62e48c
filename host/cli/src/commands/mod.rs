//! The command line: one file per subcommand.

mod cache;
mod check;
pub(crate) mod compile_plugin;
mod man;
mod new;
mod ready;
mod run;
mod serve;
mod top;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use larder_host::Config;
use larder_host::config::json_schema;

use crate::operator::{OnSignal, Operator};
use crate::telemetry::LogOptions;

/// The command line of `larder`.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about = "A shared cache for WebAssembly plugins", long_about = None)]
pub(crate) struct Cli {
    #[command(flatten)]
    config: ConfigOption,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

// `Config::load` reads `LARDER_CONFIG`, not clap: to clap an empty variable is an error, to Larder it is as if absent.
#[derive(Debug, Args)]
struct ConfigOption {
    /// Configuration file [env: LARDER_CONFIG] [default: ./larder.toml; if absent, one RAM cache]
    #[arg(long = "config", value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a plugin in a new directory.
    New(new::New),
    /// Run a plugin, or one of its exported functions.
    Run(run::Run),
    /// Serve HTTP requests with plugins, each request in its own sandbox.
    Serve(serve::Serve),
    /// Live dashboard of a running host (needs `--metrics-addr`).
    Top(top::Top),
    /// Check whether a running host is ready (needs `--metrics-addr`).
    Ready(ready::Ready),
    /// Validate the configuration and connect to every cache.
    Check,
    /// Inspect or purge a server cache.
    Cache(cache::CacheCommand),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Generate a shell completion script.
    Completions(man::Completions),
    /// Write a man page for each command.
    Man(man::Man),
}

/// Runs the command. Returns its exit status.
pub(crate) async fn run(cli: Cli, operator: &Operator) -> anyhow::Result<ExitCode> {
    let path = cli.config.path.as_deref();
    let config = || Config::load(path).map_err(larder_host::Error::from);
    match cli.command {
        Command::New(command) => command.run(),
        Command::Run(command) => command.run(config()?, operator).await,
        Command::Serve(command) => command.run(config()?, operator).await,
        Command::Top(command) => command.run(path, operator).await,
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
    /// True for `larder serve`, which runs until a signal and serves many requests at a time.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }

    /// What a signal does from the start of the command on.
    pub(crate) fn on_signal(&self) -> OnSignal {
        match self.command {
            Command::Run(_) => OnSignal::Exit,
            Command::Serve(_) => OnSignal::ExitServer,
            _ => OnSignal::End,
        }
    }

    /// True if the command may record traces.
    pub(crate) fn runs_plugins(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Serve(_))
    }
}
