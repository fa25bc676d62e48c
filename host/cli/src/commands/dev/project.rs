//! Finds out which plugin the working directory has: its language, its name, and the file that its build writes.

// Decision: docs/decisions/0103-larder-dev-knows-a-plugin-by-its-files-and-polls-them.md

use std::path::{Path, PathBuf};

use larder_host::cache::text::one_line;

use super::super::language::{CARGO_FOLDER, JAVASCRIPT_FOLDER, Language, PYTHON_FOLDER, Step};
use super::super::manifest;

const LANGUAGES: [Language; 3] = [Language::Rust, Language::Python, Language::Javascript];

/// The file that describes a plugin in Rust.
const MANIFEST: &str = "Cargo.toml";

/// The file that describes a plugin in JavaScript.
const PACKAGE: &str = "package.json";

/// The plugin of the working directory.
#[derive(Debug, Clone)]
pub(super) struct Project {
    pub(super) language: Language,
    /// The command that builds it.
    pub(super) build: Step,
    /// The file that the build writes.
    pub(super) output: PathBuf,
    /// The folder of what the build and the tools write.
    pub(super) build_folder: PathBuf,
}

/// The working directory has no plugin, or not one that can be built. Its author must change that.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    #[error("this folder has no plugin: it has neither {0}; `larder new NAME` creates one")]
    Unknown(String),
    #[error("this folder has a plugin in {0} and one in {1}: choose with `--lang`")]
    Ambiguous(&'static str, &'static str),
    #[error("this folder has no plugin in {language}: it has no `{file}`; `larder new NAME` creates one")]
    Missing { language: &'static str, file: &'static str },
    #[error("cannot read `{file}`: {reason}")]
    Unreadable { file: &'static str, reason: String },
    #[error("`{file}` {reason}")]
    Unsuitable { file: &'static str, reason: String },
    #[error("the name of the working directory is not UTF-8")]
    Unnamed,
}

impl Project {
    /// Looks at the files of the working directory, for a plugin in this language if one is named.
    pub(super) fn find(language: Option<Language>) -> Result<Self, ProjectError> {
        let language = match language {
            Some(language) => match missing(language) {
                Some(file) => return Err(ProjectError::Missing { language: language.title(), file }),
                None => language,
            },
            None => only_language()?,
        };
        let name = match language {
            Language::Rust => rust_name(&read(MANIFEST)?, Path::new("src/main.rs").exists())?,
            Language::Python => folder_name()?,
            Language::Javascript => javascript_name(&read(PACKAGE)?)?,
        };
        let (output, build_folder) = (language.output(&name), PathBuf::from(folder(language)));
        let (output, build_folder) = match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
            Some(named) if language == Language::Rust => {
                let below = output.strip_prefix(CARGO_FOLDER).unwrap_or(&output);
                (Path::new(&named).join(below), named.into())
            }
            _ => (output, build_folder),
        };
        Ok(Self { language, build: language.build(&name), output, build_folder })
    }
}

/// The folder of what the tools of a language write.
fn folder(language: Language) -> &'static str {
    match language {
        Language::Rust => CARGO_FOLDER,
        Language::Python => PYTHON_FOLDER,
        Language::Javascript => JAVASCRIPT_FOLDER,
    }
}

/// The first file of a plugin in this language that is not here.
fn missing(language: Language) -> Option<&'static str> {
    language.files().iter().copied().find(|file| !Path::new(file).exists())
}

/// The language of the plugin, if there is exactly one.
fn only_language() -> Result<Language, ProjectError> {
    let mut found = LANGUAGES.into_iter().filter(|language| missing(*language).is_none());
    match (found.next(), found.next()) {
        (Some(language), None) => Ok(language),
        (Some(one), Some(other)) => Err(ProjectError::Ambiguous(one.title(), other.title())),
        (None, _) => {
            let list = |files: &[&str]| format!("`{}`", files.join("`, `"));
            let looked_for = LANGUAGES.map(|language| format!("{} ({})", list(language.files()), language.title()));
            Err(ProjectError::Unknown(looked_for.join(" nor ")))
        }
    }
}

/// The name of the file that cargo builds, without `.wasm`. `has_main` is true if there is a `src/main.rs`.
fn rust_name(manifest: &str, has_main: bool) -> Result<String, ProjectError> {
    let unsuitable = |reason: &str| ProjectError::Unsuitable { file: MANIFEST, reason: reason.to_owned() };
    let manifest: toml::Table = manifest
        .parse()
        .map_err(|error: toml::de::Error| unsuitable(&format!("is not valid: {}", one_line(error.message()))))?;
    let text = |table: &str, key: &str| manifest.get(table)?.get(key)?.as_str().map(str::to_owned);
    let package = text("package", "name")
        .ok_or_else(|| unsuitable("has no `name` of a `[package]`: start `larder dev` in the folder of the plugin"))?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let programs: Vec<&str> = programs.iter().filter_map(|program| program.get("name")?.as_str()).collect();
    let kinds = manifest.get("lib").and_then(|library| library.get("crate-type")).and_then(toml::Value::as_array);
    let is_library = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib")));
    match (text("package", "default-run"), programs.as_slice()) {
        (Some(program), _) => Ok(program),
        (None, [program]) => Ok((*program).to_owned()),
        (None, [_, ..]) => Err(unsuitable("has several programs: name one with `default-run` in `[package]`")),
        (None, []) if is_library && !has_main => Ok(text("lib", "name").unwrap_or(package).replace('-', "_")),
        (None, []) => Ok(package),
    }
}

/// The name in `package.json`, without the scope of an organisation.
fn javascript_name(package: &str) -> Result<String, ProjectError> {
    let unsuitable = |reason: String| ProjectError::Unsuitable { file: PACKAGE, reason };
    let package: serde_json::Value =
        serde_json::from_str(package).map_err(|error| unsuitable(format!("is not valid: {error}")))?;
    let name = package.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
    match name.rsplit('/').next().filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(unsuitable("has no `name`, which is that of the built file".to_owned())),
    }
}

/// The name of the working directory: nothing in a plugin in Python has a name.
fn folder_name() -> Result<String, ProjectError> {
    let folder = std::env::current_dir().ok();
    let name = folder.as_ref().and_then(|folder| folder.file_name()?.to_str());
    name.map(str::to_owned).ok_or(ProjectError::Unnamed)
}

fn read(file: &'static str) -> Result<String, ProjectError> {
    manifest::read(Path::new(file)).map_err(|error| ProjectError::Unreadable { file, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_plugin_in_rust_is_that_of_the_file_that_cargo_builds() {
        let package = "[package]\nname = \"my-shop\"\n";
        for (rest, has_main, name) in [
            ("", true, "my-shop"),
            ("[[bin]]\nname = \"my-till\"\n", true, "my-till"),
            ("default-run = \"b\"\n[[bin]]\nname = \"a\"\n[[bin]]\nname = \"b\"\n", false, "b"),
            ("[lib]\ncrate-type = [\"cdylib\"]\n", false, "my_shop"),
            ("[lib]\nname = \"till\"\ncrate-type = [\"rlib\", \"cdylib\"]\n", false, "till"),
            ("[lib]\ncrate-type = [\"cdylib\"]\n", true, "my-shop"),
            ("[lib]\nname = \"till\"\n", true, "my-shop"),
        ] {
            assert_eq!(rust_name(&format!("{package}{rest}"), has_main).unwrap(), name, "{rest}");
        }
    }

    #[test]
    fn the_name_of_a_plugin_in_javascript_has_no_scope() {
        for (package, name) in [("{\"name\": \"shop\"}", "shop"), ("{\"name\": \"@us/shop\"}", "shop")] {
            assert_eq!(javascript_name(package).unwrap(), name);
        }
        for package in ["{}", "{\"name\": 1}", "{\"name\": \"us/\"}", "shop"] {
            assert!(javascript_name(package).is_err(), "{package}");
        }
    }
}
