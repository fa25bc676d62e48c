//! Polls the files of the working directory, and tells when they have changed and are complete.

// Decision: docs/decisions/0103-larder-dev-knows-a-plugin-by-its-files-and-polls-them.md

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_host::file_version::FileVersion;

use super::super::language::{CARGO_FOLDER, JAVASCRIPT_FOLDER, PYTHON_FOLDER};
use super::project::Project;

/// The polling interval. Files that are unchanged between two polls are considered complete.
const INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of files, and of entries of one folder: each file is looked at each second.
const MAX_FILES: usize = 10_000;

/// What tools write, on each level of the folder. Cargo.lock is written by cargo in the course of a build.
const WRITTEN: [&str; 6] = [CARGO_FOLDER, JAVASCRIPT_FOLDER, PYTHON_FOLDER, "__pycache__", "dist", "Cargo.lock"];

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This file, and maybe others.
    Sources(PathBuf),
    /// The configuration of the host.
    Configuration,
}

/// The files of the working directory, and their versions.
#[derive(Debug)]
pub(super) struct Sources {
    /// What the build writes.
    written: Vec<PathBuf>,
    config: PathBuf,
    /// The versions that were reported last.
    reported: Versions,
    /// The versions at the last poll.
    seen: Versions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Versions {
    files: BTreeMap<PathBuf, FileVersion>,
    config: FileVersion,
}

impl Sources {
    /// Looks at the files for the first time.
    pub(super) async fn new(project: &Project, config: &Path) -> Self {
        let written = vec![from_here(&project.output), from_here(&project.build_folder)];
        let config = from_here(config);
        let first = look(written.clone(), config.clone()).await;
        if first.files.len() >= MAX_FILES {
            tracing::warn!("this folder has {MAX_FILES} files or more: changes of further ones start no build");
        }
        Self { written, config, reported: first.clone(), seen: first }
    }

    /// Waits for the next change. Nothing is lost if the future is dropped.
    pub(super) async fn changed(&mut self) -> Change {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = look(self.written.clone(), self.config.clone()).await;
            if let Some(change) = self.settle(now) {
                return change;
            }
        }
    }

    /// What has changed since it was reported, if it is the same at this poll as at the last one.
    fn settle(&mut self, now: Versions) -> Option<Change> {
        let is_same = self.seen == now;
        self.seen = now;
        if !is_same {
            return None;
        }
        if self.seen.config != self.reported.config {
            self.reported.config = self.seen.config;
            return Some(Change::Configuration);
        }
        let file = first_difference(&self.reported.files, &self.seen.files)?;
        self.reported.files.clone_from(&self.seen.files);
        Some(Change::Sources(file))
    }
}

/// Looks at all files, in a thread that may block: they may be on a network.
async fn look(written: Vec<PathBuf>, config: PathBuf) -> Versions {
    let look = move || Versions {
        files: files(&|path| path == config || written.iter().any(|written| written == path)),
        config: FileVersion::of(&config),
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(versions) => versions,
        // The program is ending.
        Err(_cancelled) => std::future::pending().await,
    }
}

/// The path as the files below the working directory have it.
fn from_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).or_else(|_| path.strip_prefix(".")).unwrap_or(path).to_owned()
}

/// The first file that only one side has, or that has another version.
fn first_difference(
    before: &BTreeMap<PathBuf, FileVersion>,
    after: &BTreeMap<PathBuf, FileVersion>,
) -> Option<PathBuf> {
    let changed = after.iter().find(|(file, version)| before.get(*file) != Some(*version));
    let removed = || before.iter().find(|(file, _)| !after.contains_key(*file));
    changed.or_else(removed).map(|(file, _)| file.clone())
}

/// The files of the working directory, in a fixed order. Links to folders are not followed: they may lead in a circle.
fn files(is_left_out: &dyn Fn(&Path) -> bool) -> BTreeMap<PathBuf, FileVersion> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let here = if folder == Path::new("") { Path::new(".") } else { &folder };
        let entries = fs::read_dir(here).into_iter().flatten().take(MAX_FILES).flatten();
        let mut entries: Vec<fs::DirEntry> = entries.filter(|entry| !is_written(&entry.file_name())).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if is_left_out(&path) || kind.is_symlink() && path.is_dir() {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if files.len() < MAX_FILES {
                let version = FileVersion::of(&path);
                files.insert(path, version);
            } else {
                return files;
            }
        }
    }
    files
}

/// True for what tools write, and for what is hidden: the files of version control and editors. A log may be that of this
/// program, which would cause its own builds.
fn is_written(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.starts_with(b".") || bytes.ends_with(b".log") || WRITTEN.iter().any(|written| name == OsStr::new(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("larder-sources-{}", std::process::id()))
    }

    /// Versions of two files, by what they contain.
    fn versions(files: &[(&str, &str)], config: &str) -> Versions {
        fs::create_dir_all(folder()).unwrap();
        let version = |text: &str| {
            let file = folder().join(format!("file-{text}"));
            if !file.exists() {
                fs::write(&file, text).unwrap();
            }
            FileVersion::of(&file)
        };
        Versions {
            files: files.iter().map(|(file, text)| (file.into(), version(text))).collect(),
            config: version(config),
        }
    }

    #[test]
    fn a_change_is_reported_once_two_polls_see_the_same_files() {
        let [old, half, new] = [&[("a", "1")][..], &[("a", "2")], &[("a", "3"), ("b", "1")]];
        let mut sources = Sources {
            written: Vec::new(),
            config: PathBuf::new(),
            reported: versions(old, "x"),
            seen: versions(old, "x"),
        };
        let file = |file: &str| Some(Change::Sources(file.into()));
        for (index, (now, config, expected)) in [
            (old, "x", None),
            // Written in parts.
            (half, "x", None),
            (new, "x", None),
            (new, "x", file("a")),
            (new, "x", None),
            // Both at the same time: one after the other.
            (old, "y", None),
            (old, "y", Some(Change::Configuration)),
            (old, "y", file("a")),
            (old, "y", None),
            // Removed.
            (&[], "y", None),
            (&[], "y", file("a")),
            // Changed and changed back.
            (old, "y", None),
            (&[], "y", None),
            (&[], "y", None),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(sources.settle(versions(now, config)), expected, "poll {index}");
        }
        fs::remove_dir_all(folder()).unwrap();
    }

    #[test]
    fn what_tools_write_and_what_is_hidden_is_no_source() {
        for name in ["target", "node_modules", "venv", "__pycache__", "dist", "Cargo.lock", ".git", ".a.swp", "dev.log"]
        {
            assert!(is_written(OsStr::new(name)), "{name}");
        }
        for name in ["src", "targets", "Cargo.toml", "wit", "package-lock.json"] {
            assert!(!is_written(OsStr::new(name)), "{name}");
        }
    }
}
