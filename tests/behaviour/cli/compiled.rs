//! Compiled plugins, which are kept on disk so that only the first start pays for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use larder_tests::Larder;

/// The compiled code in a folder and those within. What wasmtime notes beside it about use is its own affair, and comes
/// late.
fn compiled(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(compiled(&path)),
            false if path.extension().is_none() => drop(files.insert(path)),
            false => {}
        }
    }
    files
}

fn run(folder: &Path) -> Larder {
    Larder::run("script").arg("get k").env("LARDER_COMPILED", folder)
}

#[test]
fn a_plugin_is_compiled_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("deep/down");
    assert_eq!(run(&kept).succeed().stdout, "miss\n");
    let first = compiled(&kept);
    assert!(!first.is_empty());
    assert_eq!(run(&kept).succeed().stdout, "miss\n");
    assert_eq!(compiled(&kept), first);
    Larder::run("session").env("LARDER_COMPILED", &kept).succeed();
    assert!(compiled(&kept).len() > first.len(), "another plugin is another file");
}

#[cfg(unix)]
#[test]
fn no_other_user_may_enter_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    run(&kept).succeed();
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o700);
}

#[cfg(unix)]
#[test]
fn a_folder_that_other_users_may_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let run = run(folder.path()).succeed();
    assert_eq!(run.stdout, "miss\n");
    assert!(run.error_line().contains("other users can write to it"), "{}", run.stderr);
    assert!(compiled(folder.path()).is_empty());
}

#[test]
fn off_keeps_nothing() {
    let home = tempfile::tempdir().unwrap();
    let larder = run(Path::new("off")).env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("xdg"));
    assert_eq!(larder.succeed().stdout, "miss\n");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn without_the_variable_the_users_cache_folder_is_taken() {
    let home = tempfile::tempdir().unwrap();
    run(Path::new("")).env("HOME", home.path()).env("XDG_CACHE_HOME", "").succeed();
    assert!(!compiled(&home.path().join(".cache/larder/compiled")).is_empty());
    run(Path::new("")).env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("xdg")).succeed();
    assert!(!compiled(&home.path().join("xdg/larder/compiled")).is_empty());
}

#[test]
fn an_unusable_folder_is_only_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let run = run(&file.join("below")).succeed();
    assert_eq!(run.stdout, "miss\n");
    assert!(
        run.error_line().contains("WARN") && run.stderr.contains("cannot keep compiled plugins in"),
        "{}",
        run.stderr
    );
}
