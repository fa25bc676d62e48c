//! The files of this repository, for tests that read them.

use std::path::{Path, PathBuf};

/// The root folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository").to_owned()
}

/// The text of a file, by its path from the root; panics if there is none.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All source files and manifests below a folder or file of the repository, with their text.
pub fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut sources = files(&[below], "rs");
    sources.extend(files(&[below], "toml"));
    assert!(!sources.is_empty(), "`{below}` has no source files");
    sources
}

/// All files with one extension below folders or files of the repository, with their text.
pub fn files(below: &[&str], extension: &str) -> Vec<(PathBuf, String)> {
    let mut open: Vec<PathBuf> = below.iter().map(|below| root().join(below)).collect();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}
