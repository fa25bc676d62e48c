//! `wasi:keyvalue`, `fermyon:spin/key-value` and what `wasmcloud:keyvalue` has in common with them, as plugins see them.

use larder_tests::{Cluster, Kind, Larder, on_every_backend};

/// The plugins that import a version of `wasi:keyvalue`.
const KEYVALUE: [&str; 3] = ["kv_draft", "kv_draft2", "kv_draft2_spin"];
/// All plugins with a key-value interface.
const ALL: [&str; 5] = ["kv_draft", "kv_draft2", "kv_draft2_spin", "spin_key_value", "kv_wasmcloud"];

/// The lines that a plugin prints for these operations.
pub(super) fn run(plugin: &str, config: &str, operations: &[&str]) -> Vec<String> {
    let larder = operations.iter().fold(Larder::run(plugin).config(config), |larder, operation| larder.arg(operation));
    larder.succeed().stdout.lines().map(str::to_owned).collect()
}

/// Runs a check with the TOML of a cache named `cache`, on each backend and on a cluster.
fn everywhere(check: impl Fn(&str)) {
    on_every_backend(&check);
    if let Some(cluster) = Cluster::start(Kind::Valkey) {
        check(&cluster.cache("cache"));
    }
}

/// Runs operations in each plugin, each in a key space of its own, and compares what it prints.
pub(super) fn assert_prints(plugins: &[&str], operations: &[&str], expected: &[&str]) {
    everywhere(|cache| {
        for plugin in plugins {
            let config = format!("{cache}[plugins.{plugin}]\nnamespace = \"{plugin}\"\n");
            assert_eq!(run(plugin, &config, operations), expected, "{plugin}: {cache}");
        }
    });
}

#[test]
fn values_are_set_got_and_deleted() {
    assert_prints(
        &ALL,
        &[
            "get k",
            "exists k",
            "set k one",
            "get k",
            "exists k",
            "set k large:100000",
            "get k",
            "set e ",
            "get e",
            "exists e",
            "delete k",
            "get k",
            "delete k",
            "exists k",
        ],
        &[
            "none",
            "false",
            "ok",
            "`one`",
            "true",
            "ok",
            "100000 bytes",
            "ok",
            "``",
            "true",
            "ok",
            "none",
            "ok",
            "false",
        ],
    );
}

#[test]
fn keys_are_listed() {
    assert_prints(
        &ALL,
        &["list", "set b 1", "set a 2", "set é* 3", "list", "delete b", "list"],
        &["", "ok", "ok", "ok", "a b é*", "ok", "a é*"],
    );
}

#[test]
fn a_long_list_comes_in_pages() {
    let pages = "5000 keys, more than one page: true";
    assert_prints(&KEYVALUE, &["fill 5000", "count"], &["ok", pages]);
}

#[test]
fn a_huge_list_ends() {
    on_every_backend(|cache| {
        let config = format!("{cache}[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n");
        let printed = run("kv_draft2", &config, &["fill 30000", "count"]);
        assert_eq!(printed, ["ok", "30000 keys, more than one page: true"], "{cache}");
    });
}

#[test]
fn what_is_no_cursor_of_a_list_is_refused() {
    let rule = "error: other: cursor: must be one that list-keys returned";
    let operations = ["set k v", "list-from 0", "list-from x", "list-from -1", "list-from 01", "list-from +1", "list"];
    let operations = [&operations[..], &["list-from ", "list-from 99999999999999999999"]].concat();
    assert_prints(
        &["kv_draft2", "kv_draft2_spin"],
        &operations,
        &["ok", rule, rule, rule, rule, rule, "k", rule, rule],
    );
    // Where cursors are numbers, 0 is the beginning, and any other one is harmless.
    assert_prints(&["kv_draft"], &["set k v", "list-from 0"], &["ok", "1"]);
    everywhere(|cache| {
        for cursor in ["1", "4611686018427387904", "18446744073709551615"] {
            let printed = run("kv_draft", cache, &[&format!("list-from {cursor}"), "set k v", "list"]);
            let changed = "error: other: cursor: the servers have changed since: list the keys from the start";
            assert!(["0", "1", changed].contains(&&*printed[0]), "{printed:?}: {cache}");
            assert_eq!(printed[1..], ["ok", "k"], "{cache}");
        }
    });
}

#[test]
fn a_batch_whose_values_are_too_large_together_is_an_error() {
    on_every_backend(|cache| {
        let config = format!("{cache}max_value_bytes = 50000\n[sandbox]\nmax_batch_bytes = \"64KiB\"\n");
        for plugin in KEYVALUE {
            let printed = run(plugin, &config, &["set a large:40000", "set b large:40000", "get-many a b", "get a"]);
            let rule = "error: other: keys: the query result exceeds limit of 65536 bytes";
            assert_eq!(printed, ["ok", "ok", rule, "40000 bytes"], "{plugin}: {cache}");
        }
    });
}

#[test]
fn spin_gets_a_long_list_at_once_within_the_limit_of_a_batch() {
    on_every_backend(|cache| {
        assert_eq!(run("spin_key_value", cache, &["fill 2500", "count"]), ["ok", "2500 keys"], "{cache}");
    });
    let small = "[caches.cache]\ntype = \"ram\"\n[sandbox]\nmax_batch_bytes = \"64KiB\"\n";
    let rule = "error: other: keys: there are too many to list at once: their names are over 65536 bytes";
    assert_eq!(run("spin_key_value", small, &["fill 2500", "count"]), ["ok", rule]);
}

#[test]
fn batches_keep_the_order_of_the_keys_in_both_shapes() {
    let operations = ["set-many a 1 b 2 a 3", "get-many b x a b", "delete-many a x", "get-many a b", "get-many"];
    let upstream = ["ok", "b=`2` none a=`3` b=`2`", "ok", "none b=`2`", ""];
    assert_prints(&["kv_draft", "kv_draft2"], &operations, &upstream);
    let spin = ["ok", "b=`2` x=none a=`3` b=`2`", "ok", "a=none b=`2`", ""];
    assert_prints(&["kv_draft2_spin"], &operations, &spin);
}

#[test]
fn counters_are_decimal_text() {
    let operations =
        ["increment n 5", "increment n 5", "get n", "set n 41", "increment n 1", "set n x", "increment n 1"];
    let no_number = "error: other: key: must hold a decimal number";
    assert_prints(&KEYVALUE, &operations, &["5", "10", "`10`", "ok", "42", "ok", no_number]);
    let operations = ["set n -7", "increment n -1", "increment n 9223372036854775807", "set n 9223372036854775807"];
    let signed = ["ok", "-8", "9223372036854775799", "ok"];
    assert_prints(&["kv_draft2", "kv_draft2_spin"], &operations, &signed);
    let overflow = "error: other: delta: the sum must be in the range of 64-bit signed numbers";
    assert_prints(&KEYVALUE, &["set n 9223372036854775807", "increment n 1"], &["ok", overflow]);
}

#[test]
fn numbers_that_the_draft_cannot_say_are_errors() {
    let operations = ["increment n 9223372036854775808", "exists n", "set n -5", "increment n 1", "get n"];
    let expected = [
        "error: other: delta: must not be over 9223372036854775807",
        "false",
        "ok",
        "error: other: the sum was stored, but it is negative: -4",
        "`-4`",
    ];
    assert_prints(&["kv_draft"], &operations, &expected);
}

#[test]
fn a_swap_stores_only_over_what_was_seen() {
    let operations = [
        "swap k one",
        "get k",
        "swap k two",
        "swap-after-set k other three",
        "get k",
        "swap-after-delete k four",
        "exists k",
        "swap-after-set new other mine",
        "swap k large:100000",
        "get k",
    ];
    let expected = [
        "swapped",
        "`one`",
        "swapped",
        "`two` failed, now `other`, again true",
        "`three`",
        "swapped false",
        "false",
        "none failed, now `other`, again true",
        "swapped",
        "100000 bytes",
    ];
    assert_prints(&["kv_draft2", "kv_draft2_spin"], &operations, &expected);
}

/// In a cache whose values do not expire. With a time that expires, writes within the same millisecond are not told apart.
#[test]
fn a_swap_fails_after_a_value_has_come_back() {
    on_every_backend(|cache| {
        let config = format!("{cache}default_expire = \"unlimited\"\n");
        for plugin in ["kv_draft2", "kv_draft2_spin"] {
            for by in ["set", "set-many", "swaps"] {
                let operations = ["set k one", &format!("swap-after-return {by} k two three"), "get k"];
                assert_eq!(run(plugin, &config, &operations), ["ok", "swapped false", "`one`"], "{by}: {config}");
            }
        }
    });
}

const TWO_CACHES: &str = "default = \"one\"\n[caches.one]\ntype = \"ram\"\n[caches.two]\ntype = \"ram\"\n";

#[test]
fn an_identifier_is_the_name_of_a_cache_and_default_the_default_one() {
    for plugin in ALL {
        let operations =
            ["open one", "set k v", "open default", "get k", "open", "get k", "open two", "get k", "open three"];
        let no_store = "error: no-such-store";
        let expected = ["ok", "ok", "ok", "`v`", "ok", "`v`", "ok", "none", no_store];
        let operations = if plugin == "spin_key_value" {
            operations.map(|operation| if operation == "open" { "open " } else { operation })
        } else {
            operations
        };
        assert_eq!(run(plugin, TWO_CACHES, &operations), expected, "{plugin}");
        // A plugin with a list of caches does not learn which others there are.
        let denied = "error: access-denied";
        let granted = format!("{TWO_CACHES}[plugins.{plugin}]\ncaches = [\"one\"]\n");
        let printed = run(plugin, &granted, &["open two", "open three", "open one", "open default"]);
        assert_eq!(printed, [denied, denied, "ok", "ok"], "{plugin}");
        let all = format!("{TWO_CACHES}[plugins.{plugin}]\ncaches = [\"one\", \"two\"]\n");
        assert_eq!(run(plugin, &all, &["open two", "open three"]), ["ok", denied], "{plugin}");
        let unlisted = format!("unlisted_plugins = \"deny\"\n{TWO_CACHES}");
        assert_eq!(run(plugin, &unlisted, &["open one", "open three"]), [denied; 2], "{plugin}");
        let named = TWO_CACHES.replace("two", "default");
        assert_eq!(run(plugin, &named, &["open one", "set k v", "open default", "get k"])[3], "none", "{plugin}");
    }
}

#[test]
fn two_handles_of_one_bucket_see_each_others_writes() {
    on_every_backend(|cache| {
        for plugin in ALL {
            let printed = run(plugin, cache, &["set k v", "open cache", "get k", "delete k", "open default", "get k"]);
            assert_eq!(printed, ["ok", "ok", "`v`", "ok", "ok", "none"], "{plugin}");
        }
    });
}

#[test]
fn a_read_only_grant_reads_and_does_not_write() {
    on_every_backend(|cache| {
        run("kv_draft2", cache, &["set k v", "set n 1"]);
        // In RAM the values of another process are not there.
        let is_ram = cache.contains("\"ram\"");
        let (k, list) = if is_ram { ("none", "") } else { ("`v`", "k n") };
        for plugin in ALL {
            let config = format!("{cache}[plugins.{plugin}]\naccess = \"read-only\"\n");
            let printed = run(plugin, &config, &["get k", "list", "exists k", "set k w", "delete k", "get k"]);
            let exists = (!is_ram).to_string();
            let denied = "error: access-denied";
            assert_eq!(printed, [k, list, &exists, denied, denied, k], "{plugin}: {cache}");
        }
        for plugin in KEYVALUE {
            let config = format!("{cache}[plugins.{plugin}]\naccess = \"read-only\"\n");
            let writes = ["increment n 1", "set-many a 1", "delete-many k"];
            assert_eq!(run(plugin, &config, &writes), ["error: access-denied"; 3], "{plugin}: {cache}");
        }
        let config = format!("{cache}[plugins.kv_draft2]\naccess = \"read-only\"\n");
        assert_eq!(run("kv_draft2", &config, &["swap k v"]), ["error: access-denied"]);
    });
}

#[test]
fn plugins_of_all_interfaces_share_the_keys_of_a_namespace() {
    let Some(server) = larder_tests::Server::start(Kind::Valkey) else { return };
    let namespaces = |name: &str| {
        let tables = ["script", "kv_draft", "kv_draft2", "spin_key_value", "kv_wasmcloud"]
            .map(|plugin| format!("[plugins.{plugin}]\nnamespace = \"{name}\"\n"));
        server.cache("cache") + &tables.concat()
    };
    Larder::run("script").config(&namespaces("a")).arg("set k 7").succeed();
    assert_eq!(run("kv_draft2", &namespaces("a"), &["increment k 1"]), ["8"]);
    assert_eq!(run("kv_draft", &namespaces("a"), &["increment k 1", "list"]), ["9", "k"]);
    assert_eq!(run("spin_key_value", &namespaces("a"), &["get k"]), ["`9`"]);
    assert_eq!(run("kv_wasmcloud", &namespaces("a"), &["get k", "list"]), ["`9`", "k"]);
    assert_eq!(run("spin_key_value", &namespaces("b"), &["get k", "list"]), ["none", ""]);
}

#[test]
fn handles_and_arguments_have_the_limits_of_our_interface() {
    let config = "[caches.cache]\ntype = \"ram\"\nmax_value_bytes = 1000\n[sandbox]\nmax_handles = 5\nmax_vacancies = 3\n\
                  max_batch = 10\n";
    for plugin in KEYVALUE {
        let printed = run(plugin, config, &["hold-buckets 4", "hold-buckets 6", "hold-buckets 4"]);
        let too_many = "error: other: too many open handles: the limit is 5";
        assert_eq!(printed, ["4 held", too_many, "4 held"], "{plugin}");
        let key = "k".repeat(1025);
        let operations = [&*format!("get {key}"), "set k large:1001", "get-many-of k 10", "get-many-of k 11"];
        let expected = [
            "error: other: key: must not be longer than 1024 bytes, but has 1025",
            "error: other: value: must not be over 1000 bytes",
            "10",
            "error: other: keys: must not be more than 10, but are 11",
        ];
        assert_eq!(run(plugin, config, &operations), expected, "{plugin}");
    }
    assert_eq!(
        run("spin_key_value", config, &["hold-buckets 5", "hold-buckets 6"]),
        ["5 held", "error: store-table-full"]
    );
    let too_many = "error: other: too many vacancies and handles for compare-and-swap: the limit is 3";
    assert_eq!(
        run("kv_draft2", config, &["hold-swaps k 3", "hold-swaps k 4", "hold-swaps k 3"]),
        ["3 held", too_many, "3 held"]
    );
}

#[test]
fn a_value_lasts_as_long_as_the_cache_says() {
    let Some(server) = larder_tests::Server::start(Kind::Valkey) else { return };
    for plugin in ["kv_draft2", "spin_key_value"] {
        let config = server.cache("cache") + "default_expire = \"unlimited\"\n";
        run(plugin, &config, &[&format!("set {plugin} v")]);
    }
    let life =
        |key: &str| -> i64 { redis::cmd("PTTL").arg(format!("cache:{key}")).query(&mut server.client()).unwrap() };
    let year = 365 * 24 * 60 * 60 * 1000;
    assert!((97 * year..=100 * year).contains(&life("kv_draft2")), "{}", life("kv_draft2"));
    assert_eq!(life("spin_key_value"), -1);
    let config = server.cache("cache") + "default_expire = 60\n";
    run("kv_draft2", &config, &["set a v", "increment n 1", "increment n 1", "swap s v", "set-many m v"]);
    for key in ["a", "n", "s", "m"] {
        assert!((1..=60_000).contains(&life(key)), "{key}: {}", life(key));
    }
    // A plugin is stopped after 30 s, and the numbers of `n` are of one life.
    assert_eq!(redis::cmd("GET").arg("cache:n").query::<i64>(&mut server.client()).unwrap(), 2);
}

#[test]
fn an_outage_is_an_error_of_the_interface() {
    let Some(server) = larder_tests::Server::start(Kind::Valkey) else { return };
    let config = server.cache("cache") + "start = \"degraded\"\ntimeout = \"1s\"\nconnect_timeout = \"1s\"\n";
    drop(server);
    let unavailable = "error: other: unavailable: the cache cannot be reached now";
    let operations = ["get k", "exists k", "set k v", "increment n 1", "list", "swap k v"];
    let expected = ["none", "false", unavailable, unavailable, unavailable, unavailable];
    assert_eq!(run("kv_draft2", &config, &operations), expected);
    let batches = ["get-many k l", "set-many k v", "delete-many k"];
    assert_eq!(run("kv_draft2", &config, &batches), ["none none", unavailable, unavailable]);
    assert_eq!(run("kv_draft2_spin", &config, &batches), ["k=none l=none", unavailable, unavailable]);
    let operations = ["get k", "exists k", "set k v", "delete k", "list"];
    let expected = ["none", "false", unavailable, unavailable, unavailable];
    assert_eq!(run("spin_key_value", &config, &operations), expected);
    let strict = config + "on_outage = \"error\"\n";
    assert_eq!(run("kv_draft2", &strict, &["get k", "exists k", "get-many k"]), [unavailable; 3]);
    assert_eq!(run("spin_key_value", &strict, &["get k", "exists k"]), [unavailable; 2]);
}

#[test]
fn the_reason_why_a_plugin_is_refused_says_what_to_do() {
    let wat = |version: &str| {
        format!(
            r#"(component
                (import "wasi:keyvalue/store@{version}" (instance
                    (export "open" (func (param "identifier" u32))))))"#
        )
    };
    let folder = tempfile::TempDir::new().unwrap();
    let plugin = folder.path().join("other.wasm");
    let reason = |version: &str| {
        std::fs::write(&plugin, wat::parse_str(wat(version)).unwrap()).unwrap();
        Larder::new(["run".as_ref(), plugin.as_os_str()]).fail(1).stderr
    };
    let types = reason("0.2.0-draft2");
    assert!(types.contains("its types are of another version of the interface"), "{types}");
    let version = reason("0.3.0");
    assert!(
        version.contains("this host provides `wasi:keyvalue/store@0.2.0-draft`, `wasi:keyvalue/store@0.2.0-draft2`")
    );
}
