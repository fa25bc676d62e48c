//! Commands of WASI 0.3: what they print, how they end, and what bounds them.

use std::time::Duration;

use larder_tests::{Larder, LarderOutput};

fn run(arguments: &[&str]) -> Larder {
    arguments.iter().fold(Larder::run("concurrent"), |larder, argument| larder.arg(argument))
}

fn bounded(sandbox: &str, arguments: &[&str]) -> LarderOutput {
    run(arguments).config(&format!("[caches.ram]\ntype = \"ram\"\n[sandbox]\n{sandbox}\n")).fail(1)
}

/// Asserts that the run was stopped, and that the message names the key.
fn assert_stopped(run: &LarderOutput, key: &str) {
    // The plugin itself may have said that an allocation failed.
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&format!("(`{key}` of `[sandbox]`)")), "{run:#?}");
}

#[test]
fn a_command_prints_through_both_versions_and_ends_with_its_status() {
    assert_eq!(run(&["hello"]).succeed().stdout, "hello of 0.3\n");
    assert_eq!(run(&["print"]).succeed().stdout, "printed by 0.2\n");
    run(&["exit", "0"]).succeed();
    run(&["exit", "7"]).fail(7);
    run(&["fail"]).fail(1);
    assert!(run(&["trap"]).fail(1).stderr.contains("trapped"));
}

#[test]
fn work_after_the_call_is_part_of_the_run() {
    assert_eq!(run(&["background"]).succeed().stdout, "after the call\n");
}

#[test]
fn a_command_has_the_caches() {
    assert_eq!(run(&["cache", "value"]).succeed().stdout, "value\n");
}

#[test]
fn a_command_that_computes_or_waits_without_end_is_stopped() {
    assert_stopped(&bounded("max_cpu_time = \"200ms\"", &["spin"]), "max_cpu_time");
    assert_stopped(&bounded("max_cpu_time = \"200ms\"", &["yield"]), "max_cpu_time");
    assert_stopped(&bounded("timeout = \"200ms\"", &["spin"]), "timeout");
    assert_stopped(&bounded("timeout = \"200ms\"", &["sleep", "60000"]), "timeout");
    assert_stopped(&bounded("timeout = \"200ms\"", &["deadlock"]), "timeout");
}

#[test]
fn a_command_that_takes_too_much_memory_of_any_kind_is_stopped() {
    assert_stopped(&bounded("max_memory = \"16MiB\"", &["eat"]), "max_memory");
    assert_stopped(&bounded("max_memory = \"16MiB\"", &["fields"]), "max_memory");
    // The plugin's own memory or the host's table, whichever is full first.
    assert_stopped(&bounded("max_memory = \"16MiB\"", &["streams"]), "max_memory");
}

#[test]
fn a_command_that_writes_without_end_is_stopped() {
    let stopped = bounded("max_output = \"100KiB\"", &["write"]);
    assert_stopped(&stopped, "max_output");
    assert_eq!(stopped.stderr.lines().count(), 1, "{stopped:#?}");
    assert_eq!(stopped.stdout.len(), 100 << 10);
}

#[test]
fn a_command_gets_a_bounded_number_of_random_bytes_and_no_sockets() {
    let config = "[caches.ram]\ntype = \"ram\"\n[sandbox]\nmax_memory = \"16MiB\"\n";
    assert_eq!(run(&["random", "100"]).succeed().stdout, "100\n");
    assert_eq!(run(&["random", "99999999999"]).config(config).succeed().stdout, format!("{}\n", 1 << 20));
    assert_eq!(run(&["sockets"]).succeed().stdout, "[true, true]\n");
}

#[test]
fn asynchronous_functions_are_invoked_by_their_name() {
    let invoke = |call: &str| Larder::run_with(&["--invoke", call], "concurrent");
    assert_eq!(invoke("later(\"Ada\", 20)").succeed().stdout, "\"Ada\"\n");
    assert_eq!(invoke("half(4)").succeed().stdout, "ok(2)\n");
    assert_eq!(invoke("half(3)").fail(1).stdout, "err(\"3 is odd\")\n");
    let late = invoke("later(\"Ada\", 60000)").config("[caches.ram]\ntype = \"ram\"\n[sandbox]\ntimeout = \"200ms\"\n");
    let began = std::time::Instant::now();
    assert_stopped(&late.fail(1), "timeout");
    assert!(began.elapsed() < Duration::from_secs(30));
}
