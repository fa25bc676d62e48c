//! Plugins in Python and JavaScript cache what plugins in Rust cache.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use larder_tests::{Kind, Larder, LarderOutput, Server, TEST_TIMEOUT, language_plugin};
use redis::Commands;
use serde_json::{Value, json};

const RAM: &str = "[caches.ram]\ntype = \"ram\"\n";
const LANGUAGES: [&str; 2] = ["python", "javascript"];

/// The plugin of a language, compiled: an interpreter takes many seconds the first time, and tests that begin together
/// would each compile it.
fn compiled(language_name: &str) -> Option<PathBuf> {
    static PLUGINS: [OnceLock<Option<PathBuf>>; 2] = [const { OnceLock::new() }; 2];
    let nth = LANGUAGES.iter().position(|name| *name == language_name).unwrap();
    PLUGINS[nth]
        .get_or_init(|| {
            let plugin = language_plugin(language_name)?;
            Larder::new(["run", "--invoke", "forget(\"*\")"]).config(RAM).arg(&plugin).succeed();
            Some(plugin)
        })
        .clone()
}

/// A call of one of the plugin's functions.
fn call(plugin: &Path, config: &str, call: &str) -> LarderOutput {
    Larder::new(["run", "--invoke", call]).config(config).arg(plugin).finish()
}

/// [`call`], which must succeed.
fn answer(plugin: &Path, config: &str, called: &str) -> String {
    let finished = call(plugin, config, called);
    assert_eq!(finished.status, Some(0), "{called}: {finished:#?}");
    finished.stdout.trim_end().to_owned()
}

/// What `primes` says of three rounds.
fn rounds(said: [&str; 3]) -> String {
    format!("[\"round 1: {}\", \"round 2: {}\", \"round 3: {}\"]", said[0], said[1], said[2])
}

/// Does a check with the plugin of each language.
fn in_each_language(check: impl Fn(&str, &Path)) {
    for name in LANGUAGES {
        if let Some(plugin) = compiled(name) {
            check(name, &plugin);
        }
    }
}

#[test]
fn python_and_javascript_compute_once_over_ram() {
    let [computed, received] = ["computed", "received"].map(|how| format!("9592 primes below 100000, {how}"));
    in_each_language(|name, plugin| {
        let said = answer(plugin, RAM, "primes(100000)");
        assert_eq!(said, rounds([&computed, &received, &received]), "{name}");
    });
}

#[test]
fn a_value_computed_in_one_language_is_received_in_the_others() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    let received = "168 primes below 1000, received";
    in_each_language(|name, plugin| {
        Larder::run("script").config(&config).arg("clear-all").succeed();
        let said = answer(plugin, &config, "primes(1000)");
        assert_eq!(said, rounds(["168 primes below 1000, computed", received, received]), "{name}");
        let found = Larder::run("script").config(&config).arg("get primes-1000").arg("get-or-set primes-1000 1");
        assert_eq!(found.succeed().stdout, "hit 168\nhit 168\n", "{name}");
        in_each_language(|other, plugin| {
            assert_eq!(answer(plugin, &config, "primes(1000)"), rounds([received; 3]), "{other} after {name}");
        });
    });
}

/// A round that fails gives its vacancy back: else the next round in the same plugin could not ask for the key.
#[test]
fn an_error_of_python_and_javascript_is_not_cached_and_the_next_caller_computes() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for config in [RAM, &server.cache("c")] {
        in_each_language(|name, plugin| {
            assert_eq!(answer(plugin, config, "primes(2000000)"), rounds(["too many to count"; 3]), "{name}");
        });
    }
    assert_eq!(server.client().keys::<_, Vec<String>>("*").unwrap(), [""; 0]);
}

/// A value with every type, and falsy values, which a helper may mistake for a miss. None has a space, which separates
/// the words of the plugin `script`.
fn values() -> [Value; 5] {
    let all = json!({
        "text": "Grüße,世界😀\"\\\u{1}",
        "numbers": [0, -7, 1.5, 9_007_199_254_740_991_u64, 1e-7],
        "booleans": [true, false],
        "nothing": null,
        "empty": ["", [], {}],
    });
    [all, Value::Null, json!(""), json!(0), json!(false)]
}

#[test]
fn rust_python_and_javascript_read_what_the_others_set() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    let script = |operation: String| Larder::run("script").config(&config).arg(operation).succeed().stdout;
    let parse = |json: &str| -> Value { serde_json::from_str(json).unwrap() };
    let all_read = |writer: &str, value: &Value| {
        let found = script(format!("get {writer}"));
        assert_eq!(&parse(found.strip_prefix("hit ").unwrap()), value, "Rust after {writer}");
        in_each_language(|reader, plugin| {
            let said = answer(plugin, &config, &format!("recall(\"{writer}\")"));
            // `--invoke` writes text as JSON does, but for control characters, and JSON has none.
            let text = parse(said.strip_prefix("ok(").and_then(|text| text.strip_suffix(')')).unwrap());
            assert_eq!(&parse(text.as_str().unwrap()), value, "{reader} after {writer}");
        });
    };
    for value in values() {
        let json = value.to_string();
        assert_eq!(script(format!("set rust {json}")), "ok\n");
        all_read("rust", &value);
        in_each_language(|writer, plugin| {
            let quoted = Value::String(json.clone());
            assert_eq!(answer(plugin, &config, &format!("note(\"{writer}\", {quoted}, none)")), "ok");
            all_read(writer, &value);
        });
    }
}

/// One call stores all values for one duration, and another one reads them in the order of its keys.
#[test]
fn rust_python_and_javascript_read_the_batches_that_the_others_set() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    let [all, ..] = values();
    let object = json!({ "a": all, "b": null, "é": 0 });
    let script = |operation: &str| Larder::run("script").config(&config).arg(operation).succeed().stdout;
    let unpack = |said: &str| -> Value {
        let text = said.strip_prefix("ok(").and_then(|text| text.strip_suffix(')')).unwrap();
        let text: Value = serde_json::from_str(text).unwrap();
        serde_json::from_str(text.as_str().unwrap()).unwrap()
    };
    in_each_language(|writer, plugin| {
        script("clear-all");
        let quoted = Value::String(object.to_string());
        assert_eq!(answer(plugin, &config, &format!("note-many({quoted}, some(3600.0))")), "ok", "{writer}");
        let read = script("get-many é b missing b");
        assert_eq!(read, "hit 0 hit null miss hit null\n", "Rust after {writer}");
        for key in ["a", "b", "é"] {
            let left: i64 = server.client().pttl(format!("cache:{key}")).unwrap();
            assert!((1..=3_600_000).contains(&left), "{writer}: `{key}` lasts {left}");
        }
        in_each_language(|reader, plugin| {
            let said = answer(plugin, &config, "recall-many([\"é\", \"a\", \"missing\", \"b\"])");
            assert_eq!(unpack(&said), json!([0, all, null, null]), "{reader} after {writer}");
        });
        assert_eq!(unpack(&answer(plugin, &config, "recall-many([])")), json!([]), "{writer}");
        assert_eq!(answer(plugin, &config, "note-many(\"{}\", none)"), "ok", "{writer}");
        let refused = call(plugin, &config, "recall-many([\"a\", \"\"])");
        assert!(refused.stdout.contains("key: must not be empty"), "{writer}: {refused:#?}");
    });
}

#[test]
fn durations_of_python_and_javascript_are_kept() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c") + "default_expire = \"3h\"\n";
    let patience = i64::try_from(TEST_TIMEOUT.as_millis()).unwrap();
    in_each_language(|name, plugin| {
        let left = |seconds: &str| -> i64 {
            assert_eq!(answer(plugin, &config, &format!("note(\"k\", \"1\", {seconds})")), "ok", "{name}");
            server.client().pttl("cache:k").unwrap()
        };
        for (seconds, expected) in [("some(3600.5)", 3_600_500), ("none", 3 * 3_600_000)] {
            let left = left(seconds);
            assert!((expected - patience..=expected).contains(&left), "{name}: {seconds}: {left}");
        }
        assert_eq!(left("some(inf)"), -1, "{name}");
        let refused = |seconds: &str| call(plugin, &config, &format!("note(\"k\", \"1\", some({seconds}))"));
        for (seconds, words) in [("0.0", "must not be zero"), ("-1.0", "a duration cannot be -1")] {
            let refused = refused(seconds);
            assert_eq!(refused.status, Some(1), "{name}: {refused:#?}");
            assert!(refused.stdout.contains(words), "{name}: {refused:#?}");
        }
    });
}

#[test]
fn a_value_that_is_not_json_is_computed_again() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    in_each_language(|name, plugin| {
        for damaged in [&b"{"[..], b"\xff", b""] {
            server.client().set::<_, _, ()>("cache:primes-10", damaged).unwrap();
            let received = "4 primes below 10, received";
            let said = answer(plugin, &config, "primes(10)");
            assert_eq!(said, rounds(["4 primes below 10, computed", received, received]), "{name}: {damaged:?}");
        }
    });
}

/// The call returns the computed value, and the next round computes it again.
#[test]
fn a_fill_that_the_cache_refuses_costs_python_and_javascript_a_computation_and_no_error() {
    let config = "[caches.ram]\ntype = \"ram\"\nmax_value_bytes = 1\n";
    in_each_language(|name, plugin| {
        assert_eq!(answer(plugin, config, "primes(1000)"), rounds(["168 primes below 1000, computed"; 3]), "{name}");
    });
}

/// JSON can hold a lone surrogate, and so can a string of Python or JavaScript. UTF-8 cannot, and the bindings trap.
#[test]
fn a_lone_surrogate_is_an_invalid_argument_and_no_trap() {
    let refusals = |name: &str, plugin: &Path, json: &str| -> Vec<String> {
        let quoted = Value::String(json.to_owned());
        let said = answer(plugin, RAM, &format!("refusals({quoted})"));
        let said: Vec<String> = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{name}: {error}: {said}"));
        said.into_iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
    };
    in_each_language(|name, plugin| {
        let invalid = if name == "python" { "CacheError: InvalidArgument" } else { "CacheError: invalid-argument" };
        let arguments = ["name", "key", "key", "key", "key", "key", "key", "pattern", "value", "value", "value"];
        let refused = arguments.map(|argument| format!("{invalid}: {argument}: must not hold a lone surrogate"));
        for json in [r#""\ud800""#, r#""\\\ud83d\ude00\udc00""#] {
            assert_eq!(refusals(name, plugin, json), refused, "{name}: {json}");
        }
        let said = refusals(name, plugin, r#""\ud83d\ude00\\ud800""#);
        assert!(said[0].to_lowercase().replace('-', "").ends_with("nosuchcache"), "{name}: {said:?}");
        assert!(said[1..].iter().all(|error| error == "none"), "{name}: {said:?}");
        let said = refusals(name, plugin, "5");
        assert!(said[..8].iter().all(|error| error.starts_with("TypeError: ")), "{name}: {said:?}");
    });
}

/// The lines that a function returns.
fn lines(plugin: &Path, config: &str, called: &str) -> Vec<String> {
    let said = answer(plugin, config, called);
    let list = said.strip_prefix("ok(").and_then(|list| list.strip_suffix(')')).unwrap_or(&said);
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{called}: {error}: {said}"))
}

/// Stores what a plugin finds as stale: it is asked for with a `stale` of an hour, and the cached function has 5 minutes.
fn set_stale(server: &Server, key: &str, json: &str) {
    server.client().pset_ex::<_, _, ()>(format!("cache:{key}"), json, 250_000).unwrap();
}

fn stored(server: &Server, key: &str) -> Option<String> {
    server.client().get(format!("cache:{key}")).unwrap()
}

#[test]
fn python_and_javascript_refresh_a_stale_value_and_keep_it_if_that_fails() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    in_each_language(|name, plugin| {
        let refresh = |key: &str, values: &str| lines(plugin, &config, &format!("refresh(\"{name}-{key}\", {values})"));
        assert_eq!(refresh("missing", r#"["1", "2"]"#), ["computed 1", "received 1"], "{name}");
        let left: i64 = server.client().pttl(format!("cache:{name}-missing")).unwrap();
        assert!((3_600_001..=7_200_000).contains(&left), "{name}: {left}");
        set_stale(&server, &format!("{name}-stale"), "1");
        assert_eq!(refresh("stale", r#"["2", "3"]"#), ["computed 2", "received 2"], "{name}");
        set_stale(&server, &format!("{name}-failing"), "1");
        assert_eq!(refresh("failing", r#"["{"]"#), ["failed, received 1"], "{name}");
        assert_eq!(stored(&server, &format!("{name}-failing")).unwrap(), "1");
        let left: i64 = server.client().pttl(format!("cache:{name}-failing")).unwrap();
        assert!((1..=250_000).contains(&left), "{name}: {left}");
    });
}

/// A computation that fails gives its vacancy back: else the next one in the same plugin could not ask for the key.
#[test]
fn without_a_stale_value_an_error_is_raised_and_the_next_caller_computes() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for config in [RAM, &server.cache("c")] {
        in_each_language(|name, plugin| {
            let called = format!(r#"refresh("{name}", ["{{", "{{", "4"])"#);
            assert_eq!(lines(plugin, config, &called), ["raised", "raised", "computed 4"], "{name}");
        });
    }
}

#[test]
fn stale_bytes_that_are_not_json_are_computed_again_in_python_and_javascript() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    in_each_language(|name, plugin| {
        let refresh = || lines(plugin, &config, r#"refresh("k", ["5", "6"])"#);
        set_stale(&server, "k", "{");
        assert_eq!(refresh(), ["computed 5", "received 5"], "{name}");
        server.client().set::<_, _, ()>("cache:k", "{").unwrap();
        assert_eq!(refresh(), ["computed 5", "received 5"], "{name}");
    });
}

#[test]
fn python_and_javascript_answer_first_and_refresh_then() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    in_each_language(|name, plugin| {
        let answer_first =
            |key: &str, next: &str| lines(plugin, &config, &format!("answer-first(\"{key}\", \"{next}\")"));
        let key = format!("{name}-k");
        assert_eq!(answer_first(&key, "1"), ["1"], "{name}");
        assert_eq!(answer_first(&key, "2"), ["1"], "{name}");
        set_stale(&server, &key, "1");
        let ended = if name == "python" { "ValueError" } else { "Error" };
        let ended = format!("{ended}: the refresh has ended");
        assert_eq!(answer_first(&key, "2"), ["1", "stored: true", &ended], "{name}");
        assert_eq!(answer_first(&key, "3"), ["2"], "{name}");
        let failing = format!("{name}-failing");
        set_stale(&server, &failing, "1");
        let refused = call(plugin, &config, &format!("answer-first(\"{failing}\", \"{{\")"));
        assert!(refused.status == Some(1) && refused.stdout.starts_with("err("), "{name}: {refused:#?}");
        assert_eq!(stored(&server, &failing).unwrap(), "1");
    });
}

/// The key of the function `last_posts` for a page.
fn key_of_page(name: &str, page: u32) -> String {
    let path = if name == "python" { "plugin.last_posts" } else { "last_posts" };
    format!("{path}:[{page}]")
}

#[test]
fn a_cached_function_of_python_and_javascript_runs_once_for_the_same_arguments() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    let of_page = |page: u32, how: &str| format!("a post of page {page}, {how}");
    in_each_language(|name, plugin| {
        for config in [RAM, &config] {
            let expected =
                [of_page(1, "computed"), of_page(1, "received"), of_page(2, "computed"), of_page(1, "received")];
            assert_eq!(lines(plugin, config, "posts([1, 1, 2, 1])"), expected, "{name}");
            let failed = ["no such page, computed", "no such page, computed"];
            assert_eq!(lines(plugin, config, "posts([0, 0])"), failed, "{name}");
        }
        assert_eq!(stored(&server, &key_of_page(name, 2)).unwrap(), r#"["a post of page 2"]"#, "{name}");
        assert_eq!(lines(plugin, &config, "posts([2])"), [of_page(2, "received")], "{name}");
        let left: i64 = server.client().pttl(format!("cache:{}", key_of_page(name, 2))).unwrap();
        assert!((300_001..=330_000).contains(&left), "{name}: {left}");
        set_stale(&server, &key_of_page(name, 2), r#"["old"]"#);
        assert_eq!(lines(plugin, &config, "posts([2])"), [of_page(2, "computed")], "{name}");
        set_stale(&server, &key_of_page(name, 0), r#"["old"]"#);
        assert_eq!(lines(plugin, &config, "posts([0])"), ["old, computed"], "{name}");
    });
}

#[test]
fn a_cached_function_of_python_and_javascript_runs_without_the_cache() {
    in_each_language(|name, plugin| {
        let read_only = format!("{RAM}[plugins.{name}]\naccess = \"read-only\"\n");
        let no_cache = format!("{RAM}[plugins.{name}]\ncaches = []\n");
        for config in [read_only, no_cache] {
            assert_eq!(lines(plugin, &config, "posts([1, 1])"), ["a post of page 1, computed"; 2], "{name}");
        }
    });
}

/// An instance has 1,024 handles.
#[test]
fn a_cached_function_may_be_called_more_often_than_an_instance_has_handles() {
    in_each_language(|name, plugin| {
        let said = lines(plugin, RAM, &format!("posts([{}])", ["1"; 1100].join(", ")));
        let computed = said.iter().filter(|line| line.ends_with("computed")).count();
        assert_eq!((computed, said.len()), (1, 1100), "{name}");
    });
}

/// As in Rust.
#[test]
fn a_key_that_the_cache_would_refuse_has_a_digest_of_the_arguments_in_each_language() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    in_each_language(|name, plugin| {
        let path = if name == "python" { "plugin._measure" } else { "measure" };
        let long = "é".repeat(600);
        assert_eq!(answer(plugin, &config, "measure(\"\u{7f}\")"), "1", "{name}");
        assert_eq!(answer(plugin, &config, &format!("measure(\"{long}\")")), "600", "{name}");
        // `printf '["\177"]' | sha256sum`, and the same of 600 times `é`.
        for digest in [
            "2366f354a28f19c40b4994ae5a341137807c954180c52cbc9d56a75722dcdeed",
            "4c424d3676e1f49e0342fd475b7e3396bc8da8541074aec103467f642715ffaf",
        ] {
            assert!(stored(&server, &format!("{path}:sha256:{digest}")).is_some(), "{name}: {digest}");
        }
    });
}

#[test]
fn a_cached_function_with_wrong_options_is_an_error_that_names_them() {
    in_each_language(|name, plugin| {
        let expected: &[&str] = match name {
            "python" => &[
                "key: ValueError: plugin.WitWorld.misuses.<locals>.wrong: `pages` in `key` is not an argument",
                "place: ValueError: plugin.WitWorld.misuses.<locals>.wrong: `` in `key` is not an argument",
                "skip: ValueError: plugin.WitWorld.misuses.<locals>.wrong: `pages` in `skip` is not an argument",
                "method: TypeError: plugin.WitWorld.misuses.<locals>.method: a method needs a `key`",
                "async: TypeError: plugin.WitWorld.misuses.<locals>.fetch: an async function cannot be cached",
                "duration: ValueError: a duration cannot be -1 s",
                "argument: TypeError: Object of type object is not JSON serializable",
            ],
            _ => &[
                "name: TypeError: a cached function without a name needs a `key` or a `name`",
                "duration: RangeError: a duration cannot be -1 s",
                "argument: TypeError: BigInt are forbidden in JSON.stringify",
                "key: TypeError: key: must be a string, not number",
            ],
        };
        assert_eq!(lines(plugin, RAM, "misuses()"), expected, "{name}");
    });
}
