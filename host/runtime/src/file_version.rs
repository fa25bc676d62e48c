//! What tells one state of a file from another without reading it.

#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// The state of a file, or that there is none. One that is replaced differs, even if the new one is as long and as old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileVersion(Option<State>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    modified: Option<SystemTime>,
    /// When anything about it changed, its rights included: whoever sets the other time cannot set this one. 0 where the
    /// system has none.
    changed: (i64, i64),
    length: u64,
    /// The file's number on its disk; 0 where the system has none.
    number: u64,
}

impl FileVersion {
    pub(crate) fn of(path: &Path) -> Self {
        Self(path.metadata().ok().map(|metadata| State {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            #[cfg(not(unix))]
            changed: (0, 0),
            #[cfg(unix)]
            number: metadata.ino(),
            #[cfg(not(unix))]
            number: 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_removed_is_another() {
        let folder = std::env::temp_dir().join(format!("larder-version-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file");
        let mut versions = vec![FileVersion::of(&file)];
        std::fs::write(&file, "a").unwrap();
        versions.push(FileVersion::of(&file));
        assert_eq!(FileVersion::of(&file), FileVersion::of(&file));
        std::fs::write(&file, "ab").unwrap();
        versions.push(FileVersion::of(&file));
        let new = folder.join("new");
        std::fs::write(&new, "cd").unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&new).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&new, &file).unwrap();
        if cfg!(unix) {
            versions.push(FileVersion::of(&file));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        for (index, version) in versions.iter().enumerate() {
            assert!(!versions[..index].contains(version), "{versions:?}");
        }
    }
}
