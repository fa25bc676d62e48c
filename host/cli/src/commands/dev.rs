//! `larder dev`: builds the plugin in the working directory, serves or runs it, and does so again after each change.

// Decision: docs/decisions/0103-larder-dev-knows-a-plugin-by-its-files-and-polls-them.md

mod build;
mod child;
mod metrics_line;
mod project;
mod set_up;
mod sources;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use larder_host::cache::text::one_line;
use larder_host::inspection::inspect;
use larder_host::{Config, Error};
use tokio_util::sync::CancellationToken;

use super::compile_plugin;
use super::language::Language;
use super::serve::{Addresses, Serve, Serving};
use crate::operator::{OnSignal, Operator};
use crate::recorder::Recorder;
use crate::telemetry::LogOptions;
use build::{Built, build};
use child::Process;
use project::Project;
use sources::{Change, Sources};

pub(super) use child::END_TIMEOUT;

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Language of the plugin [default: the one whose files the working directory has]
    #[arg(long, value_enum)]
    lang: Option<Language>,
    #[command(flatten)]
    addresses: Addresses,
    /// Name of the plugin in the configuration [default: its file name without the extension]
    #[arg(long)]
    name: Option<String>,
    /// Call one exported function after each build, such as `f("x", 1)`, and print its result
    #[arg(long, value_name = "CALL")]
    invoke: Option<String>,
    /// Arguments of a plugin that is run
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// What follows a build.
enum Next {
    /// A change has been seen already.
    Build,
    /// A change is waited for.
    Wait,
    /// The program is to shut down.
    Stop,
}

impl Dev {
    pub(crate) async fn run(
        self,
        config: Option<&Path>,
        log: LogOptions,
        operator: &Operator,
    ) -> anyhow::Result<ExitCode> {
        let project = Project::find(self.lang)?;
        // A mistake is reported before the first build.
        Config::load(config).map_err(Error::from)?;
        let recorder = Recorder::install()?;
        // One that is not there yet may be created.
        let file = Config::find(config).unwrap_or_else(|| Config::DEFAULT_PATH.into());
        let mut sources = Sources::new(&project, &file).await;
        let stop = &operator.shutdown;
        loop {
            let next = match build(&project, stop).await? {
                Built::Stopped => Next::Stop,
                Built::Failed(reason) => {
                    tracing::error!("{reason}; waiting for a change");
                    Next::Wait
                }
                Built::Yes => match self.to_be_served(config, &project, stop).await? {
                    None => Next::Wait,
                    Some((config, true)) => self.serve(config, &project, &mut sources, &recorder, operator).await?,
                    Some((_, false)) => self.run_once(config, log, &project, &mut sources, stop).await?,
                },
            };
            match next {
                Next::Build => {}
                Next::Wait => match next_change(&mut sources, stop).await {
                    Some(change) => announce(&change),
                    None => return Ok(ExitCode::SUCCESS),
                },
                Next::Stop => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    /// Reads the configuration, and whether the built plugin serves HTTP. `None` if it cannot be used, which is logged, or if
    /// the program is to shut down.
    async fn to_be_served(
        &self,
        path: Option<&Path>,
        project: &Project,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<(Config, bool)>> {
        let config = match Config::load(path) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("{}; waiting for a change", one_line(&error.to_string()));
                return Ok(None);
            }
        };
        if self.invoke.is_some() {
            return Ok(Some((config, false)));
        }
        let inspecting = tokio::task::spawn_blocking({
            let (output, config, name) = (project.output.clone(), config.clone(), self.name.clone());
            move || inspect(&output, &config, name.as_deref(), compile_plugin::process())
        });
        let Some(report) = stop.run_until_cancelled(inspecting).await else { return Ok(None) };
        match report? {
            Ok(report) => Ok(Some((config, report.serves_http))),
            Err(error @ Error::Load { .. }) => {
                tracing::error!("{}; waiting for a change", one_line(&error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Serves the plugin, and each version that is built after it, until the program is to shut down.
    async fn serve(
        &self,
        config: Config,
        project: &Project,
        sources: &mut Sources,
        recorder: &Recorder,
        operator: &Operator,
    ) -> anyhow::Result<Next> {
        if !self.args.is_empty() {
            tracing::warn!("the arguments have no effect: a plugin that serves HTTP gets none");
        }
        let serve = Serve::one(project.output.clone(), self.name.clone(), self.addresses);
        // A build may take its time to end, too.
        let on_signal = |timeout: Duration| OnSignal::ShutDown(timeout.saturating_add(END_TIMEOUT));
        let started = serve.start(config, operator, on_signal, Some(recorder.clone())).await;
        let (serving, listener) = match started {
            Ok(started) => started,
            Err(error) if matches!(error.downcast_ref(), Some(Error::Load { .. })) => {
                tracing::error!("{}; waiting for a change", one_line(&error.to_string()));
                return Ok(Next::Wait);
            }
            Err(error) => return Err(error),
        };
        let stop = &operator.shutdown;
        tokio::join!(
            serving.run(listener, operator),
            rebuild(project, sources, &serving, stop),
            stop.run_until_cancelled(metrics_line::log(recorder, serving.caches())),
        );
        Ok(Next::Stop)
    }

    /// Runs the plugin once, in a process of its own: it is ended by a signal if it still runs at the next change.
    async fn run_once(
        &self,
        config: Option<&Path>,
        log: LogOptions,
        project: &Project,
        sources: &mut Sources,
        stop: &CancellationToken,
    ) -> anyhow::Result<Next> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(log.arguments()).arg("run");
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        for (option, value) in [("--name", &self.name), ("--invoke", &self.invoke)] {
            command.args(value.as_ref().map(|value| [option, value]).into_iter().flatten());
        }
        command.arg(&project.output).args(&self.args);
        let mut process = Process::start(&mut command)?;
        tokio::select! {
            status = process.wait() => {
                let status = status?;
                if !status.success() {
                    tracing::warn!("the plugin has ended: {status}");
                }
                Ok(Next::Wait)
            }
            change = sources.changed() => {
                announce(&change);
                process.end().await;
                Ok(Next::Build)
            }
            () = stop.cancelled() => {
                process.end().await;
                Ok(Next::Stop)
            }
        }
    }
}

/// Builds after each change, and serves what was built, until the program is to shut down.
async fn rebuild(project: &Project, sources: &mut Sources, serving: &Serving, stop: &CancellationToken) {
    while let Some(change) = next_change(sources, stop).await {
        if change == Change::Configuration {
            tracing::warn!("the configuration has changed: start `larder dev` again to use it");
            continue;
        }
        announce(&change);
        match build(project, stop).await {
            Ok(Built::Stopped) => return,
            Ok(Built::Yes) => {
                // It logs what it did.
                let _stopped = stop.run_until_cancelled(serving.reload()).await;
            }
            Ok(Built::Failed(reason)) => tracing::error!("{reason}; the previous version is still served"),
            Err(error) => tracing::error!("{error}; the previous version is still served"),
        }
    }
}

/// Waits for a change. `None` if the program is to shut down.
async fn next_change(sources: &mut Sources, stop: &CancellationToken) -> Option<Change> {
    stop.run_until_cancelled(sources.changed()).await
}

fn announce(change: &Change) {
    match change {
        Change::Sources(file) => tracing::info!("`{}` has changed", file.display()),
        Change::Configuration => tracing::info!("the configuration has changed"),
    }
}
