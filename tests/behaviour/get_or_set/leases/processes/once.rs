//! One of all processes computes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_host::runtime::RunOptions;
use larder_host::{Config, Runtime};
use larder_tests::{Larder, LarderProcess, TEST_TIMEOUT, guest, program, wait_for};
use tokio::task::JoinSet;

use super::{ask, assert_one_computed, config, on_every_server, sessions};

#[test]
fn of_four_processes_that_start_together_one_computes() {
    on_every_server(|server| {
        let mut four = sessions(4, &server, "");
        for (n, process) in four.iter_mut().enumerate() {
            process.write_line(&format!("slow k v{n} 2000"));
        }
        let answers: Vec<String> = four.iter_mut().map(LarderProcess::read_line).collect();
        assert_one_computed(&server, "k", &answers);
        four.into_iter().for_each(|process| drop(process.succeed()));
    });
}

/// The configuration for a copy of this test that is to run many instances.
const MANY: &str = "LARDER_TESTS_MANY";

/// How many instances the copy runs at once.
const INSTANCES: &str = "LARDER_TESTS_INSTANCES";

/// How many milliseconds each of its computations takes.
const MILLISECONDS: &str = "LARDER_TESTS_MILLISECONDS";

/// The test starts copies of itself, because `larder run` has one instance.
#[test]
fn of_many_instances_in_each_of_four_processes_one_computes() {
    if let Ok(config) = std::env::var(MANY) {
        return run_many(&config);
    }
    on_every_server(|server| {
        let copies = four_copies(&config(&server, ""), 32, 2000);
        let copies: Vec<_> = copies.into_iter().map(let_go).collect();
        let lines: Vec<String> = copies.into_iter().flat_map(outcome_lines).collect();
        assert_one_computed(&server, "k", &lines);
        assert_eq!(lines.len(), 4 * 32);
    });
}

/// With the default `lease` and `wait`. The callers ask a while after the kill, so that the lease ends long before their
/// wait does, also on a busy machine.
#[test]
fn a_killed_holders_key_is_inherited_by_one_of_32_waiters_in_four_processes() {
    on_every_server(|server| {
        let defaults = server.cache("c") + "timeout = \"20s\"\n";
        let copies = four_copies(&defaults, 8, 100);
        let mut holder = Larder::run("session").config(&defaults).start();
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        holder.kill();
        let killed = Instant::now();
        wait_for("some of the lease to pass", || (killed.elapsed() >= Duration::from_millis(1500)).then_some(()));
        let copies: Vec<_> = copies.into_iter().map(let_go).collect();
        let lines: Vec<String> = copies.into_iter().flat_map(outcome_lines).collect();
        assert_one_computed(&server, "k", &lines);
        assert_eq!(lines.len(), 4 * 8);
    });
}

/// The part of a copy: many instances of one plugin on one runtime, each with a value of its own.
#[tokio::main(worker_threads = 2)]
async fn run_many(config: &str) {
    let number = |variable| std::env::var(variable).unwrap().parse::<usize>().unwrap();
    let (count, milliseconds) = (number(INSTANCES), number(MILLISECONDS));
    let runtime = Arc::new(Runtime::new(Config::from_toml(config).unwrap()).await.unwrap());
    let plugin = Arc::new(runtime.load(&guest("script"), None).unwrap());
    // On a new line, after the output of the test harness.
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let mut instances = JoinSet::new();
    for n in 0..count {
        let (runtime, plugin) = (Arc::clone(&runtime), Arc::clone(&plugin));
        let value = format!("{}-{n}", std::process::id());
        let options = RunOptions { args: vec![format!("slow k {value} {milliseconds}")], ..RunOptions::default() };
        instances.spawn(async move { runtime.run(&plugin, &options).await });
    }
    let statuses = tokio::time::timeout(TEST_TIMEOUT, instances.join_all()).await.expect("a call hangs");
    assert!(statuses.iter().all(|status| matches!(status, Ok(0))), "{statuses:?}");
}

type Lines = Box<dyn Iterator<Item = String>>;

/// Four copies of this test, all of which are ready before the first is let go.
fn four_copies(config: &str, count: usize, milliseconds: usize) -> Vec<(Child, Lines)> {
    let copies: Vec<_> = (0..4).map(|_| start_copy(config, count, milliseconds)).collect();
    copies.into_iter().map(await_ready).collect()
}

fn start_copy(config: &str, count: usize, milliseconds: usize) -> Child {
    let path = concat!(module_path!(), "::of_many_instances_in_each_of_four_processes_one_computes");
    let (_crate, name) = path.split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(MANY, config)
        .env(INSTANCES, count.to_string())
        .env(MILLISECONDS, milliseconds.to_string())
        .env("LARDER_COMPILED", program().with_file_name("larder-compiled"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn await_ready(mut copy: Child) -> (Child, Lines) {
    let mut lines = BufReader::new(copy.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "ready"), "the copy ends before it is ready");
    (copy, Box::new(lines))
}

fn let_go((mut copy, lines): (Child, Lines)) -> (Child, Lines) {
    writeln!(copy.stdin.take().unwrap(), "go").unwrap();
    (copy, lines)
}

fn outcome_lines((mut copy, lines): (Child, Lines)) -> Vec<String> {
    let lines = lines.filter(|line| line.starts_with("computed ") || line.starts_with("received ")).collect();
    assert!(copy.wait().unwrap().success());
    lines
}
