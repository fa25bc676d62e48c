//! The SDK of plugins, which is part of the program: the crate for Rust, the helpers for the other languages, and the
//! interface.

// Decision: docs/decisions/0110-the-sdk-is-part-of-the-program.md, which replaces
// docs/decisions/0099-a-new-plugin-uses-the-sdk-of-the-checkout-around-the-program.md

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use larder_host::Error;

use super::super::manifest;
use super::{Language, Template};

/// The folder of the crate in a plugin.
pub(in crate::commands) const FOLDER: &str = "larder-sdk";

/// The crate `larder` and its attribute, without their tests. `make interface` copies them from `guest-sdk`.
const FILES: [Template; 25] = [
    ("Cargo.toml", template!("sdk/Cargo.toml.in")),
    ("LICENSE", template!("../LICENSE")),
    ("README.md", template!("sdk/README.md")),
    ("macros/Cargo.toml", template!("sdk/macros/Cargo.toml.in")),
    ("macros/src/duration.rs", template!("sdk/macros/src/duration.rs")),
    ("macros/src/expand.rs", template!("sdk/macros/src/expand.rs")),
    ("macros/src/key.rs", template!("sdk/macros/src/key.rs")),
    ("macros/src/lib.rs", template!("sdk/macros/src/lib.rs")),
    ("macros/src/options.rs", template!("sdk/macros/src/options.rs")),
    ("src/bindings.rs", template!("sdk/src/bindings.rs")),
    ("src/cache.rs", template!("sdk/src/cache.rs")),
    ("src/cached.rs", template!("sdk/src/cached.rs")),
    ("src/codec.rs", template!("sdk/src/codec.rs")),
    ("src/concurrent/refresh.rs", template!("sdk/src/concurrent/refresh.rs")),
    ("src/concurrent.rs", template!("sdk/src/concurrent.rs")),
    ("src/duration.rs", template!("sdk/src/duration.rs")),
    ("src/error.rs", template!("sdk/src/error.rs")),
    ("src/lib.rs", template!("sdk/src/lib.rs")),
    ("src/refresh.rs", template!("sdk/src/refresh.rs")),
    ("src/testing/glob.rs", template!("sdk/src/testing/glob.rs")),
    ("src/testing/host.rs", template!("sdk/src/testing/host.rs")),
    ("src/testing/store.rs", template!("sdk/src/testing/store.rs")),
    ("src/testing.rs", template!("sdk/src/testing.rs")),
    ("wit/cache-async.wit", template!("../wit/cache-async.wit")),
    ("wit/cache.wit", template!("../wit/cache.wit")),
];

/// The helper of a plugin in Python.
pub(in crate::commands) const PYTHON_HELPER: Template = ("src/larder_cache.py", template!("python/larder_cache.py"));

/// The helper of a plugin in JavaScript.
pub(in crate::commands) const JAVASCRIPT_HELPER: Template =
    ("src/larder-cache.js", template!("javascript/larder-cache.js"));

/// The interface, for plugins in Python and JavaScript.
pub(in crate::commands) const INTERFACE: Template = ("wit/deps/cache.wit", template!("../wit/cache.wit"));

/// The SDK that a new plugin uses.
#[derive(Debug)]
pub(super) enum Sdk {
    /// None, besides the files of its template.
    None,
    /// A copy of the crate, in the folder of the plugin.
    Copy,
    /// The crate of this version on crates.io.
    Published,
    /// The crate in an absolute folder, which is UTF-8.
    Folder(String),
}

impl Sdk {
    /// `folder` is the one of `--sdk`, and `published` is true with `--published`.
    pub(super) fn new(language: Language, published: bool, folder: Option<&Path>) -> anyhow::Result<Self> {
        let option = if published { "--published" } else { "--sdk" };
        match folder {
            _ if language != Language::Rust && (published || folder.is_some()) => {
                Err(Error::Option(format!("{option} requires --lang rust")).into())
            }
            None if language != Language::Rust => Ok(Self::None),
            None if published => Ok(Self::Published),
            None => Ok(Self::Copy),
            Some(folder) => Ok(Self::Folder(absolute(folder)?)),
        }
    }

    /// The dependency in `Cargo.toml`.
    pub(super) fn dependency(&self) -> String {
        match self {
            Self::None | Self::Published => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
            Self::Copy => format!("{{ path = \"{FOLDER}\" }}"),
            Self::Folder(folder) => format!("{{ path = {} }}", toml::Value::String(folder.clone())),
        }
    }

    /// Its row in the table of files of the README.
    pub(super) fn row(&self) -> &'static str {
        match self {
            Self::Copy => "| [larder-sdk](larder-sdk/README.md) | the SDK: the crate `larder` |\n",
            Self::None | Self::Published | Self::Folder(_) => "",
        }
    }

    /// A key of `[workspace]` in `Cargo.toml`: the copy is no crate of the plugin's author, whose tests and lints are those of
    /// a workspace.
    pub(super) fn exclude(&self) -> &'static str {
        match self {
            Self::Copy => "exclude = [\"larder-sdk\"]\n",
            Self::None | Self::Published | Self::Folder(_) => "",
        }
    }
}

/// Names a folder that the plugin depends on and does not have.
impl fmt::Display for Sdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Copy => Ok(()),
            Self::Published => write!(f, " with the crate `larder` {} of crates.io", env!("CARGO_PKG_VERSION")),
            Self::Folder(folder) => write!(f, " with the SDK in `{folder}`"),
        }
    }
}

/// The absolute path of a folder with the crate `larder`.
fn absolute(folder: &Path) -> anyhow::Result<String> {
    if !is_sdk(folder) {
        let message = format!("--sdk: `{}` is not the folder `guest-sdk` of a Larder checkout", folder.display());
        return Err(Error::Option(message).into());
    }
    let folder: PathBuf = fs::canonicalize(folder)?;
    match folder.to_str() {
        Some(folder) => Ok(folder.to_owned()),
        None => bail!("--sdk: `{}` is not UTF-8, so `Cargo.toml` cannot name it", folder.display()),
    }
}

/// The files of the crate, by their path in its folder.
pub(in crate::commands) fn files() -> impl Iterator<Item = (PathBuf, String)> {
    FILES.iter().map(|(path, text)| match *path {
        "README.md" => (path.into(), text.replace("{{version}}", env!("CARGO_PKG_VERSION"))),
        _ => (path.into(), (*text).to_owned()),
    })
}

/// True if the folder has the crate `larder`.
pub(in crate::commands) fn is_sdk(folder: &Path) -> bool {
    manifest::read(&folder.join("Cargo.toml")).is_ok_and(|manifest| manifest.contains("name = \"larder\"\n"))
}
