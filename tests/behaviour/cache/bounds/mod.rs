//! The limits on a plugin. Each test is named after its key: a call at the limit succeeds, one above it fails, and
//! other plugins are not affected.
//!
//! - `answers`: the limit on the answers of the concurrent calls of one instance.
//! - `leases`: `max_lease`, how long a vacancy can keep other callers from computing.
//! - `plugins`: the limits on all instances of one plugin together, beside another plugin in the same process.

mod answers;
mod leases;
mod plugins;

use std::collections::BTreeSet;
use std::process::Command;

use larder_tests::documents::accepted_keys;
use larder_tests::{Kind, Larder, LarderOutput, Server, on_every_backend};

/// Runs the hostile plugin with this `[sandbox]`, over the default RAM cache.
fn attack(sandbox: &str, operations: &[&str]) -> LarderOutput {
    attack_with(&format!("[sandbox]\n{sandbox}\n"), operations)
}

fn attack_with(config: &str, operations: &[&str]) -> LarderOutput {
    let run = Larder::run("hostile").config(config);
    operations.iter().fold(run, |run, operation| run.arg(operation)).finish()
}

/// The plugin ends in peace, and has printed this.
fn assert_says(run: &LarderOutput, stdout: &str) {
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert_eq!(run.stdout, stdout);
}

/// Asserts that the plugin is stopped with one line that names the limit.
fn assert_stopped(run: &LarderOutput, words: &str) {
    assert_eq!(run.status, Some(1), "{run:#?}");
    let last = run.stderr.lines().last().unwrap_or_default();
    // Output of the plugin, without a line end, may come before it.
    let ours = last.find("larder: plugin `hostile` was stopped: ").unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(last[ours..].contains(words), "`{words}` is not in: {last}");
}

#[test]
fn max_handles_bounds_the_handles_of_an_instance() {
    let run = attack("max_handles = 3", &["handles", "handles", "set k v"]);
    let line = "3 error Other(\"too many open handles: the limit is 3\")\n";
    assert_says(&run, &format!("{line}{line}ok\n"));
}

#[test]
fn max_vacancies_bounds_the_vacancies_of_an_instance() {
    on_every_backend(|config| {
        let config = format!("{config}[sandbox]\nmax_vacancies = 5\nmax_handles = 1\n");
        let run = attack_with(&config, &["vacancies", "vacancies", "set k v"]);
        let line = "5 error Other(\"too many vacancies: the limit is 5\")\n";
        assert_says(&run, &format!("{line}{line}ok\n"));
    });
}

#[test]
fn max_key_bytes_bounds_a_key() {
    let run = attack("max_key_bytes = 10", &["key 10", "key 11", "batch 3", "clear kkkkkkkkkk"]);
    let refusal = "error InvalidArgument(\"key: must not be longer than 10 bytes, but has 11\")";
    assert_says(&run, &format!("ok\n{refusal}\nok 3\ntrue\n"));
}

#[test]
fn max_pattern_bytes_bounds_a_pattern() {
    let run = attack("max_pattern_bytes = \"10B\"", &["set pppppppppp v", "pattern 10", "pattern 11"]);
    let refusal = "error InvalidArgument(\"pattern: must not be longer than 10 bytes, but has 11\")";
    assert_says(&run, &format!("ok\n1\n{refusal}\n"));
}

#[test]
fn max_batch_bounds_the_keys_of_a_batch() {
    let refusal = |argument: &str, max: usize| {
        format!("error InvalidArgument(\"{argument}: must not be more than {max}, but are {}\")", max + 1)
    };
    let both = |max: usize| format!("ok {max}\n{} {}\n", refusal("entries", max), refusal("keys", max));
    assert_says(&attack("max_batch = 1", &["batch 1", "batch 2"]), &both(1));
    assert_says(&attack("max_batch = 65536", &["batch 65536", "batch 65537"]), &both(65536));
}

#[test]
fn max_batch_bytes_bounds_the_bytes_of_a_batch() {
    let run = attack("max_batch_bytes = \"1KB\"", &["batch-bytes 100 6", "batch-bytes 91 7", "get 0090", "batch 500"]);
    let refusal = |argument: &str, bytes: usize| {
        format!("error InvalidArgument(\"{argument}: must not be over 1000 bytes, but are {bytes}\")")
    };
    // 500 keys have 1390 digits, and a value of one byte each.
    let (entries, keys) = (refusal("entries", 1890), refusal("keys", 1390));
    assert_says(&run, &format!("ok\n{}\nhit 100000\n{entries} {keys}\n", refusal("entries", 1001)));
}

#[test]
fn max_cpu_time_bounds_the_time_a_plugin_computes() {
    let config = "max_cpu_time = \"300ms\"\ntimeout = \"50s\"";
    for deed in ["compute", "compute-and-call"] {
        let run = attack(config, &["set k v", deed]);
        assert_stopped(&run, "it used more than 300ms of processor time (`max_cpu_time` of `[sandbox]`)");
        assert_eq!(run.stdout, "ok\n");
    }
}

#[test]
fn max_cpu_time_does_not_count_waiting() {
    // Long enough for a busy machine to start the plugin in.
    assert_says(&attack("max_cpu_time = \"1s\"", &["sleep 2000"]), "slept\n");
}

#[test]
fn max_output_bounds_what_a_run_writes() {
    let run = attack("max_output = 1000", &["write stdout 600", "write stderr 400"]);
    assert_says(&run, &"x".repeat(600));
    assert_eq!(run.stderr, "x".repeat(400));
    let run = attack("max_output = 1000", &["write stdout 600", "write stderr 401", "set k v"]);
    assert_stopped(&run, "it tried to write more than 1000 B (`max_output` of `[sandbox]`)");
    assert_eq!(run.stdout, "x".repeat(600));
    assert!(run.stderr.starts_with(&("x".repeat(400) + "larder: ")), "{}", run.stderr);
    let run = attack("max_output = 1000", &["write stdout 1000000"]);
    assert_stopped(&run, "`max_output` of `[sandbox]`");
    assert_eq!(run.stdout, "x".repeat(1000), "what was within the bound is not lost");
}

#[test]
fn max_log_lines_bounds_the_log_of_failing_calls() {
    for kind in Kind::ALL {
        let acl = ["--user", "worker", "on", ">s3cret", "~cache:*", "+@all", "-set"];
        let Some(server) = Server::start_with(kind, &acl) else { continue };
        let config = server.cache("c") + "username = \"worker\"\npassword = \"s3cret\"\n";
        let logged = |more: &str, calls: usize| {
            let run = attack_with(&format!("{config}{more}"), &[&format!("fail {calls}")]);
            assert_says(&run, &format!("{calls} failed\n"));
            let (left_out, lines): (Vec<&str>, Vec<&str>) =
                run.stderr.lines().partition(|line| line.contains("further ones are suppressed"));
            assert!(lines.iter().all(|line| line.contains("the server refused")), "{}", run.stderr);
            (lines.len(), left_out.len())
        };
        assert_eq!(logged("", 100), (100, 0));
        assert_eq!(logged("", 250), (100, 1));
        assert_eq!(logged("[sandbox]\nmax_log_lines = 3\n", 3), (3, 0));
        assert_eq!(logged("[sandbox]\nmax_log_lines = 3\n", 4), (3, 1));
    }
}

#[test]
fn no_plugin_name_forges_a_log_line_of_the_host() {
    let forged = "shop\nlarder: all is well\u{1b}[2J";
    let run = Larder::run_with(&["--name", forged], "misbehave").arg("trap").fail(1);
    let start = "larder: plugin `shop\\nlarder: all is well\\u{1b}[2J` trapped: ";
    assert!(run.error_line().starts_with(start), "{}", run.stderr);
    // An export twice, by a name that the component's author chose.
    let export = "(export \"a\\nlarder: well\" (func 0))";
    let component = wat::parse_str(format!("(component (core module (func) {export} {export}))")).unwrap();
    let larder = Larder::new(["run", "plugin.wasm"]);
    std::fs::write(larder.folder().join("plugin.wasm"), component).unwrap();
    let run = larder.fail(1);
    assert!(run.error_line().contains("a\\nlarder: well"), "{}", run.stderr);
}

/// As the program of these tests lists them.
#[test]
fn every_limit_has_a_test_named_after_its_key() {
    let list = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(|path| path.rsplit("::").next().unwrap_or(path))
        .collect();
    let caches = ["[caches.c]\ntype = \"ram\"", "[caches.c]\ntype = \"valkey\""];
    let keys = caches.into_iter().chain(["[plugins.p]", "[sandbox]", "[serve]"]).flat_map(accepted_keys);
    let limits: BTreeSet<String> = keys.filter(|key| key.starts_with("max_")).collect();
    for of_each_table in ["max_value_bytes", "max_concurrent_calls", "max_memory", "max_concurrent_requests"] {
        assert!(limits.contains(of_each_table), "{limits:?}");
    }
    for limit in limits {
        let is_named = |test: &&str| test.starts_with(&format!("{limit}_"));
        assert!(tests.iter().any(is_named), "no test is named after `{limit}`");
    }
}
