//! The instructions of the hot paths, counted by Valgrind. Unlike times, they do not depend on the machine.
//!
//! The counts are of the tests' build, which is optimised less than a release. A limit is 10 % above the count at the
//! time it was set; an improvement lowers it.

// Decision: docs/decisions/0045-benchmarks-take-turns-and-ci-counts-instructions.md

#![cfg(target_os = "linux")]

use std::process::Command;

use larder_tests::skip;

/// The paths of `instructions`, and the most instructions that each may take.
const LIMITS: [(&str, u64); 8] = [
    ("get", 940),
    ("get-in-a-namespace", 1040),
    ("miss", 760),
    ("get-or-set", 1010),
    ("set", 2280),
    ("key", 700),
    ("glob", 1190),
    ("configuration", 103_000),
];

/// The repetitions for one count, so that work that is done once in several calls is averaged.
const TIMES: u64 = 640;

#[test]
fn the_hot_paths_stay_below_their_instruction_limits() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind is not installed");
    }
    // Start and end of the process are in both counts.
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

/// All instructions of a process that repeats a path.
fn count(path: &str, times: u64) -> u64 {
    let program = larder_tests::program().with_file_name("instructions");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let collected = printed.lines().find_map(|line| line.split_once("Collected : ")).expect("a number of instructions");
    collected.1.trim().parse().unwrap()
}
