//! Interfaces that a component imports more than once, under labels: each opens the cache that `imports` names for it.
//!
//! The component linker of the pinned Rust toolchain knows no labels, so the component is encoded here: its code is text, and its
//! types are those of the WIT.

use std::path::{Path, PathBuf};

use larder_tests::{Kind, Larder, LarderOutput, Server};
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The exports of a label `team-a`: `set-team-a` returns 0, or 100 and the number of the error's case if `open` fails, or 1 if
/// `set` does. `get-team-a` returns the text of the value, or `none`, or `failed`.
const WORLD: &str = "
    package test:labels;

    world plugin {
        import team-a: wasi:keyvalue/store@VERSION;
        import team-b: wasi:keyvalue/store@VERSION;
        export set-team-a: func(identifier: string, key: string, value: string) -> u32;
        export set-team-b: func(identifier: string, key: string, value: string) -> u32;
        export get-team-a: func(identifier: string, key: string) -> string;
        export get-team-b: func(identifier: string, key: string) -> string;
    }";

/// The code for one label, which is `$L`. A result is written to the address 16; texts are at 64.
const CODE: &str = r#"
    (func $set-$L (export "set-$L") (param i32 i32 i32 i32 i32 i32) (result i32)
        (call $open-$L (local.get 0) (local.get 1) (i32.const 16))
        (if (i32.load8_u (i32.const 16))
            (then (return (i32.add (i32.const 100) (i32.load8_u (i32.const 20))))))
        (call $set-call-$L (i32.load (i32.const 20)) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (i32.const 32))
        (i32.load8_u (i32.const 32)))
    (func $get-$L (export "get-$L") (param i32 i32 i32 i32) (result i32)
        (i32.store (i32.const 8) (i32.const 64))
        (i32.store (i32.const 12) (i32.const 6))
        (call $open-$L (local.get 0) (local.get 1) (i32.const 16))
        (if (i32.load8_u (i32.const 16)) (then (return (i32.const 8))))
        (call $get-call-$L (i32.load (i32.const 20)) (local.get 2) (local.get 3) (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then (return (i32.const 8))))
        (i32.store (i32.const 8) (i32.const 70))
        (i32.store (i32.const 12) (i32.const 4))
        (if (i32.load8_u (i32.const 36))
            (then
                (i32.store (i32.const 8) (i32.load (i32.const 40)))
                (i32.store (i32.const 12) (i32.load (i32.const 44)))))
        (i32.const 8))
"#;

const IMPORTS: &str = r#"
    (import "$L" "open" (func $open-$L (param i32 i32 i32)))
    (import "$L" "[method]bucket.set" (func $set-call-$L (param i32 i32 i32 i32 i32 i32)))
    (import "$L" "[method]bucket.get" (func $get-call-$L (param i32 i32 i32 i32)))
"#;

/// What the labels have in common.
const REST: &str = r#"
    (memory (export "memory") 1)
    (data (i32.const 64) "failednone")
    (global $free (mut i32) (i32.const 1024))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (local $given i32)
        (local.set $given (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
        (global.set $free (i32.add (local.get $given) (local.get 3)))
        (local.get $given))
"#;

/// Writes the plugin `labels.wasm`, which imports this version of `wasi:keyvalue/store` as `team-a` and as `team-b`.
fn plugin(folder: &TempDir, version: &str) -> PathBuf {
    let mut resolve = Resolve::default();
    let wit = larder_tests::repository::root().join("host/runtime/foreign-wit");
    let package = if version.ends_with("draft2") { "keyvalue-draft2" } else { "keyvalue-draft" };
    resolve.push_path(wit.join(package)).unwrap();
    let package = resolve.push_str("labels.wit", &WORLD.replace("VERSION", version)).unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let each = |text: &str| ["team-a", "team-b"].map(|label| text.replace("$L", label)).concat();
    let mut module = wat::parse_str(format!("(module {} {REST} {})", each(IMPORTS), each(CODE))).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let component = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    let path = folder.path().join("labels.wasm");
    std::fs::write(&path, component).unwrap();
    path
}

const VERSIONS: [&str; 2] = ["0.2.0-draft", "0.2.0-draft2"];

/// Runs a call of a plugin. Its caches on the server are `one`, `two` and `three`.
fn call(plugin: &Path, config: &str, call: &str) -> Larder {
    Larder::new(["run".as_ref(), "--invoke".as_ref(), call.as_ref(), plugin.as_os_str()]).config(config)
}

fn printed(run: Larder) -> String {
    run.succeed().stdout.trim_end().to_owned()
}

fn caches(server: &Server) -> String {
    let cache = |name: &str| format!("{}prefix = \"{name}:\"\n", server.cache(name));
    format!("default = \"three\"\n{}{}{}", cache("one"), cache("two"), cache("three"))
}

#[test]
fn each_label_opens_the_cache_that_is_named_for_it() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for version in VERSIONS {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        let folder = TempDir::new().unwrap();
        let plugin = plugin(&folder, version);
        let config = caches(&server) + "[plugins.labels]\nimports = { team-a = \"one\", team-b = \"two\" }\n";
        for (identifier, key) in [("", "k"), ("default", "l"), ("one", "m")] {
            assert_eq!(
                printed(call(&plugin, &config, &format!("set-team-a(\"{identifier}\", \"{key}\", \"a\")"))),
                "0"
            );
        }
        assert_eq!(printed(call(&plugin, &config, "set-team-b(\"\", \"k\", \"b\")")), "0");
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.client()).unwrap();
        keys.sort_unstable();
        assert_eq!(keys, ["one:k", "one:l", "one:m", "two:k"], "{version}");
        assert_eq!(printed(call(&plugin, &config, "get-team-a(\"\", \"k\")")), "\"a\"");
        assert_eq!(printed(call(&plugin, &config, "get-team-b(\"two\", \"k\")")), "\"b\"");
        assert_eq!(printed(call(&plugin, &config, "get-team-b(\"\", \"l\")")), "\"none\"");
        // A label opens no other cache, though the plugin may: the first case of the error is `no-such-store`.
        for other in ["two", "three", "four"] {
            assert_eq!(printed(call(&plugin, &config, &format!("set-team-a(\"{other}\", \"k\", \"x\")"))), "100");
        }
    }
}

#[test]
fn a_label_has_the_access_and_the_namespace_of_the_plugin() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, VERSIONS[1]);
    let table = "[plugins.labels]\nimports = { team-a = \"one\", team-b = \"one\" }\ncaches = [\"one\"]\n";
    let config = caches(&server) + table;
    assert_eq!(
        printed(call(&plugin, &(config.clone() + "namespace = \"n\"\n"), "set-team-a(\"\", \"k\", \"v\")")),
        "0"
    );
    assert_eq!(printed(call(&plugin, &config, "get-team-b(\"\", \"k\")")), "\"none\"");
    let named = config.clone() + "namespace = \"n\"\n";
    assert_eq!(printed(call(&plugin, &named, "get-team-b(\"\", \"k\")")), "\"v\"");
    let read_only = config + "access = \"read-only\"\n";
    assert_eq!(printed(call(&plugin, &read_only, "set-team-a(\"\", \"k\", \"v\")")), "1");
}

#[test]
fn a_label_without_a_cache_is_refused_with_what_to_write() {
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, VERSIONS[1]);
    let config = "[caches.one]\ntype = \"ram\"\n[plugins.labels]\nimports = { team-a = \"one\" }\n";
    let run: LarderOutput = call(&plugin, config, "get-team-a(\"\", \"k\")").fail(1);
    let advice = "imports `wasi:keyvalue/store@0.2.0-draft2` under the label `team-b`: name its cache in `imports`";
    assert!(run.stderr.contains(advice), "{run:#?}");
}

#[test]
fn a_label_of_a_cache_that_the_plugin_may_not_open_is_an_error_of_the_configuration() {
    let caches = "default = \"one\"\n[caches.one]\ntype = \"ram\"\n[caches.two]\ntype = \"ram\"\n";
    for (table, rule) in [
        ("imports = { a = \"none\" }", "`a` must be one of the plugin's caches and not `none`: `one`, `two`"),
        (
            "caches = [\"one\"]\nimports = { a = \"two\" }",
            "`a` must be one of the plugin's caches and not `two`: `one`",
        ),
    ] {
        let run = Larder::new(["check"]).config(&format!("{caches}[plugins.labels]\n{table}\n")).fail(2);
        assert!(run.error_line().contains(rule) && run.error_line().contains("imports"), "{run:#?}");
    }
}
