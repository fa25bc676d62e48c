//! The JSON Schema that `larder schema` prints accepts what the host accepts, and has every key.

use std::collections::BTreeSet;
use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};
use larder_host::Config;
use larder_tests::Larder;
use larder_tests::documents::{TABLES, accepted_keys, configurations, rows};
use larder_tests::repository::read;
use serde_json::Value;

struct Schema {
    text: Value,
    schemas: Schemas,
    root: SchemaIndex,
}

impl Schema {
    fn printed() -> Self {
        let text: Value = serde_json::from_str(&Larder::new(["schema"]).succeed().stdout).unwrap();
        let mut compiler = Compiler::new();
        let mut schemas = Schemas::new();
        compiler.add_resource("larder.schema.json", text.clone()).unwrap();
        let root = compiler.compile("larder.schema.json", &mut schemas).unwrap();
        Self { text, schemas, root }
    }

    fn refusal(&self, toml: &str) -> Option<String> {
        let document: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{toml}: {error}"));
        let document = serde_json::to_value(document).unwrap();
        self.schemas.validate(&document, self.root).err().map(|error| format!("{error:#}"))
    }

    fn assert_takes(&self, toml: &str) {
        assert_eq!(self.refusal(toml), None, "{toml}");
    }

    /// What it says of the keys of a table, given as in `[caches.c]\ntype = "ram"`.
    fn properties(&self, table: &str) -> serde_json::Map<String, Value> {
        let name = table.split(['[', '.', ']']).nth(1).unwrap();
        let section = &self.text["properties"][name];
        let section = section.get("additionalProperties").filter(|one| one.is_object()).unwrap_or(section);
        let properties = section["properties"].as_object().unwrap().clone();
        match table.split_once("type = ") {
            None => properties,
            Some((_, kind)) => {
                let is_first = section["if"]["properties"]["type"]["const"] == kind.trim_matches('"');
                let branch = if is_first { "then" } else { "else" };
                let known = section[branch]["properties"].as_object().unwrap();
                properties.into_iter().filter(|(key, _)| known.contains_key(key)).collect()
            }
        }
    }
}

#[test]
fn the_schema_accepts_every_configuration_in_the_documents_and_in_deploy() {
    let schema = Schema::printed();
    configurations().iter().for_each(|(_, block)| schema.assert_takes(block));
    for file in ["deploy/compose.toml", "examples/two-caches/larder.toml", "examples/http-json/larder.toml"] {
        schema.assert_takes(&read(file));
    }
    schema.assert_takes("");
    let deployed = read("deploy/larder.toml");
    schema.assert_takes(&deployed);
    // What is commented out as well: no key is written twice there.
    let uncommented =
        |line: &str| line.strip_prefix('#').filter(|option| !option.starts_with(' ')).unwrap_or(line).to_owned();
    // The first line is for editors.
    schema.assert_takes(
        &deployed.lines().filter(|line| !line.starts_with("#:")).map(uncommented).collect::<Vec<_>>().join("\n"),
    );
}

#[test]
fn the_schema_and_the_code_know_the_same_keys() {
    let schema = Schema::printed();
    let keys = |properties: &serde_json::Map<String, Value>| properties.keys().cloned().collect::<BTreeSet<_>>();
    for (_, _, table) in TABLES {
        let mut of_schema = keys(&schema.properties(table));
        of_schema.remove("type");
        assert_eq!(of_schema, accepted_keys(table), "{table}");
        let unknown = format!("{table}\nno_such_key = 1");
        assert!(schema.refusal(&unknown).is_some(), "{unknown}");
    }
    assert_eq!(keys(schema.text["properties"].as_object().unwrap()), accepted_keys(""));
    assert!(schema.refusal("no_such_key = 1").is_some());
    let nodes = "[caches.c]\ntype = \"valkey\"\nsentinel = { master = \"m\", nodes = [\"h:1\"]";
    schema.assert_takes(&format!("{nodes} }}"));
    assert!(schema.refusal(&format!("{nodes}, no_such_key = 1 }}")).is_some());
}

/// Descriptions are those of the fields in the code. The defaults in them are those of the guide, which another test
/// compares with the code.
#[test]
fn the_schema_describes_every_key_and_names_its_default() {
    let schema = Schema::printed();
    for (document, heading, table) in TABLES {
        let properties = schema.properties(table);
        for (key, default) in rows(document, heading).into_iter().filter(|(key, _)| key != "type") {
            let description = properties[&key]["description"].as_str().unwrap_or_else(|| panic!("`{key}` has none"));
            let description = description.replace('\n', " ");
            let named =
                description.split_once("Defaults to `").map_or("none", |(_, rest)| rest.split('`').next().unwrap());
            assert_eq!(named, default, "`{key}` of {table}: {description}");
        }
    }
    for (key, property) in schema.text["properties"].as_object().unwrap() {
        assert!(property["description"].is_string(), "`{key}` has no description");
    }
}

#[test]
fn the_schema_accepts_what_the_host_accepts_and_refuses_the_same_values() {
    let schema = Schema::printed();
    let environment = |name: &str| (name == "SIZE").then(|| "64MiB".to_owned());
    let host_takes = |toml: &str| Config::parse(toml, "larder.toml", Path::new(""), &environment).is_ok();
    let (ram, valkey) = ("[caches.c]\ntype = \"ram\"", "[caches.c]\ntype = \"valkey\"");
    for (table, key, good, bad) in [
        (
            ram,
            "max_bytes",
            &[
                "67108864",
                "\"64MiB\"",
                "\"64 mb\"",
                "\"1.5GiB\"",
                "\"100000000\"",
                "\"64m\"",
                "\"64Mi\"",
                "\"${SIZE}\"",
            ][..],
            &["0", "-1", "1.5", "true", "\"64 sheep\"", "[]", "1099511627777"][..],
        ),
        (
            ram,
            "default_expire",
            &["300", "0.5", "\"5m\"", "\"1h 30m\"", "\"1.5h\"", "\"500ms\"", "\"2weeks\"", "\"unlimited\""],
            &["0", "-1", "0.0001", "\"5M\"", "\"5\"", "\"soon\"", "\"m5\"", "inf", "3153600001", "false"],
        ),
        (ram, "max_expire", &["1", "\"1day\""], &["0", "\"unlimited\""]),
        (ram, "wait", &["0", "\"0\"", "\"5s\"", "\"0s\""], &["-1", "\"unlimited\""]),
        (valkey, "port", &["1", "65535"], &["0", "65536", "\"6379\"", "1.5"]),
        (valkey, "db", &["0", "65535"], &["-1", "65536"]),
        (valkey, "prefix", &["\"p\""], &["\"\"", "1"]),
        (valkey, "tls", &["true"], &["\"true\"", "1"]),
        (valkey, "on_outage", &["\"miss\"", "\"error\""], &["\"Miss\"", "true"]),
        (valkey, "url", &["\"valkeys://h\"", "\"redis://u:p@h:1/2\""], &["\"http://h\"", "1"]),
        (valkey, "cluster", &["[\"h:1\", \"[::1]:2\"]"], &["[\"h\"]", "\"h:1\"", "[1]"]),
        (valkey, "sentinel", &["{ master = \"m\", nodes = [\"h:1\"] }"], &["{ master = \"m\" }", "{ nodes = [] }"]),
        (valkey, "near", &["{}", "{ max_staleness = \"2s\", max_bytes = \"1MiB\" }"], &["true", "{ max = 1 }"]),
        (valkey, "password", &["\"secret\""], &["1"]),
        ("[plugins.p]", "access", &["\"read-only\"", "\"read-write\""], &["\"readonly\""]),
        ("[plugins.p]", "namespace", &["\"n\""], &["\"\""]),
        ("[plugins.p]", "max_concurrent_requests", &["1", "65536"], &["0", "65537", "\"1\""]),
        ("[plugins.p]", "max_concurrent_calls", &["1", "65536"], &["0", "65537", "\"1\""]),
        (
            "[plugins.p]",
            "outgoing_hosts",
            &["[]", "[\"*.example.org\", \"[::1]:80\", \"*\"]"],
            &["[\"http://h\"]", "\"h\""],
        ),
        (
            "[plugins.p]",
            "reuse",
            &["{}", "{ requests = 65536, idle = \"1h\", max_age = \"1day\" }"],
            &[
                "true",
                "1000",
                "{ requests = 0 }",
                "{ requests = 65537 }",
                "{ idle = 0 }",
                "{ concurrent = 0 }",
                "{ size = 16 }",
            ],
        ),
        ("[plugins.p]", "env", &["{}", "{ A = \"b\" }"], &["{ A = 1 }", "[]"]),
        ("[plugins.p]\npath = \"p.wasm\"", "route", &["\"/\"", "\"/shop\""], &["\"shop\"", "1"]),
        ("[sandbox]", "max_handles", &["1"], &["0", "65537"]),
        ("[sandbox]", "max_memories", &["1", "65536"], &["0", "65537", "\"8\""]),
        ("[sandbox]", "max_plugin_bytes", &["1", "\"64MiB\""], &["0", "1.5"]),
        ("[sandbox]", "compile_timeout", &["\"1ms\""], &["0"]),
        ("[sandbox]", "timeout", &["\"30s\"", "0.001"], &["0", "true"]),
        ("[serve]", "addr", &["\"[::1]:80\""], &["8080"]),
        ("[caches.c]", "type", &["\"ram\"", "\"valkey\"", "\"redis\""], &["\"memcached\"", "1"]),
    ] {
        for (values, is_good) in [(good, true), (bad, false)] {
            for value in values {
                let toml = format!("{table}\n{key} = {value}\n");
                assert_eq!(host_takes(&toml), is_good, "the host: {toml}");
                assert_eq!(schema.refusal(&toml).is_none(), is_good, "the schema: {toml}{:?}", schema.refusal(&toml));
            }
        }
    }
    for bad in ["caches = 1", "[caches]\nc = 1", "[caches.c]", "default = 1", "sandbox = []"] {
        assert!(!host_takes(bad) && schema.refusal(bad).is_some(), "{bad}");
    }
}
