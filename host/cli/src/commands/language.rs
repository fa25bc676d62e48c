//! The languages of plugins: the files of a folder in one, and the commands that set it up and build it.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;

/// The target of plugins in Rust.
pub(super) const TARGET: &str = "wasm32-wasip2";

/// The folder into which cargo builds.
pub(super) const CARGO_FOLDER: &str = "target";

/// The folder of the tools of a plugin in Python.
pub(super) const PYTHON_FOLDER: &str = "venv";

/// The folder of the tools of a plugin in JavaScript.
pub(super) const JAVASCRIPT_FOLDER: &str = "node_modules";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    #[value(alias = "rs")]
    Rust,
    #[value(alias = "py")]
    Python,
    #[value(alias = "js")]
    Javascript,
}

/// A command: a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
}

impl Language {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Javascript => "JavaScript",
        }
    }

    /// The files and folders that each folder of a plugin in this language has.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &["Cargo.toml"],
            Self::Python => &["requirements.txt", "wit", "src/plugin.py"],
            Self::Javascript => &["package.json"],
        }
    }

    /// The commands that install the tools, in their order. Each is needed once.
    pub(super) fn set_up(self) -> Vec<Step> {
        match self {
            Self::Rust => vec![Step::new("rustup", &["target", "add", TARGET])],
            Self::Python => vec![
                Step::new("python3", &["-m", "venv", PYTHON_FOLDER]),
                Step::new("venv/bin/pip", &["install", "--requirement", "requirements.txt"]),
            ],
            Self::Javascript => vec![Step::new("npm", &["ci"])],
        }
    }

    /// The command that builds the plugin.
    pub(super) fn build(self, name: &str) -> Step {
        match self {
            Self::Rust => Step::new("cargo", &["build", "--release", "--target", TARGET]),
            Self::Python => {
                let [before, after] = [
                    &["--wit-path", "wit", "--world", "plugin", "componentize"][..],
                    &["--python-path", "src", "plugin", "--output"],
                ];
                let mut step = Step::new("venv/bin/componentize-py", &[before, after].concat());
                step.arguments.push(format!("{name}.wasm"));
                step
            }
            Self::Javascript => Step::new("npm", &["run", "build"]),
        }
    }

    /// The file that the build writes.
    pub(super) fn output(self, name: &str) -> PathBuf {
        let file = format!("{name}.wasm");
        match self {
            Self::Rust => [CARGO_FOLDER, TARGET, "release", &file].iter().collect(),
            Self::Python | Self::Javascript => file.into(),
        }
    }
}

impl Step {
    fn new(program: &'static str, arguments: &[&str]) -> Self {
        Self { program, arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }
}

/// As it is typed in a shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}
