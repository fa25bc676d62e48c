//! `larder sdk`: replaces the SDK in the folder of a plugin by that of this program.

// Decision: docs/decisions/0110-the-sdk-is-part-of-the-program.md

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use larder_host::config::json_schema;

use super::draft::Draft;
use super::new::{SCHEMA, sdk};

/// Replaces what `larder new` has written of the SDK into the working directory. What is not there is not created.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let is_there = |path: &str| Path::new(path).is_file();
    let has_crate = sdk::is_sdk(Path::new(sdk::FOLDER));
    let helpers = [sdk::PYTHON_HELPER, sdk::JAVASCRIPT_HELPER];
    if !has_crate && !helpers.iter().any(|(path, _)| is_there(path)) {
        let looked_for = helpers.map(|(path, _)| path).join("` nor `");
        bail!(
            "this folder has no SDK: neither `{}` nor `{looked_for}`; if `Cargo.toml` names a published version of `larder`, \
             change it there",
            sdk::FOLDER
        );
    }
    if has_crate {
        let is_same = sdk::files().all(|(path, text)| is_equal(&Path::new(sdk::FOLDER).join(path), &text));
        report(sdk::FOLDER, is_same, || replace_folder(Path::new(sdk::FOLDER)))?;
    }
    let helpers = helpers.into_iter().chain([sdk::INTERFACE]).map(|(path, text)| (path, text.to_owned()));
    for (path, text) in helpers.chain([(SCHEMA, json_schema())]).filter(|(path, _)| is_there(path)) {
        report(path, is_equal(Path::new(path), &text), || replace_file(Path::new(path), &text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces a file or folder, unless it is the same, and prints which was the case.
fn report(path: &str, is_same: bool, replace: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if is_same {
        writeln!(io::stdout(), "`{path}` is that of larder {version} already")?;
        return Ok(());
    }
    replace().with_context(|| format!("cannot replace `{path}`"))?;
    writeln!(io::stdout(), "replaced `{path}` by that of larder {version}")?;
    Ok(())
}

/// True if the file has this text. Reads no more of it than that.
fn is_equal(file: &Path, text: &str) -> bool {
    let size = fs::metadata(file).ok().filter(fs::Metadata::is_file).map(|file| file.len());
    size == u64::try_from(text.len()).ok() && fs::read(file).is_ok_and(|bytes| bytes == text.as_bytes())
}

/// Writes the crate beside the folder, and then exchanges them.
fn replace_folder(folder: &Path) -> anyhow::Result<()> {
    let draft = Draft::write(folder, sdk::files())?;
    let old = PathBuf::from(format!(".{}.{}.old", folder.display(), std::process::id()));
    fs::rename(folder, &old)?;
    if let Err(error) = draft.rename(folder) {
        let _kept_beside = fs::rename(&old, folder);
        return Err(error);
    }
    fs::remove_dir_all(&old)?;
    Ok(())
}

/// Writes a file beside it, and then renames that.
fn replace_file(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _not_written = fs::remove_file(&new);
    }
    Ok(written?)
}
