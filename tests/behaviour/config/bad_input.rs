//! Invalid configurations, command lines and calls: each has its own message.

use larder_tests::{Kind, Larder, Server, on_every_backend};
use redis::TypedCommands;

/// Asserts that `larder run` ends with status 2 and one line that has the position and these words.
fn is_refused(config: &str, place: &str, words: &str) {
    let run = Larder::run("script").config(config).fail(2);
    let start = format!("larder: larder.toml:{place}: ");
    let message = run.error_line().strip_prefix(&start).unwrap_or_else(|| panic!("not at {place}: {}", run.stderr));
    assert!(message.contains(words), "`{words}` is not in: {message}");
    assert_eq!(run.stdout, "");
}

const SERVER: &str = "[caches.pages]\ntype = \"valkey\"\n";

#[test]
fn a_faulty_configuration_is_refused_with_file_line_column_and_key() {
    is_refused("[caches.pages\ntype = \"ram\"\n", "1:14", "");
    is_refused("# the caches\ndefualt = \"x\"\n", "2:1", "unknown key `defualt`");
    is_refused("[caches.pages]\ntype = \"ram\"\nprefix = \"x\"\n", "3:1", "unknown key `prefix`");
    is_refused("[sandbox]\nmemory = \"1MiB\"\n", "2:1", "unknown key `memory`");
    is_refused("[plugins.shop]\ncache = [\"ram\"]\n", "2:1", "unknown key `cache`");
    is_refused(&format!("{SERVER}port = \"6379\"\n"), "3:8", "`caches.pages.port`: ");
    is_refused(&format!("{SERVER}port = 70000\n"), "3:8", "must be from 1 to 65535, but is 70000");
    is_refused(&format!("{SERVER}port = 0\n"), "3:8", "must be from 1 to 65535, but is 0");
    is_refused(&format!("{SERVER}default_expire = -1\n"), "3:18", "must not be negative");
    is_refused(&format!("{SERVER}timeout = \"1000years\"\n"), "3:11", "must not be longer than 100 years");
    is_refused(&format!("{SERVER}password = \"${{NO_SUCH_PASSWORD}}\"\n"), "3:12", "`NO_SUCH_PASSWORD` is not set");
    is_refused("[caches.pages]\ntype = \"ram\"\nmax_bytes = \"-1MiB\"\n", "3:13", "`caches.pages.max_bytes`: ");
    is_refused("[caches.a]\ntype = \"ram\"\n[caches.b]\ntype = \"ram\"\n", "1:1", "`default` is missing");
    is_refused(&format!("default = \"page\"\n{SERVER}"), "1:11", "there is no cache `page`, only `pages`");
}

#[test]
fn a_grant_of_a_cache_that_does_not_exist_is_a_configuration_error() {
    let run = Larder::run("script").config("[plugins.shop]\ncaches = [\"redis\"]\n").fail(2);
    assert!(
        run.error_line().contains("`plugins.shop.caches`: there is no cache `redis`, only `ram`"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_missing_configuration_is_named() {
    let run = Larder::new(["--config", "none.toml", "check"]).fail(2);
    assert!(
        run.error_line().starts_with("larder: cannot read configuration `none.toml`: No such file"),
        "{}",
        run.stderr
    );
    let run = Larder::new(["check"]).env("LARDER_CONFIG", "nor-this.toml").fail(2);
    assert!(run.error_line().contains("`nor-this.toml`"), "{}", run.stderr);
}

#[test]
fn an_invalid_command_line_is_status_2_with_a_reason() {
    for (arguments, words) in [
        (&[][..], "Usage: larder"),
        (&["fly"], "'fly'"),
        (&["run"], "<PLUGIN>"),
        (&["run", "--env", "NO_VALUE", "p.wasm"], "must be KEY=VALUE"),
        (&["run", "--dir", "only-one", "p.wasm"], "must be HOST::GUEST"),
        (&["cache", "get"], "<KEY>"),
        (&["cache", "set", "k", "v", "--duration", "0"], "must be at least a millisecond"),
        (&["cache", "set", "k", "v", "--duration=-5"], "must not be negative"),
        (&["cache", "set", "k", "v", "--duration", "soon"], "`soon` is not a duration"),
    ] {
        let run = Larder::new(arguments).fail(2);
        assert!(run.stderr.contains(words), "{arguments:?}: `{words}` is not in: {}", run.stderr);
        assert_eq!(run.stdout, "", "{arguments:?}");
    }
}

#[test]
fn a_missing_folder_for_the_plugin_is_status_2() {
    let run = Larder::run_with(&["--dir", "no-such-folder::/data"], "script").fail(2);
    assert!(run.error_line().starts_with("larder: cannot open directory `no-such-folder`: "), "{}", run.stderr);
}

/// The plugin itself asserts each refusal: keys, values, durations, patterns and batches.
#[test]
fn bad_arguments_are_refused_and_change_nothing() {
    on_every_backend(|config| {
        assert_eq!(Larder::run("bad_arguments").config(config).succeed().stdout, "all refused\n")
    });
}

#[test]
fn handles_and_vacancies_are_limited_and_the_plugin_continues() {
    on_every_backend(|config| assert_eq!(Larder::run("handles").config(config).succeed().stdout, "bounded\n"));
}

#[test]
fn a_key_that_holds_a_list_of_another_program_is_an_error_that_is_logged_and_the_list_stays() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        server.client().rpush("cache:queue", &["a", "b", "c"]).unwrap();
        let script = Larder::run("script").config(&server.cache("c"));
        let run = script.arg("get queue").arg("get-or-set queue x").arg("get fine").succeed();
        let lines: Vec<&str> = run.stdout.lines().collect();
        let refusal = "error Other(\"the key holds a value of another type\")";
        assert_eq!((lines[0], lines[2]), (refusal, "miss"));
        assert_eq!(lines[1], refusal, "a `get-or-set` must not take the key for free");
        let is_reason = |line: &&str| line.contains(" WARN ") && line.contains("the key holds a value of another type");
        assert_eq!(run.stderr.lines().filter(is_reason).count(), 2, "{}", run.stderr);
        let list: Vec<String> = server.client().lrange("cache:queue", 0, -1).unwrap();
        assert_eq!(list, ["a", "b", "c"]);
    }
}
