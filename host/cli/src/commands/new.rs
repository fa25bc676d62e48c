//! `larder new`: creates a plugin from a template, in a new directory.

// Decision: docs/decisions/0052-templates-are-part-of-the-program.md

/// A file of `host/cli/templates`. `Cargo.toml` and `.gitignore` have other names there: cargo excludes a directory
/// with a `Cargo.toml` from this package, and git would apply the `.gitignore` to this repository.
macro_rules! template {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $path))
    };
}

pub(super) mod sdk;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use larder_host::config::json_schema;

use super::draft::Draft;
use super::language::Language;
use sdk::Sdk;

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
    /// For Rust: depend on the crate `larder` of this version on crates.io, instead of a copy of it in `larder-sdk`
    #[arg(long, conflicts_with = "sdk")]
    published: bool,
    /// For Rust: depend on the folder `guest-sdk` of a Larder checkout, instead of a copy of the SDK
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

/// A path in the new directory, and the text of the file, with the placeholders `{{name}}`, `{{larder}}`, `{{sdk}}`,
/// `{{exclude}}`, `{{commands}}` and `{{dev}}`.
pub(super) type Template = (&'static str, &'static str);

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
    sdk::PYTHON_HELPER,
    ("src/plugin.py", template!("python/plugin.py")),
    sdk::INTERFACE,
    ("wit/plugin.wit", template!("plugin.wit")),
];

const PYTHON_HTTP: [Template; 8] = [
    (".gitignore", template!("python/gitignore")),
    ("README.md", template!("python/README-http.md")),
    ("larder.toml", template!("larder.toml")),
    ("requirements.txt", template!("python/requirements.txt")),
    sdk::PYTHON_HELPER,
    ("src/plugin.py", template!("python/http.py")),
    sdk::INTERFACE,
    ("wit/plugin.wit", template!("python/http.wit")),
];

const JAVASCRIPT: [Template; 9] = [
    (".gitignore", template!("javascript/gitignore")),
    ("README.md", template!("javascript/README.md")),
    ("larder.toml", template!("larder.toml")),
    ("package-lock.json", template!("javascript/package-lock.json")),
    ("package.json", template!("javascript/package.json")),
    sdk::JAVASCRIPT_HELPER,
    ("src/plugin.js", template!("javascript/plugin.js")),
    sdk::INTERFACE,
    ("wit/plugin.wit", template!("plugin.wit")),
];

const JAVASCRIPT_HTTP: [Template; 9] = [
    (".gitignore", template!("javascript/gitignore")),
    ("README.md", template!("javascript/README-http.md")),
    ("larder.toml", template!("larder.toml")),
    ("package-lock.json", template!("javascript/package-lock.json")),
    ("package.json", template!("javascript/package.json")),
    sdk::JAVASCRIPT_HELPER,
    ("src/plugin.js", template!("javascript/http.js")),
    sdk::INTERFACE,
    ("wit/plugin.wit", template!("javascript/http.wit")),
];

/// The schema of the configuration.
pub(super) const SCHEMA: &str = "larder.schema.json";

/// The maximum length of a name, in bytes: that of a package on crates.io.
const MAX_NAME: usize = 64;

/// Names that cargo reserves, and those of the SDK, on which the plugin depends.
const RESERVED: [&str; 6] = ["build", "deps", "examples", "incremental", "larder", "larder-macros"];

impl New {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { name, lang, http, published, sdk } = self;
        let sdk = Sdk::new(lang, published, sdk.as_deref())?;
        let commands = commands(lang, &name, http);
        let render = |text: &str| {
            let text = text.replace("{{name}}", &name).replace("{{larder}}", &sdk.dependency());
            let text = text.replace("{{sdk}}", sdk.row()).replace("{{exclude}}", sdk.exclude());
            text.replace("{{commands}}", &commands.join("\n")).replace("{{dev}}", dev_command(lang, http))
        };
        let mut files: Vec<(PathBuf, String)> =
            templates(lang, http).iter().map(|(path, text)| (path.into(), render(text))).collect();
        if http && lang != Language::Rust {
            let reuse = format!(
                "\n# An instance answers many requests, because it takes long to start.\n[plugins.{name}]\nreuse = {{}}\n"
            );
            files
                .iter_mut()
                .filter(|(path, _)| path == Path::new("larder.toml"))
                .for_each(|(_, text)| text.push_str(&reuse));
        }
        files.push((SCHEMA.into(), json_schema()));
        if let Sdk::Copy = sdk {
            files.extend(sdk::files().map(|(path, text)| (Path::new(sdk::FOLDER).join(path), text)));
        }
        Draft::write(Path::new(&name), files)?.rename(Path::new(&name))?;
        let mut stdout = io::stdout();
        let use_it = if http { "serve" } else { "run" };
        writeln!(stdout, "created the {} plugin `{name}`{sdk}; to build and {use_it} it:\n", lang.title())?;
        let typed = typed(&std::env::current_exe().unwrap_or_default());
        let here = |command: &str| match command.strip_prefix("larder ") {
            Some(arguments) => format!("{typed} {arguments}"),
            None => command.to_owned(),
        };
        writeln!(stdout, "    cd {name}")?;
        commands.iter().try_for_each(|command| writeln!(stdout, "    {}", here(command)))?;
        writeln!(stdout, "\nto build and {use_it} it again after each change: `{}`", here(dev_command(lang, http)))?;
        if http {
            // A plugin in JavaScript answers by a header.
            let curl = if lang == Language::Javascript { "curl -i" } else { "curl" };
            writeln!(stdout, "to ask it, in another terminal: `{curl} http://127.0.0.1:8080/world`")?;
        }
        writeln!(stdout, "to keep what it caches on a Valkey or Redis server: `{name}/larder.toml` says how")?;
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

/// What is typed in front of the arguments of this program, which `npx` and `pipx run` keep in folders that are not in `PATH`.
fn typed(program: &Path) -> &'static str {
    let is_below = |folder: &str| program.components().any(|part| part.as_os_str() == folder);
    if is_below("_npx") {
        "npx larder-cli"
    } else if is_below("pipx") && (is_below(".cache") || is_below("Caches")) {
        "pipx run larder-cli"
    } else {
        "larder"
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
        return Err(format!("must not be one of the reserved names `{}`", RESERVED.join("`, `")));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_in_path_is_called_as_before() {
        for (program, expected) in [
            ("/home/a/.cargo/bin/larder", "larder"),
            ("/home/a/.npm/_npx/3f/node_modules/larder-cli-linux-x64/larder", "npx larder-cli"),
            ("/home/a/shop/node_modules/larder-cli-linux-x64/larder", "larder"),
            ("/home/a/.local/pipx/.cache/3f/bin/larder", "pipx run larder-cli"),
            ("/home/a/.cache/pipx/3f/bin/larder", "pipx run larder-cli"),
            ("/Users/a/Library/Caches/pipx/3f/bin/larder", "pipx run larder-cli"),
            ("/home/a/.local/share/pipx/venvs/larder-cli/bin/larder", "larder"),
        ] {
            assert_eq!(typed(Path::new(program)), expected, "{program}");
        }
    }
}
