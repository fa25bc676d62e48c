//! `larder run`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use larder_host::cache::text::one_line;
use larder_host::runtime::{Outcome, RunOptions, RuntimeOptions};
use larder_host::{Config, Error, Runtime, console};

use super::compile_plugin;
use crate::compiling;
use crate::operator::{OnSignal, Operator, drain_timeout};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Name of the plugin in the configuration [default: its file name without the extension]
    #[arg(long)]
    name: Option<String>,
    /// Set an environment variable of the plugin. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_env)]
    env: Vec<(String, String)>,
    /// Mount HOST directory at GUEST. May be repeated.
    #[arg(long = "dir", value_name = "HOST::GUEST", value_parser = parse_dir)]
    dirs: Vec<(PathBuf, String)>,
    /// Call one exported function, such as `f("x", 1)`, and print its result
    #[arg(long, value_name = "CALL")]
    invoke: Option<String>,
    /// WebAssembly component to run, and its arguments: all that follows the component is for the plugin
    #[arg(value_name = "PLUGIN", required = true, trailing_var_arg = true)]
    plugin_and_args: Vec<OsString>,
}

impl Run {
    /// Runs the plugin. A signal stops it; its leases are given back before the program exits.
    pub(crate) async fn run(self, config: Config, operator: &Operator) -> anyhow::Result<ExitCode> {
        let Self { name, env, dirs, invoke, plugin_and_args } = self;
        let mut words = plugin_and_args.into_iter();
        let plugin = words.next().map(PathBuf::from).unwrap_or_default();
        let text = |word: OsString| word.into_string().map_err(|word| not_text(&word));
        let args = words.map(text).collect::<Result<_, _>>()?;
        let mut runtime_options = RuntimeOptions::default();
        // The pool refuses a component as `larder serve` does, before it runs.
        runtime_options.instances = Some(1);
        runtime_options.compiler = compile_plugin::process();
        runtime_options.on_slow_compilation = compiling::notice();
        let runtime = Runtime::with_options(config, runtime_options).await?;
        let plugin = runtime.load(&plugin, name.as_deref())?;
        for warning in runtime.caches().config().warnings_about(&[plugin.name().to_owned()], false) {
            tracing::warn!("{}", one_line(&warning));
        }
        let options = RunOptions { args, env, dirs };
        operator.on_signal(OnSignal::ShutDown(drain_timeout(runtime.caches())));
        let run = async {
            match invoke {
                None => Ok(runtime.run(&plugin, &options).await?),
                Some(call) => print(runtime.invoke(&plugin, &options, &call).await?).await,
            }
        };
        let outcome = tokio::select! {
            biased;
            signal = operator.ending() => Err(signal),
            status = run => Ok(status),
        };
        // Also after a trap: other processes may be waiting for the leases that the plugin held.
        runtime.caches().drain().await;
        let status = match outcome {
            Ok(status) => status?,
            Err(signal) => return Ok(ExitCode::from(signal.exit_status())),
        };
        // The low byte, as in a shell, but never 0 for a status that is not 0.
        Ok(match u8::try_from(status & 0xff) {
            Ok(0) if status != 0 => ExitCode::FAILURE,
            Ok(byte) => ExitCode::from(byte),
            Err(_) => ExitCode::FAILURE,
        })
    }
}

/// Prints the result of a function. Returns the exit status.
async fn print(outcome: Outcome<Result<String, String>>) -> anyhow::Result<i32> {
    let result = match outcome {
        Outcome::Exited(status) => return Ok(status),
        Outcome::Returned(result) => result,
    };
    let (Ok(text) | Err(text)) = &result;
    if !text.is_empty() {
        console::write_all(console::Stream::Stdout, format!("{text}\n").as_bytes()).await?;
    }
    Ok(i32::from(result.is_err()))
}

fn not_text(argument: &OsStr) -> Error {
    Error::Option(format!("the plugin's argument {argument:?} is not UTF-8, which plugins cannot get"))
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

fn parse_dir(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once("::") {
        Some((host, guest)) if !host.is_empty() && !guest.is_empty() => Ok((host.into(), guest.to_owned())),
        _ => Err("must be HOST::GUEST".to_owned()),
    }
}
