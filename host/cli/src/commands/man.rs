//! `larder man` and `larder completions`: man pages and completion scripts, generated from the command line.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::commands::Cli;

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory to write to; created if absent
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell that reads the script
    shell: Shell,
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let written = fs::create_dir_all(&self.dir).and_then(|()| clap_mangen::generate_to(command(), &self.dir));
        written.with_context(|| format!("cannot write to `{}`", self.dir.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Completions {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "larder", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The command line without `larder help`, which repeats the `--help` of each command.
fn command() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}
