//! A plugin cannot read or change the values of another: grants and namespaces.

use larder_tests::{Kind, Larder, LarderOutput, Server, on_every_backend};
use redis::TypedCommands;

/// Runs the script under a plugin's name.
fn run_as(plugin: &str, config: &str, operations: &[&str]) -> LarderOutput {
    let run = Larder::run_with(&["--name", plugin], "script").config(config);
    operations.iter().fold(run, |run, operation| run.arg(operation)).succeed()
}

#[test]
fn a_cache_that_is_not_granted_is_denied_and_one_that_is_not_configured_is_unknown() {
    let config = "default = \"a\"\n[caches.a]\ntype = \"ram\"\n[caches.b]\ntype = \"ram\"\n\
                  [plugins.shop]\ncaches = [\"b\"]\n[plugins.barred]\ncaches = []\n";
    let denied = "error AccessDenied\n";
    let operations =
        ["open b", "set k v", "get k", "open a", "get k", "open c", "get k", "open B", "open", "open-default"];
    let unknown = "error NoSuchCache\n";
    let run = run_as("shop", config, &operations[..8]);
    assert_eq!(run.stdout, format!("ok\nhit v\n{denied}{unknown}{unknown}"));
    assert_eq!(run_as("shop", config, &["get k"]).stdout, "miss\n", "its only cache is its default");
    assert_eq!(
        run_as("barred", config, &["open a", "get k", "open b", "get k", "open c"]).stdout,
        denied.repeat(2) + unknown
    );
    assert_eq!(run_as("another", config, &["open a", "get k", "open b", "get k"]).stdout, "miss\nmiss\n");
}

#[test]
fn a_plugin_without_a_table_gets_nothing_if_unlisted_plugins_are_denied() {
    let config = "unlisted_plugins = \"deny\"\n[caches.a]\ntype = \"ram\"\n[plugins.shop]\n";
    assert_eq!(run_as("another", config, &["get k", "open a"]).stdout, "error AccessDenied\n".repeat(2));
    assert_eq!(run_as("shop", config, &["set k v", "get k"]).stdout, "ok\nhit v\n");
}

#[test]
fn the_default_cache_of_a_plugin_is_that_of_its_table() {
    let config = "default = \"a\"\n[caches.a]\ntype = \"ram\"\n[caches.b]\ntype = \"ram\"\n\
                  [plugins.shop]\ndefault = \"b\"\n[plugins.two]\ncaches = [\"b\", \"a\"]\n";
    let operations = ["set k v", "open a", "get k", "open b", "get k"];
    assert_eq!(run_as("shop", config, &operations).stdout, "ok\nmiss\nhit v\n");
    assert_eq!(run_as("two", config, &operations).stdout, "ok\nhit v\nmiss\n");
    let run =
        Larder::run("script").config(&config.replace("default = \"b\"", "caches = [\"a\"]\ndefault = \"b\"")).fail(2);
    assert!(run.stderr.contains("`plugins.shop.default`: must be one of the plugin's caches: `a`"), "{}", run.stderr);
}

#[test]
fn what_a_plugin_may_not_do_is_a_warning_once_that_names_the_cache_and_the_reason() {
    let config = "default = \"a\"\n[caches.a]\ntype = \"ram\"\nmax_value_bytes = 10\n[caches.b]\ntype = \"ram\"\n\
                  [plugins.shop]\ncaches = [\"a\"]\n[plugins.reader]\naccess = \"read-only\"\n";
    let warnings = |plugin: &str, operations: &[&str]| {
        let run = run_as(plugin, config, operations);
        let lines: Vec<String> = run.stderr.lines().map(ToOwned::to_owned).collect();
        assert!(lines.iter().all(|line| line.contains("WARN") && line.contains(plugin)), "{}", run.stderr);
        lines
    };
    let lines =
        warnings("shop", &["open c", "open d", "open b", "open b", "open a", "set-large k 11", "set-large k 12"]);
    let expected = [
        "the plugin asked for the cache `c`: there are only `a`, `b`",
        "the plugin asked for the cache `b`, which is not granted to it: granted are `a`",
        "value of 11 bytes is over the limit: 10",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "`{words}` is not in: {line}");
    }
    let lines = warnings("reader", &["set k v", "clear k", "set k w"]);
    assert!(lines.len() == 1 && lines[0].contains("the grant is read-only"), "{lines:#?}");
}

#[test]
fn a_misspelt_table_is_a_warning_at_the_start() {
    let config = "[plugins.scripd]\naccess = \"read-only\"\n";
    let run = run_as("script", config, &["get k"]);
    let warning = "plugin `script` has no table `[plugins.script]`, so it may use every cache; is `[plugins.scripd]` meant for it?";
    assert!(run.stderr.lines().count() == 1 && run.stderr.contains(warning), "{}", run.stderr);
    let config = "[plugins.another]\n[plugins.script]\n";
    assert_eq!(run_as("script", config, &["get k"]).stderr, "", "another plugin may use its table");
}

#[test]
fn a_read_only_grant_reads_and_changes_nothing() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c") + "[plugins.reader]\naccess = \"read-only\"\n";
        run_as("writer", &config, &["set k v"]);
        let operations = [
            "get k",
            "get-many k none",
            "set k w",
            "set n w 1000",
            "get-or-set k w",
            "clear k",
            "clear-pattern *",
            "clear-all",
        ];
        let run = run_as("reader", &config, &operations);
        assert_eq!(run.stdout, format!("hit v\nhit v miss\n{}", "error AccessDenied\n".repeat(6)));
        assert_eq!(server.client().keys("*").unwrap(), ["cache:k"]);
        assert_eq!(server.client().get("cache:k").unwrap().as_deref(), Some("v"));
    }
}

#[test]
fn a_read_only_grant_holds_in_ram_too() {
    on_every_backend(|config| {
        let config = format!("{config}[plugins.reader]\naccess = \"read-only\"\n");
        let run = run_as("reader", &config, &["set k v", "get k"]);
        assert_eq!(run.stdout, "error AccessDenied\nmiss\n");
    });
}

/// Two namespaces with a common prefix, and one that is a glob.
const PLUGINS: &str =
    "[plugins.a]\nnamespace = \"a\"\n[plugins.ab]\nnamespace = \"ab\"\n[plugins.star]\nnamespace = \"*\"\n";

#[test]
fn the_key_on_the_server_is_prefix_namespace_separator_key() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c") + PLUGINS;
        for plugin in ["a", "ab", "star", "shared"] {
            run_as(plugin, &config, &[&format!("set user:1 {plugin}")]);
        }
        let mut client = server.client();
        let mut keys = client.keys("*").unwrap();
        keys.sort();
        assert_eq!(keys, ["cache:*\u{1f}user:1", "cache:a\u{1f}user:1", "cache:ab\u{1f}user:1", "cache:user:1"]);
        assert_eq!(client.get("cache:ab\u{1f}user:1").unwrap().as_deref(), Some("ab"));
    }
}

#[test]
fn no_plugin_sees_or_clears_the_key_space_of_another() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c") + PLUGINS;
        let plugins = ["a", "ab", "star", "shared"];
        for plugin in plugins {
            run_as(plugin, &config, &["set only-here x", &format!("set user:1 {plugin}")]);
        }
        for plugin in plugins {
            let others = "get-many b\u{1f}user:1 auser:1 *user:1";
            let run =
                run_as(plugin, &config, &["get user:1", "clear-pattern *:1", "get user:1", "clear-all", "clear-all"]);
            assert_eq!(run.stdout, format!("hit {plugin}\n1\nmiss\n1\n0\n"));
            let run = run_as(plugin, &config, &["set user:1 again", others]);
            assert!(run.stdout.starts_with("ok\nerror InvalidArgument(\"key: must not hold control characters\")"));
        }
        assert_eq!(server.client().keys("*").unwrap().len(), 4);
    }
}

#[test]
fn plugins_with_one_namespace_share_it() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c") + "[plugins.p]\nnamespace = \"team\"\n[plugins.q]\nnamespace = \"team\"\n";
    run_as("p", &config, &["set k v"]);
    assert_eq!(run_as("q", &config, &["get k", "clear-all"]).stdout, "hit v\n1\n");
    assert_eq!(run_as("p", &config, &["get k"]).stdout, "miss\n");
}

#[test]
fn a_plugin_without_a_name_option_has_its_files() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c") + "[plugins.script]\nnamespace = \"by-file\"\n";
    Larder::run("script").config(&config).arg("set k v").succeed();
    assert_eq!(server.client().keys("*").unwrap(), ["cache:by-file\u{1f}k"]);
}
