//! Plugins in Python and JavaScript that use `wasi:keyvalue` and `wasi:config`, built by componentize-py and componentize-qjs.

use std::path::{Path, PathBuf};

use larder_tests::{Kind, Larder, LarderOutput, Server, language_plugin};

fn plugins() -> impl Iterator<Item = (&'static str, PathBuf)> {
    ["python-keyvalue", "javascript-keyvalue"].into_iter().filter_map(|name| Some((name, language_plugin(name)?)))
}

/// An interpreter takes many seconds to compile the first time.
fn call(plugin: &Path, config: &str, call: &str) -> LarderOutput {
    let config = format!("{config}[sandbox]\ncompile_timeout = \"10m\"\ntimeout = \"2m\"\nmax_cpu_time = \"2m\"\n");
    Larder::new(["run", "--invoke", call]).config(&config).arg(plugin).finish()
}

#[test]
fn python_and_javascript_use_the_caches_by_wasi_keyvalue() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for (name, plugin) in plugins() {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        for (operation, printed) in [
            ("look(\"k\")", "ok(none)"),
            ("keep(\"\", \"k\", \"grüße\")", "ok(\"grüße\")"),
            ("look(\"k\")", "ok(some(\"grüße\"))"),
            ("keep(\"cache\", \"l\", \"\")", "ok(\"\")"),
            ("names()", "ok([\"k\", \"l\"])"),
            ("add(\"n\", -5)", "ok(-5)"),
            // JavaScript's numbers are exact up to 2^53.
            ("add(\"n\", 9007199254740991)", "ok(9007199254740986)"),
            ("swap(\"k\", none, \"two\")", "ok(true)"),
            ("look(\"k\")", "ok(some(\"two\"))"),
            ("swap(\"k\", some(\"other\"), \"three\")", "ok(false)"),
            ("look(\"k\")", "ok(some(\"other\"))"),
            ("forget(\"k\")", "ok(false)"),
            ("numbers(3)", "ok([some(\"0\"), some(\"1\"), some(\"2\"), none])"),
            ("names()", "ok([\"l\", \"n\"])"),
        ] {
            let run = call(&plugin, &server.cache("cache"), operation);
            assert_eq!((run.status, run.stdout.trim_end()), (Some(0), printed), "{name}: {operation}: {run:#?}");
        }
    }
}

#[test]
fn python_and_javascript_get_the_errors_of_wasi_keyvalue() {
    let ram = "[caches.cache]\ntype = \"ram\"\n";
    for (name, plugin) in plugins() {
        let read_only = format!("{ram}[plugins.{name}]\naccess = \"read-only\"\n");
        for (config, operation, error) in [
            (ram, "keep(\"none\", \"k\", \"v\")", "no-such-store"),
            (&read_only, "keep(\"\", \"k\", \"v\")", "access-denied"),
            (&read_only, "swap(\"k\", none, \"v\")", "access-denied"),
            (ram, "keep(\"\", \"\", \"v\")", "other: key: must not be empty"),
        ] {
            let run = call(&plugin, config, operation);
            assert!(run.status == Some(1) && run.stdout.contains(error), "{name}: {operation}: {run:#?}");
        }
    }
}

#[test]
fn python_and_javascript_read_settings() {
    for (name, plugin) in plugins() {
        let config = format!("[caches.cache]\ntype = \"ram\"\n[plugins.{name}]\nconfig = {{ region = \"eu\" }}\n");
        for (operation, printed) in [("setting(\"region\")", "ok(some(\"eu\"))"), ("setting(\"x\")", "ok(none)")] {
            let run = call(&plugin, &config, operation);
            assert_eq!((run.status, run.stdout.trim_end()), (Some(0), printed), "{name}: {operation}: {run:#?}");
        }
    }
}
