//! `larder new`: a plugin that builds and runs, in a folder of its own.

// Decision: docs/decisions/0052-templates-are-part-of-the-program.md

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use larder_host::Error;

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The plugin's name, and that of its folder: words of a-z and 0-9 that begin with a letter, joined by `-`.
    #[arg(value_parser = parse_name)]
    name: String,
    /// The language that it is written in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// The folder `guest-sdk` of a checkout of Larder, for a plugin in Rust: it uses that instead of the published crate.
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    Python,
    Javascript,
}

/// A file's place in the new folder, and its text with `{{name}}`, `{{larder}}` and `{{commands}}` in it.
type Template = (&'static str, &'static str);

/// A file of `host/cli/templates`. Not all are called there as in the new folder: cargo would take a folder with a `Cargo.toml`
/// for another package, and git a `.gitignore` for one of ours.
macro_rules! template {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $path))
    };
}

const RUST: [Template; 5] = [
    (".gitignore", template!("rust/gitignore")),
    ("Cargo.toml", template!("rust/Cargo.toml.in")),
    ("README.md", template!("rust/README.md")),
    ("larder.toml", template!("larder.toml")),
    ("src/main.rs", template!("rust/main.rs")),
];

const PYTHON: [Template; 8] = [
    (".gitignore", template!("python/gitignore")),
    ("README.md", template!("python/README.md")),
    ("larder.toml", template!("larder.toml")),
    ("requirements.txt", template!("python/requirements.txt")),
    ("src/larder_cache.py", template!("python/larder_cache.py")),
    ("src/plugin.py", template!("python/plugin.py")),
    ("wit/deps/cache.wit", template!("../wit/cache.wit")),
    ("wit/plugin.wit", template!("plugin.wit")),
];

const JAVASCRIPT: [Template; 9] = [
    (".gitignore", template!("javascript/gitignore")),
    ("README.md", template!("javascript/README.md")),
    ("larder.toml", template!("larder.toml")),
    ("package-lock.json", template!("javascript/package-lock.json")),
    ("package.json", template!("javascript/package.json")),
    ("src/larder-cache.js", template!("javascript/larder-cache.js")),
    ("src/plugin.js", template!("javascript/plugin.js")),
    ("wit/deps/cache.wit", template!("../wit/cache.wit")),
    ("wit/plugin.wit", template!("plugin.wit")),
];

/// The longest name, in bytes: what a package may be called.
const MAX_NAME: usize = 64;

/// What cargo refuses as the name of a program, and what the plugin depends on.
const RESERVED: [&str; 5] = ["build", "deps", "examples", "incremental", "larder"];

impl New {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { name, lang, sdk } = self;
        let larder = lang.dependency(sdk.as_deref())?;
        let commands = lang.commands(&name);
        let fill_in = |text: &str| {
            text.replace("{{name}}", &name).replace("{{larder}}", &larder).replace("{{commands}}", &commands.join("\n"))
        };
        let files = lang.templates().iter().map(|(path, text)| (Path::new(*path), fill_in(text)));
        write_folder(Path::new(&name), files)?;
        let mut stdout = io::stdout();
        writeln!(stdout, "`{name}` is a plugin in {}. It is built and run by:\n", lang.title())?;
        writeln!(stdout, "    cd {name}\n    {}", commands.join("\n    "))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Language {
    fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Javascript => "JavaScript",
        }
    }

    fn templates(self) -> &'static [Template] {
        match self {
            Self::Rust => &RUST,
            Self::Python => &PYTHON,
            Self::Javascript => &JAVASCRIPT,
        }
    }

    /// What builds, tests and runs the plugin, in its folder.
    fn commands(self, name: &str) -> Vec<String> {
        let greet = format!("larder run --invoke 'greet(\"world\")' {name}.wasm");
        match self {
            Self::Rust => vec![
                "rustup target add wasm32-wasip2".to_owned(),
                "cargo test".to_owned(),
                "cargo build --release --target wasm32-wasip2".to_owned(),
                format!("larder run target/wasm32-wasip2/release/{name}.wasm"),
            ],
            Self::Python => vec![
                "python3 -m venv venv".to_owned(),
                "venv/bin/pip install --requirement requirements.txt".to_owned(),
                format!(
                    "venv/bin/componentize-py --wit-path wit --world plugin componentize --python-path src plugin \
                     --output {name}.wasm"
                ),
                greet,
            ],
            Self::Javascript => vec!["npm ci".to_owned(), "npm run build".to_owned(), greet],
        }
    }

    /// The SDK, as `Cargo.toml` names it: this program's version of it, or a checkout.
    fn dependency(self, sdk: Option<&Path>) -> anyhow::Result<String> {
        let Some(sdk) = sdk else { return Ok(format!("\"{}\"", env!("CARGO_PKG_VERSION"))) };
        if self != Self::Rust {
            return Err(Error::Option("--sdk is for plugins in Rust".to_owned()).into());
        }
        let manifest = fs::read_to_string(sdk.join("Cargo.toml")).unwrap_or_default();
        if !manifest.contains("name = \"larder\"\n") {
            let message = format!("--sdk: `{}` is not the folder `guest-sdk` of a checkout of Larder", sdk.display());
            return Err(Error::Option(message).into());
        }
        let sdk = fs::canonicalize(sdk)?;
        let Some(path) = sdk.to_str() else { bail!("`{}` is not UTF-8, which `Cargo.toml` has to be", sdk.display()) };
        Ok(format!("{{ path = {} }}", toml::Value::String(path.to_owned())))
    }
}

fn parse_name(name: &str) -> Result<String, String> {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !name.split('-').all(is_word) {
        return Err("must be words of a-z and 0-9 that begin with a letter, joined by `-`".to_owned());
    }
    if name.len() > MAX_NAME {
        return Err(format!("must not be longer than {MAX_NAME} characters"));
    }
    if RESERVED.contains(&name) {
        return Err(format!("must not be one of `{}`, which cargo refuses", RESERVED.join("`, `")));
    }
    Ok(name.to_owned())
}

/// Writes a folder as a whole: what is there already stays as it is, and an error leaves nothing behind.
fn write_folder(folder: &Path, files: impl Iterator<Item = (&'static Path, String)>) -> anyhow::Result<()> {
    let there = || format!("`{}` is there already, and not an empty folder", folder.display());
    let draft = Draft::new(PathBuf::from(format!(".{}.{}", folder.display(), std::process::id())))?;
    for (path, text) in files {
        let path = draft.0.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    // Whatever is there, also a link to nowhere, stays, unless it is an empty folder, which this removes.
    if folder.symlink_metadata().is_ok() {
        fs::remove_dir(folder).with_context(there)?;
    }
    fs::rename(&draft.0, folder).with_context(there)
}

/// A folder that is removed with all it holds, unless it was given another name.
struct Draft(PathBuf);

impl Draft {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot make the folder `{}`", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _renamed = fs::remove_dir_all(&self.0);
    }
}
