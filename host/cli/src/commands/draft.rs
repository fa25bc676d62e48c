//! A folder that is written whole, beside the place to which it is then renamed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A temporary folder. Removed on drop, unless it was renamed.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Draft {
    /// Writes these files, by their path in the folder, into a hidden one beside `folder`.
    pub(super) fn write(folder: &Path, files: impl IntoIterator<Item = (PathBuf, String)>) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!(".{}.{}", folder.display(), std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create the directory `{}`", path.display()))?;
        let draft = Self(path);
        for (path, text) in files {
            let path = draft.0.join(path);
            let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
            written.with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        Ok(draft)
    }

    /// Makes it the folder `folder`. An existing file or folder is not changed, unless it is an empty folder.
    pub(super) fn rename(self, folder: &Path) -> anyhow::Result<()> {
        let exists = || format!("`{}` already exists and is not an empty directory", folder.display());
        // `symlink_metadata` also finds a dangling link. `remove_dir` fails for all but an empty directory.
        if folder.symlink_metadata().is_ok() {
            fs::remove_dir(folder).with_context(exists)?;
        }
        fs::rename(&self.0, folder).with_context(exists)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _renamed = fs::remove_dir_all(&self.0);
    }
}
