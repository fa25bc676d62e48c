//! Finds and creates a folder that only this user and root can change, as OpenSSH requires of the path to a key.

use std::path::{Path, PathBuf};

/// Resolves an absolute path and creates its missing folders. The folder and each folder above it must belong to this
/// user or to root, and other users must not be able to write to it; symbolic links must belong to this user or to root.
/// A folder above may be writable by all users if it is sticky, such as `/tmp`: there, users can replace only what is
/// theirs.
///
/// # Errors
///
/// The folder and what is wrong with it.
#[cfg(unix)]
pub(super) fn open(path: &Path) -> Result<PathBuf, String> {
    open_as(path, rustix::process::geteuid().as_raw())
}

#[cfg(unix)]
fn open_as(path: &Path, user: u32) -> Result<PathBuf, String> {
    use std::collections::VecDeque;
    use std::ffi::OsString;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    use std::path::Component;

    /// As many symbolic links as Linux follows.
    const MAX_LINKS: usize = 40;
    const STICKY: u32 = 0o1000;
    const OTHERS_CAN_WRITE: u32 = 0o022;

    let names = |path: &Path| -> VecDeque<OsString> {
        // The root as well, where an absolute link leads.
        path.components().map(|component| component.as_os_str().to_owned()).collect()
    };
    let mut ahead = names(path);
    let mut real = PathBuf::from("/");
    let mut links = 0_usize;
    while let Some(name) = ahead.pop_front() {
        let next = real.join(&name);
        let next = match Path::new(&name).components().next() {
            Some(Component::RootDir) => PathBuf::from("/"),
            Some(Component::ParentDir) => real.parent().unwrap_or(Path::new("/")).to_owned(),
            _ => next,
        };
        let failed = |reason: &str| format!("`{}`: {reason}", next.display());
        let attributes = || next.symlink_metadata();
        let found = attributes().or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                // Another process may be creating it too.
                let created = std::fs::DirBuilder::new().mode(0o700).create(&next);
                attributes().map_err(|error| created.err().unwrap_or(error))
            }
            _ => Err(error),
        });
        let found = found.map_err(|error| failed(&error.to_string()))?;
        if found.uid() != user && found.uid() != 0 {
            return Err(failed("it belongs to another user"));
        }
        if found.is_symlink() {
            links = links.saturating_add(1);
            if links > MAX_LINKS {
                return Err(failed("too many symbolic links"));
            }
            let target = next.read_link().map_err(|error| failed(&error.to_string()))?;
            for name in names(&target).into_iter().rev() {
                ahead.push_front(name);
            }
            continue;
        }
        if !found.is_dir() {
            return Err(failed("it is not a directory"));
        }
        let is_sticky_above = found.mode() & STICKY != 0 && !ahead.is_empty();
        if found.mode() & OTHERS_CAN_WRITE != 0 && !is_sticky_above {
            return Err(failed("other users can write to it"));
        }
        real = next;
    }
    Ok(real)
}

/// Creates the folder. Its owner and permissions are not checked on this system.
#[cfg(not(unix))]
pub(super) fn open(path: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    Ok(path.to_owned())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A folder of this test, deleted at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("larder-trusted-{name}-{}", std::process::id()));
            create_dir(&folder).unwrap();
            Self(folder.canonicalize().unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_folders_are_created_for_this_user_only() {
        let folder = Folder::new("created");
        let deep = folder.0.join("a/./b/../c");
        assert_eq!(open(&deep).unwrap(), folder.0.join("a/c"));
        assert_eq!(folder.0.join("a/c").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn own_links_are_followed_and_circles_are_not() {
        let folder = Folder::new("links");
        create_dir(folder.0.join("real")).unwrap();
        symlink("real", folder.0.join("link")).unwrap();
        symlink(folder.0.join("link"), folder.0.join("absolute")).unwrap();
        symlink("circle", folder.0.join("circle")).unwrap();
        assert_eq!(open(&folder.0.join("absolute/below")).unwrap(), folder.0.join("real/below"));
        assert!(open(&folder.0.join("circle")).unwrap_err().contains("too many symbolic links"));
    }

    /// Root owns the folders above; with root as the user of this test, the folder belongs to root as well.
    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let folder = Folder::new("owner");
        let link = std::env::temp_dir().join(format!("larder-trusted-link-{}", std::process::id()));
        symlink(&folder.0, &link).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&folder.0.metadata().unwrap());
        let results = [&folder.0, &link].map(|path| (open_as(path, owner), open_as(path, owner.saturating_add(1))));
        std::fs::remove_file(&link).unwrap();
        for (own, other) in results {
            assert!(own.is_ok(), "{own:?}");
            assert!(owner == 0 || other.clone().unwrap_err().contains("it belongs to another user"), "{other:?}");
        }
    }

    #[test]
    fn a_folder_is_refused_if_others_can_write_to_it_or_to_one_above() {
        let folder = Folder::new("open");
        let above = folder.0.join("above");
        create_dir(&above).unwrap();
        for (mode, is_good) in [(0o755, true), (0o775, false), (0o757, false), (0o1777, true)] {
            set_permissions(&above, Permissions::from_mode(mode)).unwrap();
            assert_eq!(open(&above.join("below")).is_ok(), is_good, "{mode:o}");
        }
        // A sticky folder is open to others itself.
        assert!(open(&above).unwrap_err().contains("other users can write to it"));
    }
}
