//! The line about a plugin whose compilation takes a while, for a person at a terminal.

use std::io::IsTerminal;
use std::path::Path;

use larder_host::runtime::OnSlowCompilation;

use crate::log_line::print_error;

/// What to do about slow compilations: a line on stderr, if that is a terminal and warnings are logged.
pub(crate) fn notice() -> Option<OnSlowCompilation> {
    let is_shown = std::io::stderr().is_terminal() && tracing::enabled!(tracing::Level::WARN);
    is_shown.then_some(print as OnSlowCompilation)
}

fn print(plugin: &Path, is_kept: bool) {
    let kept = if is_kept { " (kept for the next run)" } else { "" };
    print_error(&format!("compiling `{}` …{kept}", plugin.display()));
}
