//! Replays the corpus of each fuzz target, so that a fixed finding stays fixed.

use std::path::Path;

use larder_tests::fuzz;

/// Runs the property of a target on each file of its corpus, and prints its name first: the last name is the one that
/// fails.
fn replay(target: &str, body: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "only {} files", files.len());
    for file in files {
        println!("{}", file.display());
        body(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn globs_match_as_the_reference_does() {
    replay("glob", fuzz::glob);
}

#[test]
fn configurations_are_read_or_refused_and_keep_their_secrets() {
    replay("config", fuzz::config);
}

#[test]
fn calls_by_hand_are_made_or_refused() {
    replay("invoke", fuzz::invoke);
}

#[test]
fn files_are_plugins_or_refused() {
    replay("component", fuzz::component);
}

#[test]
fn sequences_of_calls_leave_no_lease_behind() {
    replay("calls", fuzz::calls);
}

#[test]
fn no_string_over_the_reply_limit_passes() {
    replay("reply-limit", fuzz::reply_limit);
}
