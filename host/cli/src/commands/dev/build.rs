//! Builds the plugin of the working directory, after its tools have been installed.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use larder_host::console;
use tokio_util::sync::CancellationToken;

use super::super::language::{Language, Step};
use super::child::Process;
use super::project::Project;
use super::set_up::{missing_steps, remember};

/// How long the lines before a command may take to be written. The command writes after them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How a build ended.
#[derive(Debug)]
pub(super) enum Built {
    /// The output is there.
    Yes,
    /// A command failed: which one, and its status. It has said why itself.
    Failed(String),
    /// The program is to shut down.
    Stopped,
}

/// A command that cannot be run. The plugin's author must install its program.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(
        "`{program}` is not installed or not in `PATH`, and `{step}` needs it: {hint}, then start `larder dev` again"
    )]
    MissingTool { program: &'static str, step: Step, hint: &'static str },
    #[error("cannot run `{step}`: {reason}")]
    Start { step: Step, reason: String },
}

/// Installs what is missing, and builds. The output of the commands is on stderr.
pub(super) async fn build(project: &Project, stop: &CancellationToken) -> Result<Built, BuildError> {
    let language = project.language;
    // It asks `rustup`. If it panics, the build says what is missing.
    let missing = tokio::task::spawn_blocking(move || missing_steps(language));
    let Some(missing) = stop.run_until_cancelled(missing).await else { return Ok(Built::Stopped) };
    let missing = missing.unwrap_or_default();
    for step in &missing {
        tracing::info!("installing the tools of the plugin: `{step}`");
        match run(step, project, stop).await? {
            Built::Yes => {}
            ended => return Ok(ended),
        }
    }
    if !missing.is_empty() {
        remember(language);
    }
    tracing::info!("building: `{}`", project.build);
    let start = Instant::now();
    let built = run(&project.build, project, stop).await?;
    let output = project.output.display();
    Ok(match built {
        Built::Yes if !project.output.is_file() => {
            Built::Failed(format!("`{}` succeeded, but wrote no file `{output}`", project.build))
        }
        Built::Yes => {
            tracing::info!("built `{output}` in {:.1} s", start.elapsed().as_secs_f64());
            Built::Yes
        }
        ended => ended,
    })
}

/// Runs a command to its end.
async fn run(step: &Step, project: &Project, stop: &CancellationToken) -> Result<Built, BuildError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            BuildError::MissingTool { program: step.program, step: step.clone(), hint: hint(step.program) }
        }
        _ => BuildError::Start { step: step.clone(), reason: error.to_string() },
    };
    let _flushed = tokio::task::spawn_blocking(|| console::flush(FLUSH_TIMEOUT)).await;
    let mut command = Command::new(step.program);
    command.args(&step.arguments).stdout(Stdio::from(io::stderr()));
    if project.language == Language::Rust {
        // Also in a workspace, whose folder cargo would use: the output is where it is looked for.
        command.env("CARGO_TARGET_DIR", &project.build_folder);
    }
    let mut process = Process::start(&mut command).map_err(failed)?;
    let status = tokio::select! {
        status = process.wait() => status.map_err(failed)?,
        () = stop.cancelled() => {
            process.end().await;
            return Ok(Built::Stopped);
        }
    };
    if status.success() {
        return Ok(Built::Yes);
    }
    Ok(Built::Failed(format!("`{step}` failed: {status}")))
}

/// What to do without a program.
fn hint(program: &str) -> &'static str {
    match program {
        "cargo" => "install Rust, as https://rustup.rs says",
        "npm" => "install Node.js 18 or later, from https://nodejs.org",
        "python3" => "install Python 3.10 or later, from https://www.python.org",
        _ => "check that `requirements.txt` lists `componentize-py`, and delete the folder `venv`",
    }
}
