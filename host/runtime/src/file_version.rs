//! Detects changes of a file from its metadata, without reading it.

#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// The version of a file, or its absence. A replaced file has another version even if its length and time are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion(Option<Attributes>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attributes {
    modified: Option<SystemTime>,
    /// The time of the last change of the file or its metadata. Unlike the modification time, programs cannot set it. 0
    /// on systems without it.
    changed: (i64, i64),
    length: u64,
    /// The inode number; 0 on systems without it.
    inode: u64,
}

impl FileVersion {
    /// Asks the file system for the version of a file. Follows links. A file that cannot be looked at is absent.
    pub fn of(path: &Path) -> Self {
        Self(path.metadata().ok().map(|metadata| Attributes {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            #[cfg(not(unix))]
            changed: (0, 0),
            #[cfg(unix)]
            inode: metadata.ino(),
            #[cfg(not(unix))]
            inode: 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_replaced_or_removed_file_has_another_version() {
        let directory = std::env::temp_dir().join(format!("larder-version-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("file");
        let mut versions = vec![FileVersion::of(&file)];
        std::fs::write(&file, "a").unwrap();
        versions.push(FileVersion::of(&file));
        assert_eq!(FileVersion::of(&file), FileVersion::of(&file));
        std::fs::write(&file, "ab").unwrap();
        versions.push(FileVersion::of(&file));
        let new = directory.join("new");
        std::fs::write(&new, "cd").unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&new).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&new, &file).unwrap();
        if cfg!(unix) {
            versions.push(FileVersion::of(&file));
        }
        std::fs::remove_dir_all(&directory).unwrap();
        for (index, version) in versions.iter().enumerate() {
            assert!(!versions[..index].contains(version), "{versions:?}");
        }
    }
}
