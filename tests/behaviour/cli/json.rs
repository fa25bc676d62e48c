//! The output of `--json`: the keys that `docs/command-line.md` lists, exit status and messages as without.

use std::collections::BTreeSet;

use larder_tests::repository::read;
use larder_tests::{Kind, Larder, LarderOutput, Sentinels, ServeProcess, Server, wait_for};
use serde_json::{Value, json};

/// The keys of the table after this heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let page = read("docs/command-line.md");
    let section = page.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`")).1;
    let table = section.lines().skip_while(|line| !line.starts_with("| key |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
}

/// Adds the paths of all values that are no objects and no lists: `caches[].name`.
fn add_paths(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                // The classes of status codes are no keys of the schema.
                let key = if path == "answered_per_second" { "CLASS" } else { key };
                add_paths(value, format!("{path}.{key}").trim_start_matches('.'), paths);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| add_paths(element, &format!("{path}[]"), paths)),
        _ => {
            paths.insert(path.to_owned());
        }
    }
}

fn object(run: &LarderOutput) -> Value {
    assert_eq!(run.stdout.lines().count(), 1, "{run:#?}");
    let object: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(object["schema"], 1);
    object
}

/// The outputs together have the documented keys, and no others. `null` is in place of an object in some of them.
fn assert_documented(outputs: &[Value], heading: &str) {
    let mut paths = BTreeSet::new();
    outputs.iter().for_each(|output| add_paths(output, "", &mut paths));
    let is_null_object = |path: &String| paths.iter().any(|other| other.starts_with(&format!("{path}.")));
    let found: BTreeSet<String> = paths.iter().filter(|path| !is_null_object(path)).cloned().collect();
    assert_eq!(found, documented(heading));
}

#[test]
fn check_has_the_documented_keys() {
    let Some(watched) = Sentinels::start(Kind::Valkey) else { return };
    let config = format!(
        "default = \"a\"\n[caches.a]\ntype = \"ram\"\n[plugins.p]\nreuse = {{ idle = \"1m\" }}\n[plugins.q]\ncaches = [\"a\"]\noutgoing_hosts = [\"example.com\"]\n{}{}[caches.gone]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = 1\n",
        watched.cache("b") + "near = {}\n",
        watched.servers[1].cache("replica"),
    );
    let run = Larder::new(["check", "--json"]).config(&config).fail(1);
    let output = object(&run);
    assert_documented(std::slice::from_ref(&output), "larder check --json");
    let cache = |name: &str| {
        let caches = output["caches"].as_array().unwrap();
        caches.iter().find(|cache| cache["name"] == name).unwrap_or_else(|| panic!("{output:#}")).clone()
    };
    assert_eq!((&output["ok"], &cache("a")["ok"], &cache("gone")["ok"]), (&json!(false), &json!(true), &json!(false)));
    assert_eq!((&cache("a")["max_bytes"], &cache("a")["servers"]), (&json!(64 << 20), &json!([])));
    let b = cache("b");
    let primary = format!("127.0.0.1:{}", watched.servers[0].port());
    assert_eq!((&b["deployment"], &b["servers"][0]["address"]), (&json!("sentinel"), &json!(primary)));
    assert_eq!((b["sentinels"].as_array().unwrap().len(), &b["sentinels"][2]["primary"]), (3, &json!(primary)));
    let reuse = json!({ "requests": 1000, "concurrent": 16, "idle_seconds": 60.0, "max_age_seconds": 600.0 });
    assert_eq!(output["plugins"][0]["reuse"], reuse);
    assert_eq!((&output["plugins"][1]["reuse"], &output["plugins"][1]["caches"]), (&json!(null), &json!(["a"])));
    let gone = &cache("gone")["servers"][0];
    assert!(gone["error"].as_str().unwrap().contains("refused") && gone["role"].is_null(), "{gone:#}");
    // The same lines as without `--json`.
    let table = Larder::new(["check"]).config(&config).fail(1);
    assert_eq!(run.stderr, table.stderr);
    assert!(table.stdout.contains("\nPLUGIN  REUSE  IDLE  MAX AGE\np       1000   1m    10m\n"), "{}", table.stdout);
    assert!(run.stderr.contains("larder: cache `gone`: cannot reach Redis at `127.0.0.1:1`: "), "{}", run.stderr);
}

#[test]
fn cache_has_the_documented_keys() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    let cache = |arguments: &[&str]| Larder::new(["cache", "--json"].iter().chain(arguments)).config(&config);
    let outputs = [
        (cache(&["set", "k", "\u{1b}[2J\u{9b}é\"\\"]).succeed(), json!({ "stored": true })),
        (cache(&["get", "k"]).succeed(), json!({ "found": true, "value": "\u{1b}[2J\u{9b}é\"\\", "value_hex": null })),
        (cache(&["keys"]).succeed(), json!({ "keys": ["k"], "complete": true })),
        (cache(&["info", "nothing"]).fail(1), json!({ "state": "empty", "bytes": null, "life_ms": null })),
        (cache(&["clear", "k"]).succeed(), json!({ "cleared": 1 })),
        (cache(&["clear", "k"]).fail(1), json!({ "cleared": 0 })),
        (cache(&["get", "k"]).fail(1), json!({ "found": false, "value": null, "value_hex": null })),
        (cache(&["clear-pattern", "*"]).succeed(), json!({ "cleared": 0 })),
        (cache(&["clear-all"]).succeed(), json!({ "cleared": 0 })),
    ];
    for (run, expected) in &outputs {
        let mut expected = expected.clone();
        expected["schema"] = json!(1);
        expected["cache"] = json!("c");
        assert_eq!((object(run), run.stderr.as_str()), (expected, ""));
        let line = run.stdout.trim_end();
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    assert_documented(&outputs.map(|(run, _)| object(&run)), "larder cache --json");
    redis::cmd("SET").arg("cache:b").arg(&b"\xff\x00\x0a"[..]).exec(&mut server.client()).unwrap();
    let binary = object(&cache(&["get", "b"]).succeed());
    assert_eq!((&binary["value"], &binary["value_hex"]), (&Value::Null, &json!("ff000a")));
    // Errors are messages, with their status.
    let run = cache(&["get", ""]).fail(2);
    assert_eq!((run.stdout.as_str(), run.error_line()), ("", "larder: key: must not be empty"));
}

#[test]
fn plugin_inspect_has_the_documented_keys() {
    let inspect = |text: &str| {
        let larder = Larder::new(["plugin", "inspect", "--json", "p.wasm"]);
        std::fs::write(larder.folder().join("p.wasm"), wat::parse_str(text).unwrap()).unwrap();
        larder.finish()
    };
    let run = inspect(
        r#"(component
            (import "wasi:nn/graph@0.2.0" (instance (export "load" (func))))
            (import "acme:db/query@1.0.0" (instance (export "row" (type (sub resource))) (export "ask" (func))))
            (import "wasi:cli/environment@0.2.0" (instance))
            (import "mine" (implements "acme:db/query@1.0.0") (instance (export "ask" (func))))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "f") (canon lift (core func $i "f"))))"#,
    );
    assert_eq!(run.status, Some(1), "{run:#?}");
    let output = object(&run);
    assert_documented(std::slice::from_ref(&output), "larder plugin inspect --json");
    let missing: Vec<_> = output["missing"].as_array().unwrap().iter().map(|missing| &missing["name"]).collect();
    assert_eq!(missing, ["wasi:nn/graph@0.2.0", "acme:db/query@1.0.0", "mine"]);
    assert_eq!(output["labels"], json!([{ "name": "mine", "interface": "acme:db/query@1.0.0" }]));
    assert_eq!((&output["engine"], &output["functions"]), (&json!("0.2"), &json!(["f"])));
    assert_eq!((&output["command"], &output["http"]), (&json!(false), &json!(false)));
    assert_eq!(run.stderr.lines().count(), 3, "{}", run.stderr);
}

#[tokio::test]
async fn top_has_the_documented_keys() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = format!("default = \"ram\"\n[caches.ram]\ntype = \"ram\"\n{}", server.cache("c"));
    let serving = ServeProcess::start_with_metrics(&config);
    serving.get("/visit/a").await;
    let metrics = serving.metrics_address().to_string();
    let top = move || Larder::new(["top", "--once", "--json", "--interval", "100ms"]).arg(&metrics);
    // In a RAM cache, only some calls are timed.
    let run = tokio::task::spawn_blocking(move || {
        wait_for("a time", || Some(object(&top().succeed())).filter(|output| !output["caches"][1]["p50"].is_null()))
    });
    while !run.is_finished() {
        serving.get("/visit/a").await;
    }
    let output = run.await.unwrap();
    assert_documented(std::slice::from_ref(&output), "larder top --once --json");
    let [c, ram] = [&output["caches"][0], &output["caches"][1]];
    assert_eq!(
        (&c["name"], &c["type"], &c["up"], &c["bytes"]),
        (&json!("c"), &json!("valkey"), &json!(true), &Value::Null)
    );
    assert_eq!((&ram["name"], &ram["up"], &ram["max_bytes"]), (&json!("ram"), &Value::Null, &json!(64 << 20)));
    assert!(ram["hits"].as_u64().unwrap() > 0 && ram["hit_rate"].as_f64().unwrap() > 0.0, "{output:#}");
    assert!(output["interval_seconds"].as_f64().unwrap() >= 0.1, "{output:#}");
    Larder::new(["top", "--json", "127.0.0.1:1"]).fail(2);
}
