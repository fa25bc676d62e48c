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
        import team-a: INTERFACE;
        import team-b: INTERFACE;
        export set-team-a: KIND func(identifier: string, key: string, value: string) -> u32;
        export set-team-b: KIND func(identifier: string, key: string, value: string) -> u32;
        export get-team-a: KIND func(identifier: string, key: string) -> string;
        export get-team-b: KIND func(identifier: string, key: string) -> string;
        MORE
    }";

/// The code for one label, which is `$L`. A result is written to the address 16; texts are at 64.
const CODE: &str = r#"
    (func $set-$L (export "set-$L") (param i32 i32 i32 i32 i32 i32) (result i32)
        (call $open-$L (local.get 0) (local.get 1) (i32.const 16))
        (if (i32.load8_u (i32.const 16))
            (then (return (i32.add (i32.const 100) (i32.load8_u (i32.const 20))))))
        (call $set-call-$L (i32.load (i32.const 20)) (local.get 2) (local.get 3) (local.get 4) (local.get 5) $OPTIONS (i32.const 32))
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
    (import "$L" "$OPEN" (func $open-$L (param i32 i32 i32)))
    (import "$BUCKET.set" (func $set-call-$L (param i32 i32 i32 i32 i32 $TYPES i32)))
    (import "$BUCKET.get" (func $get-call-$L (param i32 i32 i32 i32)))
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

/// An interface that opens caches.
#[derive(Clone, Copy)]
struct Interface {
    name: &'static str,
    /// The folder of its WIT.
    folder: &'static str,
    /// The function that opens a cache.
    open: &'static str,
    /// The module and the beginning of the names of the methods, in which `$L` is the label.
    bucket: &'static str,
    /// The core types of the options of `set`, and what asks for none.
    options: [&'static str; 2],
    kind: &'static str,
}

const DRAFT2: Interface = Interface {
    name: "wasi:keyvalue/store@0.2.0-draft2",
    folder: "keyvalue-draft2",
    open: "open",
    bucket: "$L\" \"[method]bucket",
    options: ["", ""],
    kind: "",
};

const INTERFACES: [Interface; 4] = [
    Interface { name: "wasi:keyvalue/store@0.2.0-draft", folder: "keyvalue-draft", ..DRAFT2 },
    DRAFT2,
    Interface {
        name: "fermyon:spin/key-value@2.0.0",
        folder: "spin-key-value",
        open: "[static]store.open",
        bucket: "$L\" \"[method]store",
        ..DRAFT2
    },
    Interface {
        name: "wasmcloud:keyvalue/store@0.2.0",
        folder: "keyvalue-wasmcloud",
        bucket: "wasmcloud:keyvalue/types@0.2.0\" \"[method]bucket",
        options: ["i32 i32 i64 i32", "(i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0)"],
        kind: "async",
        ..DRAFT2
    },
];

/// Counters and batches without a label, beside the labels.
const COUNTER: [&str; 3] = [
    "import wasi:keyvalue/store@0.2.0-draft2;
     import wasi:keyvalue/atomics@0.2.0-draft2;
     import wasi:keyvalue/batch@0.2.0-draft2;
     export add: func(key: string) -> s64;
     export forget: func(key: string) -> u32;",
    r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
       (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))
       (import "wasi:keyvalue/batch@0.2.0-draft2" "delete-many" (func $delete-many (param i32 i32 i32 i32)))"#,
    r#"(func (export "add") (param i32 i32) (result i64)
           (call $open (i32.const 0) (i32.const 0) (i32.const 16))
           (call $increment (i32.load (i32.const 20)) (local.get 0) (local.get 1) (i64.const 1) (i32.const 32))
           (i64.load (i32.const 40)))
       (func (export "forget") (param i32 i32) (result i32)
           (call $open (i32.const 0) (i32.const 0) (i32.const 16))
           (i32.store (i32.const 96) (local.get 0))
           (i32.store (i32.const 100) (local.get 1))
           (call $delete-many (i32.load (i32.const 20)) (i32.const 96) (i32.const 1) (i32.const 32))
           (i32.load8_u (i32.const 32)))"#,
];

/// Writes the plugin `labels.wasm`, which imports an interface as `team-a` and as `team-b`.
fn plugin(folder: &TempDir, interface: Interface) -> PathBuf {
    plugin_with(folder, interface, [""; 3])
}

/// As [`plugin`], with more in its WIT, its imports and its code.
fn plugin_with(folder: &TempDir, interface: Interface, more: [&str; 3]) -> PathBuf {
    let mut resolve = Resolve::default();
    let wit = larder_tests::repository::root().join("host/runtime/foreign-wit");
    resolve.push_path(wit.join(interface.folder)).unwrap();
    let world = WORLD.replace("INTERFACE", interface.name).replace("KIND", interface.kind).replace("MORE", more[0]);
    let package = resolve.push_str("labels.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let [types, options] = interface.options;
    let each = |text: &str| {
        let text = text.replace("$OPEN", interface.open).replace("$BUCKET", interface.bucket);
        let text = text.replace("$TYPES", types).replace("$OPTIONS", options);
        ["team-a", "team-b"].map(|label| text.replace("$L", label)).concat()
    };
    let imports = each(IMPORTS);
    let module = format!("(module {imports} {} {REST} {} {})", more[1], each(CODE), more[2]);
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let component = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    let path = folder.path().join("labels.wasm");
    std::fs::write(&path, component).unwrap();
    path
}

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
fn each_label_opens_the_cache_that_is_named_for_it_by_any_identifier() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for interface in INTERFACES {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        let folder = TempDir::new().unwrap();
        let plugin = plugin(&folder, interface);
        let config = caches(&server) + "[plugins.labels]\nimports = { team-a = \"one\", team-b = \"two\" }\n";
        // The identifiers are the other project's own, also if a cache has such a name.
        for (identifier, key) in
            [("", "k"), ("default", "l"), ("one", "m"), ("bucket", "n"), ("two", "o"), ("three", "p")]
        {
            assert_eq!(
                printed(call(&plugin, &config, &format!("set-team-a(\"{identifier}\", \"{key}\", \"a\")"))),
                "0",
                "{}",
                interface.name
            );
        }
        assert_eq!(printed(call(&plugin, &config, "set-team-b(\"bucket\", \"k\", \"b\")")), "0");
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.client()).unwrap();
        keys.sort_unstable();
        let expected = ["one:k", "one:l", "one:m", "one:n", "one:o", "one:p", "two:k"];
        assert_eq!(keys, expected, "{}", interface.name);
        assert_eq!(printed(call(&plugin, &config, "get-team-a(\"bucket\", \"k\")")), "\"a\"");
        assert_eq!(printed(call(&plugin, &config, "get-team-b(\"aba\", \"k\")")), "\"b\"");
        assert_eq!(printed(call(&plugin, &config, "get-team-b(\"one\", \"l\")")), "\"none\"");
    }
}

#[test]
fn labels_may_open_caches_of_different_backends() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, DRAFT2);
    let table = "[plugins.labels]\nimports = { team-a = \"ram\", team-b = \"one\" }\n";
    let config = caches(&server) + "[caches.ram]\ntype = \"ram\"\n" + table;
    assert_eq!(printed(call(&plugin, &config, "set-team-a(\"\", \"k\", \"a\")")), "0");
    assert_eq!(printed(call(&plugin, &config, "get-team-b(\"\", \"k\")")), "\"none\"");
    assert_eq!(printed(call(&plugin, &config, "set-team-b(\"\", \"k\", \"b\")")), "0");
    assert_eq!(printed(call(&plugin, &config, "get-team-a(\"\", \"k\")")), "\"none\"", "RAM is empty after a run");
    assert_eq!(printed(call(&plugin, &config, "get-team-b(\"\", \"k\")")), "\"b\"");
}

#[test]
fn an_interface_without_a_label_is_served_beside_those_with_one() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let folder = TempDir::new().unwrap();
    let plugin = plugin_with(&folder, DRAFT2, COUNTER);
    let config = caches(&server) + "[plugins.labels]\nimports = { team-a = \"one\", team-b = \"two\" }\n";
    assert_eq!(printed(call(&plugin, &config, "set-team-a(\"\", \"n\", \"41\")")), "0");
    // It counts in the default cache.
    assert_eq!(printed(call(&plugin, &config, "add(\"n\")")), "1");
    assert_eq!(printed(call(&plugin, &config, "add(\"n\")")), "2");
    assert_eq!(printed(call(&plugin, &config, "get-team-a(\"\", \"n\")")), "\"41\"");
    let same = config.replace("team-a = \"one\"", "team-a = \"three\"");
    assert_eq!(printed(call(&plugin, &same, "get-team-a(\"\", \"n\")")), "\"2\"");
    assert_eq!(printed(call(&plugin, &config, "forget(\"n\")")), "0");
    assert_eq!(printed(call(&plugin, &same, "get-team-a(\"\", \"n\")")), "\"none\"");
    assert_eq!(printed(call(&plugin, &config, "get-team-a(\"\", \"n\")")), "\"41\"");
}

#[test]
fn a_label_has_the_access_and_the_namespace_of_the_plugin() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, DRAFT2);
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

/// The reason for which a plugin with these labels is not loaded, and the line of its table.
fn reason(labels: &[&str], line: &str) -> String {
    let label = |label: &&str| format!("`wasi:keyvalue/store@0.2.0-draft2` under the label `{label}`");
    let imports = labels.iter().map(label).collect::<Vec<_>>().join(", and ");
    format!("it imports {imports}: name a cache for each label in the plugin's table, as in `imports = {{ {line} }}`")
}

#[test]
fn a_label_without_a_cache_is_refused_with_what_to_write() {
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, DRAFT2);
    let cache = "[caches.one]\ntype = \"ram\"\n";
    let one = format!("{cache}[plugins.labels]\nimports = {{ team-a = \"one\" }}\n");
    let both = ["team-a", "team-b"];
    for (config, labels, line) in [
        (one.as_str(), &both[1..], "team-a = \"one\", team-b = \"CACHE\""),
        (cache, &both, "team-a = \"CACHE\", team-b = \"CACHE\""),
    ] {
        let run: LarderOutput = call(&plugin, config, "get-team-a(\"\", \"k\")").fail(1);
        let expected = format!("larder: cannot load plugin `{}`: {}", plugin.display(), reason(labels, line));
        assert_eq!(run.error_line(), expected);
    }
}

fn inspect(plugin: &Path, options: &[&str], config: &str) -> Larder {
    Larder::new(["plugin", "inspect"].iter().chain(options)).config(config).arg(plugin)
}

#[test]
fn labels_without_a_cache_are_marked_and_explained_one_by_one() {
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, DRAFT2);
    let cache = "[caches.one]\ntype = \"ram\"\n";
    let run = inspect(&plugin, &[], cache).fail(1);
    let line = "team-a = \"CACHE\", team-b = \"CACHE\"";
    let lines: Vec<String> =
        ["team-a", "team-b"].iter().map(|label| format!("larder: {}", reason(&[label], line))).collect();
    assert_eq!(run.stderr.lines().collect::<Vec<_>>(), lines);
    for label in ["team-a", "team-b"] {
        let import = format!("\n  {label}: wasi:keyvalue/store@0.2.0-draft2  (no cache is named for this label)\n");
        assert!(run.stdout.contains(&import), "{}", run.stdout);
    }
    let one = format!("{cache}[plugins.labels]\nimports = {{ team-a = \"one\" }}\n");
    let run = inspect(&plugin, &[], &one).fail(1);
    assert!(run.stdout.contains("\n  team-a: wasi:keyvalue/store@0.2.0-draft2\n"), "{}", run.stdout);
    let line = reason(&["team-b"], "team-a = \"one\", team-b = \"CACHE\"");
    assert_eq!(run.stderr, format!("larder: {line}\n"));
}

#[test]
fn a_plugin_whose_labels_have_caches_lacks_nothing() {
    let folder = TempDir::new().unwrap();
    let plugin = plugin(&folder, DRAFT2);
    let table = |name: &str, rest: &str| {
        let imports = "imports = { team-a = \"one\", team-b = \"one\" }";
        format!("[caches.one]\ntype = \"ram\"\n[plugins.{name}]\n{imports}\n{rest}")
    };
    let route = format!("path = {plugin:?}\nroute = \"/\"\n");
    for (options, config) in [
        (&[][..], table("labels", "")),
        (&["--name", "other"], table("other", "")),
        // The name of a route with this file.
        (&[], table("other", &route)),
    ] {
        let run = inspect(&plugin, options, &config).succeed();
        assert_eq!(run.stderr, "", "{config}");
        for label in ["team-a", "team-b"] {
            let import = format!("\n  {label}: wasi:keyvalue/store@0.2.0-draft2\n");
            assert!(run.stdout.contains(&import), "{}", run.stdout);
        }
    }
    inspect(&plugin, &[], &table("other", "")).fail(1);
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
