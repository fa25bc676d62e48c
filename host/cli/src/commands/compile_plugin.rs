//! `larder compile-plugin`: the process in which a host compiles a plugin. It is not in the help: only a host starts it.

// Decision: docs/decisions/0058-plugins-are-compiled-in-a-process-with-limits.md

use std::process::ExitCode;

use larder_host::compiler::{self, CompilerProcess};

const NAME: &str = "compile-plugin";

/// This program as a compiler of plugins. Without a path to it, plugins are compiled in the host's own process.
pub(crate) fn process() -> Option<CompilerProcess> {
    CompilerProcess::current_program([NAME])
        .inspect_err(|error| tracing::warn!("cannot limit the memory and time of compiling plugins: {error}"))
        .ok()
}

/// Compiles a plugin if this process was started for it. Returns the process's exit status, or `None` for every other
/// command.
pub(crate) fn run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let is_compiler = args.next().is_some_and(|name| name == NAME) && args.next().is_none();
    is_compiler.then(compiler::run)
}
