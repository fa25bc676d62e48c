//! What a plugin can see of the machine, and what it cannot do to its host.

use std::net::TcpListener;

use larder_tests::{Kind, Larder, Server};

/// A plugin that exceeds a limit, and the line that names it.
fn is_stopped(misdeed: &str, config: &str, words: &[&str]) {
    // Standard input stays open, so that reading it never ends.
    let mut run = Larder::run("misbehave").arg(misdeed).config(config).start();
    assert_eq!(run.read_line(), "");
    let run = run.finish();
    assert_eq!(run.status, Some(1), "{run:#?}");
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("larder: plugin `misbehave` was stopped: "), "{}", run.stderr);
    assert_eq!(run.stderr.matches("larder: ").count(), 1, "{}", run.stderr);
    for words in words {
        assert!(last.contains(words), "`{words}` is not in: {last}");
    }
}

const HALF_A_SECOND: &str = "[sandbox]\ntimeout = \"500ms\"\n";

#[test]
fn max_memory_stops_a_plugin_that_allocates_without_end() {
    is_stopped("allocate", "", &["128.0 MiB", "`max_memory` of `[sandbox]`"]);
    is_stopped("allocate", "[sandbox]\nmax_memory = \"16MiB\"\n", &["16.0 MiB", "`max_memory` of `[sandbox]`"]);
}

#[test]
fn a_plugin_that_spins_without_calling_the_host_is_stopped_after_its_time() {
    is_stopped("spin", HALF_A_SECOND, &["longer than 500ms", "`timeout` of `[sandbox]`"]);
}

#[test]
fn a_plugin_that_waits_in_a_host_call_is_stopped_after_its_time() {
    is_stopped("read", HALF_A_SECOND, &["longer than 500ms", "`timeout` of `[sandbox]`"]);
    is_stopped("sleep", HALF_A_SECOND, &["longer than 500ms", "`timeout` of `[sandbox]`"]);
}

#[test]
fn a_trap_is_status_1_and_one_line_of_the_host() {
    let run = Larder::run("misbehave").arg("trap").fail(1);
    assert!(run.error_line().starts_with("larder: plugin `misbehave` trapped: "), "{}", run.stderr);
    assert!(run.stderr.contains("unreachable"), "{}", run.stderr);
    let run = Larder::run_with(&["--name", "shop"], "misbehave").arg("recurse").fail(1);
    assert!(run.error_line().starts_with("larder: plugin `shop` trapped: "), "{}", run.stderr);
    assert!(run.stderr.contains("call stack exhausted"), "{}", run.stderr);
    // A panic's own words come from the plugin, the last line from the host.
    let run = Larder::run("misbehave").arg("panic").fail(1);
    assert!(run.stderr.contains("on request"), "{}", run.stderr);
    assert_eq!(run.stderr.matches("larder: ").count(), 1, "{}", run.stderr);
}

/// `wasi:cli/exit` of WASI 0.2 carries success or failure and no number, so a plugin's 7 arrives as 1.
#[test]
fn the_exit_status_of_the_plugin_is_that_of_the_program() {
    assert_eq!(Larder::run("misbehave").arg("exit").arg("0").succeed().stderr, "");
    assert_eq!(Larder::run("misbehave").arg("exit").arg("7").fail(1).stderr, "");
    let run = Larder::run("misbehave").arg("fail").fail(1);
    assert_eq!(run.error_line(), "Error: no cache of that name is configured");
}

fn look(options: &[&str], words: &[&str]) -> String {
    let run = words.iter().fold(Larder::run_with(options, "surroundings"), |run, word| run.arg(word));
    run.env("HOST_SECRET", "s3cret").succeed().stdout
}

#[test]
fn arguments_arrive_as_given() {
    assert_eq!(look(&[], &["args", "a b", "--name", "-x", "", "é"]), "a b\n--name\n-x\n\né\n");
    let run = Larder::run("surroundings").arg("--config").arg("x").fail(1);
    assert!(run.stderr.contains("unknown operation: [\"--config\", \"x\"]"), "{}", run.stderr);
}

#[test]
fn variables_of_the_command_line_override_those_of_the_plugins_table() {
    let config = "[plugins.surroundings]\nenv = { A = \"table\", B = \"table\" }\n";
    let run = Larder::run_with(&["--env", "A=run"], "surroundings").config(config).arg("env").succeed();
    let mut lines: Vec<&str> = run.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=run", "B=table"]);
}

#[test]
fn the_plugin_has_its_configured_environment_and_none_of_the_host() {
    assert_eq!(look(&[], &["env"]), "");
    assert_eq!(look(&["--env", "A=1", "--env", "B=x=y"], &["env"]), "A=1\nB=x=y\n");
}

#[test]
fn the_plugin_sees_its_mounted_folder_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("note"), "hello").unwrap();
    std::fs::write(folder.path().join("secret"), "s3cret").unwrap();
    let dir = format!("{}::/data", inner.display());
    let look = |words: &[&str]| look(&["--dir", &dir], words);
    assert_eq!(look(&["list", "/data"]), "note\n");
    assert_eq!(look(&["read", "/data/note"]), "hello\n");
    assert_eq!(look(&["write", "/data/new", "text"]), "ok\n");
    assert_eq!(std::fs::read_to_string(inner.join("new")).unwrap(), "text");
    std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
    let secret = folder.path().join("secret").display().to_string();
    for outside in ["/data/../secret", "/data/link", &secret, "/etc/passwd", "note"] {
        let found = look(&["read", outside]);
        assert!(found == "denied\n" || found.starts_with("error "), "{outside}: {found}");
    }
    for folder in ["/", ".", "/data/.."] {
        let found = look(&["list", folder]);
        assert!(found == "denied\n" || found.starts_with("error "), "{folder}: {found}");
    }
}

#[test]
fn without_a_folder_there_is_no_file_system() {
    for words in [["list", "/"], ["list", "."], ["read", "larder.toml"]] {
        let found = look(&[], &words);
        assert!(found == "denied\n" || found.starts_with("error "), "{words:?}: {found}");
    }
}

#[test]
fn the_network_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_eq!(look(&[], &["connect", &address]), "denied\n");
    assert_eq!(look(&[], &["send", &address]), "denied\n");
    assert_eq!(look(&[], &["listen"]), "denied\n");
    assert!(look(&[], &["resolve", "localhost"]).starts_with("error "));
}

#[test]
fn a_trap_that_holds_a_vacancy_does_not_delay_the_next_run() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        // A vacancy left behind would be waited for, far beyond the time that the next run has.
        let config = server.cache("c") + "wait = \"10m\"\n[sandbox]\ntimeout = \"20s\"\n";
        Larder::run("misbehave").config(&config).arg("trap-with-vacancy").arg("report").fail(1);
        let next = Larder::run("script").config(&config).arg("get report").arg("get-or-set report 42").succeed();
        assert_eq!(next.stdout, "miss\nfilled true\n");
    }
}
