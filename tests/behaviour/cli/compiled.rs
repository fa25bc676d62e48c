//! Compiled plugins, which are kept on disk so that only the first start pays for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use larder_tests::Larder;

/// The compiled plugins in a folder and those within.
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

/// `larder run` of a small plugin whose function returns 7.
fn seven(folder: &Path) -> Larder {
    let component = "(component (core module $m (func (export \"f\") (result i32) i32.const 7))
         (core instance $i (instantiate $m)) (func (export \"f\") (result u32) (canon lift (core func $i \"f\"))))";
    let larder = Larder::new(["run", "--invoke", "f()", "plugin.wasm"]).env("LARDER_COMPILED", folder);
    std::fs::write(larder.folder().join("plugin.wasm"), wat::parse_str(component).unwrap()).unwrap();
    larder
}

fn is_seven(folder: &Path, what: &str) {
    let run = seven(folder).finish();
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "7\n", ""), "{what}");
}

/// The only compiled plugin in the folder, and its bytes.
fn kept(folder: &Path) -> (PathBuf, Vec<u8>) {
    let files = compiled(folder);
    assert_eq!(files.len(), 1, "{files:?}");
    let file = files.into_iter().next().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    (file, bytes)
}

/// Without a checksum one flipped bit in ten crashes the host or changes what the plugin does.
#[test]
fn a_flipped_bit_anywhere_in_a_compiled_plugin_costs_a_compilation_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    is_seven(folder.path(), "first");
    let (file, good) = kept(folder.path());
    for n in 0..60 {
        let mut bad = good.clone();
        let at = n * (good.len() - 1) / 59;
        bad[at] ^= 1 << (n % 8);
        std::fs::write(&file, &bad).unwrap();
        is_seven(folder.path(), &format!("bit {} of byte {at}", n % 8));
        assert!(kept(folder.path()).1 == good, "the damaged file is replaced: byte {at}");
    }
}

#[test]
fn a_compiled_plugin_that_is_cut_swapped_or_no_file_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    is_seven(folder.path(), "first");
    let (file, good) = kept(folder.path());
    for length in [0, 7, 12, 13, good.len() / 2, good.len() - 1] {
        std::fs::write(&file, &good[..length]).unwrap();
        is_seven(folder.path(), &format!("cut to {length}"));
        assert!(kept(folder.path()).1 == good, "cut to {length}");
    }
    std::fs::write(&file, [&good[..], &good].concat()).unwrap();
    is_seven(folder.path(), "twice");
    // The compiled form of another plugin.
    run(folder.path()).succeed();
    let other = compiled(folder.path()).into_iter().find(|other| *other != file).unwrap();
    std::fs::rename(other, &file).unwrap();
    is_seven(folder.path(), "swapped");
    assert!(kept(folder.path()).1 == good, "swapped");
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    is_seven(folder.path(), "a FIFO");
    assert!(kept(folder.path()).1 == good, "a FIFO");
}

#[cfg(unix)]
fn is_not_used(larder: Larder, words: &str) {
    let run = larder.succeed();
    assert_eq!(run.stdout, "7\n");
    assert!(run.error_line().contains("cannot keep compiled plugins in `"), "{}", run.stderr);
    assert!(run.error_line().contains(words), "`{words}`: {}", run.stderr);
}

#[cfg(unix)]
#[test]
fn a_folder_below_one_that_other_users_may_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    is_seven(&kept, "first");
    for (mode, is_used) in [(0o777, false), (0o775, false), (0o1777, true), (0o755, true)] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        match is_used {
            true => is_seven(&kept, "used"),
            false => is_not_used(seven(&kept), "other users can write to it"),
        }
    }
    // Nothing is created in such a folder either.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    is_not_used(seven(&folder.path().join("new/below")), "other users can write to it");
    assert!(!folder.path().join("new").exists());
}

/// Needs root, to give files away. Under another user the unit tests of `trusted_folder` check the same.
#[cfg(unix)]
#[test]
fn a_folder_or_link_of_another_user_is_not_used() {
    use std::os::unix::fs::{chown, lchown, symlink};
    const NOBODY: Option<u32> = Some(65_534);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("theirs/below")).unwrap();
    if chown(path("theirs"), NOBODY, NOBODY).is_err() {
        return;
    }
    is_not_used(seven(&path("theirs")), "it belongs to another user");
    is_not_used(seven(&path("theirs/below")), "it belongs to another user");
    std::fs::create_dir(path("own")).unwrap();
    symlink(path("own"), path("link")).unwrap();
    is_seven(&path("link/below"), "an own link");
    lchown(path("link"), NOBODY, NOBODY).unwrap();
    is_not_used(seven(&path("link/below")), "it belongs to another user");
    assert_eq!(compiled(&path("theirs")).len(), 0);
}

/// Other users may not read what plugins are compiled to, nor change a file through one that is open to them.
#[cfg(unix)]
#[test]
fn a_compiled_plugin_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    is_seven(folder.path(), "first");
    let (file, _) = kept(folder.path());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 1, "no unfinished file is left");
}

/// As on a full disk: a folder in which no file can be created.
#[test]
fn a_compiled_plugin_that_cannot_be_written_is_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    is_seven(folder.path(), "first");
    let (file, _) = kept(folder.path());
    std::fs::remove_file(&file).unwrap();
    // In the way of the rename.
    std::fs::create_dir_all(file.join("full")).unwrap();
    is_not_used(seven(folder.path()), "directory");
}

/// A write over `ulimit -f` fails as on a full disk. Its signal would end the program.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_the_size_of_files_does_not_end_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let (command, _working) = seven(folder.path()).into_command();
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.current_dir(command.get_current_dir().unwrap()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"7\n"[..]), "{stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains("File too large"), "{stderr}");
    assert_eq!(compiled(folder.path()).len(), 0);
}

/// The files of plugins that are no longer used must not fill the disk. Sparse files stand for large ones.
#[test]
fn the_least_recently_used_compiled_plugins_are_deleted_above_512_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    let [old, older, foreign] = ["a".repeat(64), "b".repeat(64), "notes.txt".to_owned()].map(|name| {
        let path = folder.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(300 << 20).unwrap();
        path
    });
    let hour = std::time::Duration::from_secs(3600);
    for (file, hours) in [(&old, 1), (&older, 2)] {
        let file = std::fs::File::options().append(true).open(file).unwrap();
        file.set_modified(std::time::SystemTime::now() - hour * hours).unwrap();
    }
    is_seven(folder.path(), "first");
    assert!(old.exists() && !older.exists() && foreign.exists());
}
