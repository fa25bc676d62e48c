//! The command line: one file per subcommand.

mod cache;
mod check;
pub(crate) mod compile_plugin;
mod dev;
mod draft;
mod language;
mod man;
mod manifest;
mod new;
mod plugin;
mod ready;
mod run;
mod sdk;
mod serve;
mod top;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};
use larder_host::Config;
use larder_host::config::json_schema;

use crate::operator::{OnSignal, Operator};
use crate::telemetry::LogOptions;

/// The command line of `larder`.
#[derive(Debug, Parser)]
#[command(name = "larder", version, long_version = VERSIONS.as_str(), about = "A shared cache for WebAssembly plugins", long_about = None, max_term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file, for the commands that read it
    #[arg(long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

/// The output of `--version`: also what a report of a defect needs.
static VERSIONS: LazyLock<String> = LazyLock::new(|| {
    // Empty for a release that is built outside of a repository.
    let commit = option_env!("LARDER_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    let [wasmtime, cache, concurrent] = larder_host::VERSIONS;
    let version = env!("CARGO_PKG_VERSION");
    format!("{version}{commit}\nwasmtime {wasmtime}\n{cache}\n{concurrent}")
});

/// A command that reads the configuration.
#[derive(Debug, Args)]
struct Configured<C: Args> {
    #[command(flatten)]
    config: ConfigOption,
    #[command(flatten)]
    command: C,
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
    /// Replace the SDK of the plugin in the working directory by that of this version.
    Sdk,
    /// Build the plugin in the working directory, serve or run it, and do so again after each change.
    Dev(Configured<dev::Dev>),
    /// Run a plugin, or one of its exported functions.
    Run(Configured<run::Run>),
    /// Serve HTTP requests with plugins, each request in its own sandbox unless the plugin has a `reuse`.
    Serve(Configured<serve::Serve>),
    /// Live dashboard of a running host (needs `--metrics-addr`).
    Top(Configured<top::Top>),
    /// Check whether a running host is ready (needs `--metrics-addr`).
    Ready(Configured<ready::Ready>),
    /// Validate the configuration, connect to every cache and inspect its servers.
    Check(Configured<check::Check>),
    /// Inspect or purge a server cache.
    Cache(Configured<cache::CacheCommand>),
    /// Inspect a plugin's file.
    Plugin(Configured<plugin::PluginCommand>),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Generate a shell completion script.
    Completions(man::Completions),
    /// Write a man page for each command.
    Man(man::Man),
}

/// Runs the command. Returns its exit status.
pub(crate) async fn run(cli: Cli, operator: &Operator) -> anyhow::Result<ExitCode> {
    let Cli { config: path, log, command } = cli;
    let path = command.config().and_then(|config| config.path.clone()).or(path);
    let path = path.as_deref();
    if path.is_some() && command.config().is_none() {
        return Err(larder_host::Error::Option("--config: this command reads no configuration".to_owned()).into());
    }
    let config = || Config::load(path).map_err(larder_host::Error::from);
    match command {
        Command::New(command) => command.run(),
        Command::Sdk => sdk::run(),
        Command::Dev(Configured { command, .. }) => command.run(path, log, operator).await,
        Command::Run(Configured { command, .. }) => command.run(config()?, operator).await,
        Command::Serve(Configured { command, .. }) => command.run(config()?, operator).await,
        Command::Top(Configured { command, .. }) => command.run(path, operator).await,
        Command::Ready(Configured { command, .. }) => command.run(path).await,
        Command::Check(Configured { command, .. }) => command.run(&config()?, Config::find(path).as_deref()).await,
        Command::Cache(Configured { command, .. }) => command.run(&config()?).await,
        Command::Plugin(Configured { command, .. }) => command.run(&config()?),
        Command::Schema => {
            std::io::stdout().write_all(json_schema().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}

impl Command {
    /// The option of a command that reads the configuration.
    fn config(&self) -> Option<&ConfigOption> {
        match self {
            Self::Dev(Configured { config, .. })
            | Self::Run(Configured { config, .. })
            | Self::Serve(Configured { config, .. })
            | Self::Top(Configured { config, .. })
            | Self::Ready(Configured { config, .. })
            | Self::Check(Configured { config, .. })
            | Self::Cache(Configured { config, .. })
            | Self::Plugin(Configured { config, .. }) => Some(config),
            Self::New(_) | Self::Sdk | Self::Schema | Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

impl Cli {
    /// True for the commands that run until a signal and may serve many requests at a time.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.command, Command::Serve(_) | Command::Dev(_))
    }

    /// What a signal does from the start of the command on.
    pub(crate) fn on_signal(&self) -> OnSignal {
        match self.command {
            Command::Dev(_) => OnSignal::ShutDown(dev::END_TIMEOUT),
            Command::Run(_) => OnSignal::Exit,
            Command::Serve(_) => OnSignal::ExitServer,
            _ => OnSignal::End,
        }
    }

    /// True if the command may record traces.
    pub(crate) fn runs_plugins(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Serve(_) | Command::Dev(_))
    }
}
