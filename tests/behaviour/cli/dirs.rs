//! What a plugin may write and open below a directory that `--dir` gives it.

use std::fs;
use std::path::Path;

use larder_tests::{Larder, LarderOutput};

/// Runs `misbehave` with a directory of this machine at `/data`.
fn misbehave(directory: &Path, sandbox: &str, words: &[&str]) -> Larder {
    let mount = format!("{}::/data", directory.display());
    let run = Larder::run_with(&["--dir", &mount], "misbehave").config(&format!("[sandbox]\n{sandbox}\n"));
    words.iter().fold(run, |run, word| run.arg(word))
}

fn said(directory: &Path, sandbox: &str, words: &[&str]) -> String {
    let output: LarderOutput = misbehave(directory, sandbox, words).succeed();
    output.stdout.trim().to_owned()
}

const NO_SPACE: &str = "No space left on device (os error 51)";
/// The C library of WASI makes one error of all that a stream reports.
const STREAM_ERROR: &str = "I/O error (os error 29)";

#[test]
fn max_dir_bytes_bounds_what_a_run_writes() {
    let folder = tempfile::tempdir().unwrap();
    let written = said(folder.path(), "max_dir_bytes = \"1MiB\"", &["fill", "/data/file"]);
    // The new file itself counts with 4 KiB.
    assert_eq!(written, format!("{} bytes: {STREAM_ERROR}", (1 << 20) - 4096));
    assert_eq!(fs::metadata(folder.path().join("file")).unwrap().len(), (1 << 20) - 4096);
}

/// Each stream has the block of its own file.
#[test]
fn two_files_that_are_written_in_turns_count_by_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let written = said(folder.path(), "max_dir_bytes = \"256KiB\"", &["alternate", "/data", "1200"]);
    assert_eq!(written, "1200 times");
    for name in ["a", "b"] {
        assert_eq!(fs::metadata(folder.path().join(name)).unwrap().len(), 120_000);
    }
}

#[test]
fn new_files_and_directories_count() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(said(folder.path(), "max_dir_bytes = \"1MiB\"", &["litter", "/data"]), format!("256 files: {NO_SPACE}"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 256);
    let folder = tempfile::tempdir().unwrap();
    let said = said(folder.path(), "max_dir_bytes = \"1MiB\"", &["nest", "/data"]);
    assert_eq!(said, format!("256 directories: {NO_SPACE}"));
}

#[test]
fn a_file_is_not_extended_over_the_bound_without_a_write() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(said(folder.path(), "max_dir_bytes = \"1MiB\"", &["extend", "/data/file", "1000000000"]), NO_SPACE);
    assert_eq!(fs::metadata(folder.path().join("file")).unwrap().len(), 0);
    assert_eq!(said(folder.path(), "max_dir_bytes = \"1MiB\"", &["extend", "/data/file", "1000000"]), "extended");
}

#[test]
fn an_existing_file_is_opened_for_writing_without_a_charge() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let written = said(folder.path(), "max_dir_bytes = \"1MiB\"", &["fill", "/data/file"]);
    assert_eq!(written, format!("{} bytes: {STREAM_ERROR}", 1 << 20));
}

#[test]
fn a_run_holds_at_most_256_files_open() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let run = misbehave(folder.path(), "", &["open", "/data/file"]).fail(1);
    assert!(run.error_line().contains("it opened more than 256 files at a time"), "{}", run.stderr);
}

#[test]
fn directory_listings_count_against_max_memory() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..1000 {
        fs::write(folder.path().join(n.to_string()), "").unwrap();
    }
    assert_eq!(said(folder.path(), "max_memory = \"4MiB\"", &["list", "/data", "3"]), "3000");
    let run = misbehave(folder.path(), "max_memory = \"4MiB\"", &["list", "/data", "50"]).fail(1);
    assert!(run.error_line().contains("`max_memory` of `[sandbox]`"), "{}", run.stderr);
}
