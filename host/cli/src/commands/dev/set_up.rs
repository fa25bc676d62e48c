//! Finds out which tools of a plugin's language are not installed yet.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::super::language::{JAVASCRIPT_FOLDER, Language, PYTHON_FOLDER, Step, TARGET};

/// Written when the tools of Python have been installed: the time is compared with that of `requirements.txt`.
const INSTALLED: &str = "venv/larder-installed";

/// What the installation of the tools of Python brings, for a folder that was set up by hand.
const PYTHON_TOOL: &str = "venv/bin/componentize-py";

/// The steps that are missing, in their order. Blocks the thread for as long as `rustup` takes.
pub(super) fn missing_steps(language: Language) -> Vec<Step> {
    let is_missing = match language {
        Language::Rust => vec![lacks_target()],
        Language::Python => {
            let has_folder = Path::new(PYTHON_FOLDER).exists();
            vec![!has_folder, !has_folder || are_requirements_newer()]
        }
        Language::Javascript => vec![!Path::new(JAVASCRIPT_FOLDER).exists()],
    };
    let steps = language.set_up().into_iter().zip(is_missing);
    steps.filter(|(_, is_missing)| *is_missing).map(|(step, _)| step).collect()
}

/// Remembers that all steps have succeeded.
pub(super) fn remember(language: Language) {
    if language == Language::Python {
        // Without it, the next start installs again, which changes nothing.
        let _written = std::fs::write(INSTALLED, "");
    }
}

/// True if there is a `rustup` that knows that the target is not installed. Rust may have come without it.
fn lacks_target() -> bool {
    let list = Command::new("rustup").args(["target", "list", "--installed"]).stdin(Stdio::null()).output();
    list.is_ok_and(|list| {
        list.status.success() && !String::from_utf8_lossy(&list.stdout).lines().any(|target| target.trim() == TARGET)
    })
}

fn are_requirements_newer() -> bool {
    let time = |file: &str| -> Option<SystemTime> { Path::new(file).metadata().ok()?.modified().ok() };
    let installed = time(INSTALLED).max(time(PYTHON_TOOL));
    installed.is_none() || time("requirements.txt") > installed
}
