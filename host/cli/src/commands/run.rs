//! `larder run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use larder_host::runtime::{Outcome, RunOptions, RuntimeOptions};
use larder_host::{Config, Runtime, console};

use super::compile_plugin;

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
    /// WebAssembly component to run
    plugin: PathBuf,
    /// Arguments of the plugin
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let Self { name, env, dirs, invoke, plugin, args } = self;
        let mut runtime_options = RuntimeOptions::default();
        // The pool refuses a component as `larder serve` does, before it runs.
        runtime_options.instances = Some(1);
        runtime_options.compiler = compile_plugin::process();
        let runtime = Runtime::with_options(config, runtime_options).await?;
        let plugin = runtime.load(&plugin, name.as_deref())?;
        let options = RunOptions { args, env, dirs };
        let outcome = match invoke {
            None => runtime.run(&plugin, &options).await.map(Outcome::Exited),
            Some(call) => runtime.invoke(&plugin, &options, &call).await,
        };
        // Also after a trap: other processes may be waiting for the leases that the plugin held.
        runtime.caches().drain().await;
        let status = match outcome? {
            Outcome::Exited(status) => status,
            Outcome::Returned(result) => {
                let (Ok(text) | Err(text)) = &result;
                if !text.is_empty() {
                    console::write_all(console::Stream::Stdout, format!("{text}\n").as_bytes()).await?;
                }
                i32::from(result.is_err())
            }
        };
        // The low byte, as in a shell, but never 0 for a status that is not 0.
        Ok(match u8::try_from(status & 0xff) {
            Ok(0) if status != 0 => ExitCode::FAILURE,
            Ok(byte) => ExitCode::from(byte),
            Err(_) => ExitCode::FAILURE,
        })
    }
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
