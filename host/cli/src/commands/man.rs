//! `larder man` and `larder completions`: what other programs are told of the command line.

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
    /// The folder; it is made where there is none.
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
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

/// The command line without `larder help`, which repeats what each command says by `--help`.
fn command() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}
