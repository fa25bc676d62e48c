//! The corpus of each fuzz target, replayed.

use std::path::Path;

use larder_tests::fuzz;

/// Runs the body of a target with each file of its corpus, which must have the file `named`. The last file printed is
/// the one that fails.
fn replay(target: &str, named: &str, body: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.iter().any(|file| file.ends_with(named)), "the corpus of `{target}` has no `{named}`");
    for file in files {
        println!("{}", file.display());
        body(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn globs_match_as_the_reference_does() {
    replay("glob", "reversed_range", fuzz::glob);
}

#[test]
fn configurations_are_read_or_refused_and_keep_their_secrets() {
    replay("config", "not_toml", fuzz::config);
}

#[test]
fn calls_by_hand_are_made_or_refused() {
    replay("invoke", "no_such_function", fuzz::invoke);
}

#[test]
fn files_are_plugins_or_refused() {
    replay("component", "core_module", fuzz::component);
}

#[test]
fn sequences_of_calls_leave_no_lease_behind() {
    replay("calls", "forged_handle", fuzz::calls);
}

#[test]
fn no_string_over_the_reply_limit_passes() {
    replay("reply-limit", "bulk_string_over_the_limit", fuzz::reply_limit);
}
