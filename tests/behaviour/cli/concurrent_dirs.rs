//! What a command of WASI 0.3 may do below a directory that `--dir` gives it.

use std::fs;
use std::path::Path;

use larder_tests::Larder;

/// Runs `files` of the command with a directory of this machine at `/data`.
fn run(directory: &Path, sandbox: &str, words: &[&str]) -> Larder {
    let mount = format!("{}::/data", directory.display());
    let run = Larder::run_with(&["--dir", &mount], "concurrent").config(&format!("[sandbox]\n{sandbox}\n"));
    words.iter().fold(run.arg("files"), |run, word| run.arg(word))
}

fn said(directory: &Path, sandbox: &str, words: &[&str]) -> String {
    run(directory, sandbox, words).succeed().stdout.trim_end().to_owned()
}

const ONE_MIB: &str = "max_dir_bytes = \"1MiB\"";

#[test]
fn a_directory_is_the_same_in_both_versions_of_wasi() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("one"), "").unwrap();
    fs::create_dir(folder.path().join("two")).unwrap();
    assert_eq!(said(folder.path(), "", &["roots"]), "/data");
    assert_eq!(said(folder.path(), "", &["list"]), "one two");
    let mount = format!("{}::/data", folder.path().display());
    assert_eq!(Larder::run_with(&["--dir", &mount], "concurrent").arg("entries").succeed().stdout, "2\n");
}

#[test]
fn files_are_written_appended_to_copied_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let said = |words: &[&str]| said(folder.path(), "", words);
    assert_eq!(said(&["write", "file", "one"]), "3 written");
    assert_eq!(said(&["append", "file", " two"]), "4 written");
    assert_eq!(said(&["read", "file"]), "one two");
    let large = "0123456789".repeat(100_000);
    fs::write(folder.path().join("large"), &large).unwrap();
    assert_eq!(said(&["copy", "large", "copy"]), "copied");
    assert_eq!(fs::read_to_string(folder.path().join("copy")).unwrap(), large);
}

#[test]
fn a_file_that_cannot_be_opened_read_or_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("directory")).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let said = |words: &[&str]| said(folder.path(), "", words);
    assert_eq!(said(&["read", "missing"]), "ErrorCode::NoEntry");
    assert_eq!(said(&["read", "../outside"]), "ErrorCode::NotPermitted");
    assert_eq!(said(&["read-directory", "directory"]), "ErrorCode::IsDirectory");
    assert_eq!(said(&["write", "missing/file", "text"]), "ErrorCode::NoEntry");
    assert_eq!(said(&["append", "directory", "text"]), "ErrorCode::IsDirectory");
    assert_eq!(said(&["far", "file"]), "(0, Err(ErrorCode::Invalid)) Err(ErrorCode::Invalid)");
}

#[test]
fn max_dir_bytes_bounds_what_a_run_writes() {
    let folder = tempfile::tempdir().unwrap();
    // The new file itself counts with 4 KiB.
    let size = (1 << 20) - 4096;
    assert_eq!(
        said(folder.path(), ONE_MIB, &["fill", "file"]),
        format!("{size} bytes: Err(ErrorCode::InsufficientSpace)")
    );
    assert_eq!(fs::metadata(folder.path().join("file")).unwrap().len(), size);
    fs::write(folder.path().join("large"), vec![b'x'; 2 << 20]).unwrap();
    assert_eq!(said(folder.path(), ONE_MIB, &["copy", "large", "copy"]), "ErrorCode::InsufficientSpace");
    // What was written before, but not the part of a write that is over the bound.
    let copied = fs::metadata(folder.path().join("copy")).unwrap().len();
    assert!((size - (64 << 10)..=size).contains(&copied), "{copied}");
}

/// Each stream has the block of its own file.
#[test]
fn two_files_that_are_written_in_turns_count_by_their_size() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(said(folder.path(), "max_dir_bytes = \"256KiB\"", &["alternate", "1200"]), "1200 times");
    for name in ["a", "b"] {
        assert_eq!(fs::metadata(folder.path().join(name)).unwrap().len(), 120_000);
    }
}

#[test]
fn new_files_directories_and_links_count() {
    for word in ["litter", "nest", "tie"] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(said(folder.path(), ONE_MIB, &[word]), "256: ErrorCode::InsufficientSpace", "{word}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 256);
    }
}

#[test]
fn hard_links_count_and_a_file_that_is_there_does_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let filled = said(folder.path(), ONE_MIB, &["fill", "file"]);
    assert_eq!(filled, format!("{} bytes: Err(ErrorCode::InsufficientSpace)", 1 << 20));
    assert_eq!(said(folder.path(), ONE_MIB, &["link", "file"]), "256: ErrorCode::InsufficientSpace");
}

/// The file that a call finds may be gone when it opens it.
#[test]
fn a_file_that_is_renamed_while_a_call_opens_it_is_not_created_without_a_charge() {
    let folder = tempfile::tempdir().unwrap();
    let said = said(folder.path(), ONE_MIB, &["slip"]);
    assert!(said.ends_with(": ErrorCode::InsufficientSpace"), "{said}");
    assert!(fs::read_dir(folder.path()).unwrap().count() <= 256);
}

#[test]
fn a_file_is_not_extended_over_the_bound_without_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let extend = |size| said(folder.path(), ONE_MIB, &["extend", "file", size]);
    assert_eq!(extend("1000000000"), "ErrorCode::InsufficientSpace");
    assert_eq!(fs::metadata(folder.path().join("file")).unwrap().len(), 0);
    assert_eq!(extend("1000000"), "extended");
}

#[test]
fn a_run_holds_at_most_256_files_and_streams_open() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    for words in [["open", "file"].as_slice(), &["streams", "file"], &["writers", "file"], &["listings"]] {
        let run = run(folder.path(), "", words).fail(1);
        assert!(run.error_line().contains("it opened more than 256 files at a time"), "{}", run.stderr);
    }
    // A stream that the plugin leaves is closed.
    assert_eq!(said(folder.path(), "", &["reread", "file", "1000"]), "1000 times");
}

/// Each of them has a thread of the host until then.
#[test]
fn listings_that_are_not_read_end_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..100 {
        fs::write(folder.path().join(n.to_string()), "").unwrap();
    }
    assert_eq!(said(folder.path(), "", &["leave", "100"]), "100 left");
}

#[test]
fn a_thousand_calls_at_a_time_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(said(folder.path(), "", &["ask", "file", "1000"]), "1000 of 1000");
}

#[test]
fn a_call_that_is_cancelled_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(said(folder.path(), "", &["cancel", "file", "1000"]), "1000 cancelled");
}

#[test]
fn the_paths_of_running_calls_are_short_and_count_against_max_memory() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |size, times| run(folder.path(), "max_memory = \"16MiB\"", &["ask-long", size, times]);
    assert_eq!(ask("4096", "100").succeed().stdout, "100 of 100\n");
    assert_eq!(ask("4097", "1000").succeed().stdout, "1000 of 1000\n");
    let run = ask("4000", "2000").fail(1);
    assert!(run.error_line().contains("its open files and HTTP messages take over 4.0 MiB"), "{}", run.stderr);
}
