//! The instructions of what runs most, counted by Valgrind: they tell of a regression where times would only tell of the
//! machine.
//!
//! They are those of the build that the tests have, which is optimised less than a release: what counts is that they do
//! not grow. A limit is a tenth above what was counted when it was set; a change for the better lowers it.

// Decision: docs/decisions/0045-benchmarks-take-turns-and-ci-counts-instructions.md

#![cfg(target_os = "linux")]

use std::process::Command;

use larder_tests::skip;

/// The paths of `instructions`, and the most instructions that each may take.
const LIMITS: [(&str, u64); 8] = [
    ("get", 940),
    ("get-in-a-namespace", 1040),
    ("miss", 780),
    ("get-or-set", 1010),
    ("set", 2350),
    ("key", 700),
    ("glob", 1190),
    ("configuration", 103_000),
];

/// How often a path is taken for a count, which evens out what is done once in so many times.
const TIMES: u64 = 640;

#[test]
fn the_hot_paths_stay_below_their_instruction_limits() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind is not installed");
    }
    // What comes before and after is in both counts.
    let for_each = |path, times| (count(path, times) - count(path, 0)) / times;
    let of_the_loop = for_each("nothing", TIMES);
    let mut wrong = Vec::new();
    for (path, limit) in LIMITS {
        let times = if limit > 100_000 { 5 } else { TIMES };
        let taken = for_each(path, times) - of_the_loop;
        println!("{path}: {taken} instructions, at most {limit}");
        if !(limit / 2..=limit).contains(&taken) {
            wrong.push(format!("{path}: {taken} instructions; the limit is {limit}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// All instructions of a process that does it so many times.
fn count(path: &str, times: u64) -> u64 {
    let program = larder_tests::program().with_file_name("instructions");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")).expect("a number of instructions");
    collected.1.trim().parse().unwrap()
}
