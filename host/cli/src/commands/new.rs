//! `larder new`: creates a plugin from a template, in a new directory.

// Decision: docs/decisions/0052-templates-are-part-of-the-program.md

mod sdk;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use larder_host::Error;
use larder_host::config::json_schema;

use super::language::Language;
use crate::log_line::print_error;

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Name of the plugin and its directory: words of a-z and 0-9 that begin with a letter, joined by `-`
    #[arg(value_parser = parse_name)]
    name: String,
    /// Language of the plugin
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// Create a plugin that serves HTTP instead of one that is run
    #[arg(long)]
    http: bool,
    /// For Rust: the folder `guest-sdk` of a Larder checkout [default: that of the checkout around the program or the
    /// working directory; if there is none, the published crate]
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

/// A path in the new directory, and the text of the file, with the placeholders `{{name}}`, `{{larder}}`,
/// `{{commands}}` and `{{dev}}`.
type Template = (&'static str, &'static str);

/// A file of `host/cli/templates`. `Cargo.toml` and `.gitignore` have other names there: cargo excludes a directory
/// with a `Cargo.toml` from this package, and git would apply the `.gitignore` to this repository.
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

const RUST_HTTP: [Template; 5] = [
    (".gitignore", template!("rust/gitignore")),
    ("Cargo.toml", template!("rust/Cargo-http.toml.in")),
    ("README.md", template!("rust/README-http.md")),
    ("larder.toml", template!("larder.toml")),
    ("src/main.rs", template!("rust/http.rs")),
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

const PYTHON_HTTP: [Template; 8] = [
    (".gitignore", template!("python/gitignore")),
    ("README.md", template!("python/README-http.md")),
    ("larder.toml", template!("larder.toml")),
    ("requirements.txt", template!("python/requirements.txt")),
    ("src/larder_cache.py", template!("python/larder_cache.py")),
    ("src/plugin.py", template!("python/http.py")),
    ("wit/deps/cache.wit", template!("../wit/cache.wit")),
    ("wit/plugin.wit", template!("python/http.wit")),
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

const JAVASCRIPT_HTTP: [Template; 9] = [
    (".gitignore", template!("javascript/gitignore")),
    ("README.md", template!("javascript/README-http.md")),
    ("larder.toml", template!("larder.toml")),
    ("package-lock.json", template!("javascript/package-lock.json")),
    ("package.json", template!("javascript/package.json")),
    ("src/larder-cache.js", template!("javascript/larder-cache.js")),
    ("src/plugin.js", template!("javascript/http.js")),
    ("wit/deps/cache.wit", template!("../wit/cache.wit")),
    ("wit/plugin.wit", template!("javascript/http.wit")),
];

/// The maximum length of a name, in bytes: that of a package on crates.io.
const MAX_NAME: usize = 64;

/// Names that cargo reserves, and the name of the SDK, on which the plugin depends.
const RESERVED: [&str; 5] = ["build", "deps", "examples", "incremental", "larder"];

impl New {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { name, lang, http, sdk } = self;
        let sdk = match sdk {
            None if lang == Language::Rust => sdk::find(),
            named => named,
        };
        let larder = dependency(lang, sdk.as_deref())?;
        let commands = commands(lang, &name, http);
        let render = |text: &str| {
            let text = text.replace("{{name}}", &name).replace("{{larder}}", &larder);
            text.replace("{{commands}}", &commands.join("\n")).replace("{{dev}}", dev_command(lang, http))
        };
        let mut files: Vec<(&Path, String)> =
            templates(lang, http).iter().map(|(path, text)| (Path::new(*path), render(text))).collect();
        if http && lang != Language::Rust {
            let reuse = format!(
                "\n# An instance answers many requests, because it takes long to start.\n[plugins.{name}]\nreuse = {{}}\n"
            );
            files
                .iter_mut()
                .filter(|(path, _)| *path == Path::new("larder.toml"))
                .for_each(|(_, text)| text.push_str(&reuse));
        }
        files.push((Path::new("larder.schema.json"), json_schema()));
        write_directory(Path::new(&name), files.into_iter())?;
        let mut stdout = io::stdout();
        let of_checkout = sdk.as_ref().map(|sdk| format!(" with the SDK in `{}`", sdk.display())).unwrap_or_default();
        let use_it = if http { "serve" } else { "run" };
        writeln!(stdout, "created the {} plugin `{name}`{of_checkout}; to build and {use_it} it:\n", lang.title())?;
        writeln!(stdout, "    cd {name}\n    {}", commands.join("\n    "))?;
        writeln!(stdout, "\nto build and {use_it} it again after each change: `{}`", dev_command(lang, http))?;
        if sdk.is_none() && lang == Language::Rust {
            print_error(&format!(
                "it needs the crate `larder` {} of crates.io; if that has none, create it with the SDK of a checkout of \
                 Larder: `--sdk CHECKOUT/guest-sdk`",
                env!("CARGO_PKG_VERSION")
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn templates(language: Language, is_http: bool) -> &'static [Template] {
    match (language, is_http) {
        (Language::Rust, false) => &RUST,
        (Language::Rust, true) => &RUST_HTTP,
        (Language::Python, false) => &PYTHON,
        (Language::Python, true) => &PYTHON_HTTP,
        (Language::Javascript, false) => &JAVASCRIPT,
        (Language::Javascript, true) => &JAVASCRIPT_HTTP,
    }
}

/// The commands that set up, test, build, and run or serve the plugin, in its directory.
fn commands(language: Language, name: &str, is_http: bool) -> Vec<String> {
    let mut commands: Vec<String> = language.set_up().iter().map(ToString::to_string).collect();
    // The crate of the HTTP server is for this target alone.
    commands.extend((language == Language::Rust && !is_http).then(|| "cargo test".to_owned()));
    commands.push(language.build(name).to_string());
    let use_it = match (language, is_http) {
        (_, true) => "larder serve",
        (Language::Rust, false) => "larder run",
        (_, false) => "larder run --invoke 'greet(\"world\")'",
    };
    commands.push(format!("{use_it} {}", language.output(name).display()));
    commands
}

/// The command that does all this again after each change.
fn dev_command(language: Language, is_http: bool) -> &'static str {
    if is_http || language == Language::Rust { "larder dev" } else { "larder dev --invoke 'greet(\"world\")'" }
}

/// The dependency on the SDK in `Cargo.toml`: the version of this program, or the path `sdk`.
fn dependency(language: Language, sdk: Option<&Path>) -> anyhow::Result<String> {
    let Some(sdk) = sdk else { return Ok(format!("\"{}\"", env!("CARGO_PKG_VERSION"))) };
    if language != Language::Rust {
        return Err(Error::Option("--sdk requires --lang rust".to_owned()).into());
    }
    if !sdk::is_sdk(sdk) {
        let message = format!("--sdk: `{}` is not the folder `guest-sdk` of a Larder checkout", sdk.display());
        return Err(Error::Option(message).into());
    }
    let sdk = fs::canonicalize(sdk)?;
    let Some(path) = sdk.to_str() else {
        bail!("--sdk: `{}` is not UTF-8, so `Cargo.toml` cannot name it", sdk.display())
    };
    Ok(format!("{{ path = {} }}", toml::Value::String(path.to_owned())))
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
        return Err(format!("must not be one of the reserved names `{}`", RESERVED.join("`, `")));
    }
    Ok(name.to_owned())
}

/// Creates a directory with all files, or nothing. An existing file or directory is not changed, unless it is an empty
/// directory.
fn write_directory(directory: &Path, files: impl Iterator<Item = (&'static Path, String)>) -> anyhow::Result<()> {
    let exists = || format!("`{}` already exists and is not an empty directory", directory.display());
    let draft = Draft::new(PathBuf::from(format!(".{}.{}", directory.display(), std::process::id())))?;
    for (path, text) in files {
        let path = draft.0.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    // `symlink_metadata` also finds a dangling link. `remove_dir` fails for all but an empty directory.
    if directory.symlink_metadata().is_ok() {
        fs::remove_dir(directory).with_context(exists)?;
    }
    fs::rename(&draft.0, directory).with_context(exists)
}

/// A temporary directory. Removed on drop, unless it was renamed.
struct Draft(PathBuf);

impl Draft {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot create the directory `{}`", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _renamed = fs::remove_dir_all(&self.0);
    }
}
