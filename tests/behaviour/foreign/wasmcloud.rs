//! `wasmcloud:keyvalue@0.2.0`, as components of WASI 0.3 see it. What it has in common with the others is in `keyvalue`.

use std::time::Duration;

use larder_tests::{Fault, Kind, Larder, Relay, Server, on_every_backend};

use super::keyvalue::{assert_prints, run};

const PLUGIN: &str = "kv_wasmcloud";

/// A year in milliseconds.
const YEAR: i64 = 365 * 24 * 60 * 60 * 1000;

/// How many milliseconds a key of the server remains.
fn life(server: &Server, key: &str) -> i64 {
    redis::cmd("PTTL").arg(format!("cache:{key}")).query(&mut server.client()).unwrap()
}

#[test]
fn a_value_with_ttl_ms_expires_after_as_many_milliseconds() {
    on_every_backend(|cache| {
        let operations = ["set-for k v 700", "set-for l v 600000", "wait 701", "get k", "exists k", "get l"];
        assert_eq!(run(PLUGIN, cache, &operations), ["ok", "ok", "ok", "none", "false", "`v`"], "{cache}");
    });
}

/// The log of slow commands has what the server was sent.
#[test]
fn a_server_is_told_the_milliseconds_as_they_are() {
    let Some(server) = Server::start_with(Kind::Valkey, &["--slowlog-log-slower-than", "0"]) else { return };
    run(PLUGIN, &server.cache("cache"), &["set-for k v 61999", "set-new-for new v 1234567"]);
    let log: redis::Value = redis::cmd("SLOWLOG").arg("GET").arg(-1).query(&mut server.client()).unwrap();
    let log = format!("{log:?}");
    assert!(log.contains("'61999'") || log.contains("\"61999\""), "{log}");
    assert!(log.contains("'1234567'") || log.contains("\"1234567\""), "{log}");
}

#[test]
fn a_value_without_ttl_ms_lasts_as_long_as_the_cache_allows() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let writes = ["set a v", "set-plain p v", "set-new e v", "increment n 1", "set-many m v", "current a", "swap a w"];
    let keys = ["a", "p", "e", "n", "m"];
    run(PLUGIN, &(server.cache("cache") + "default_expire = 60\n"), &writes);
    for key in keys {
        assert!((97 * YEAR..=100 * YEAR).contains(&life(&server, key)), "{key}: {}", life(&server, key));
    }
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
    run(PLUGIN, &(server.cache("cache") + "max_expire = 60\n"), &writes);
    for key in keys {
        assert!((1..=60_000).contains(&life(&server, key)), "{key}: {}", life(&server, key));
    }
}

#[test]
fn a_time_of_zero_is_refused_and_a_huge_one_is_100_years() {
    assert_prints(&[PLUGIN], &["set-for k v 0", "exists k"], &["error: invalid-argument", "false"]);
    let Some(server) = Server::start(Kind::Valkey) else { return };
    assert_eq!(run(PLUGIN, &server.cache("cache"), &["set-for k v 18446744073709551615"]), ["ok"]);
    assert!((99 * YEAR..=100 * YEAR).contains(&life(&server, "k")));
}

#[test]
fn if_not_exists_stores_only_over_no_value() {
    let operations = [
        "set-new k one",
        "set-new k two",
        "get k",
        "set-for e v 50",
        "wait 51",
        "set-new-for e w 600000",
        "get e",
        "set-new-for e x 600000",
        "delete k",
        "set-new k three",
        "get k",
    ];
    let failed = "error: precondition-failed";
    let expected = ["ok", failed, "`one`", "ok", "ok", "ok", "`w`", failed, "ok", "ok", "`three`"];
    assert_prints(&[PLUGIN], &operations, &expected);
}

#[test]
fn a_swap_stores_only_if_what_it_requires_holds() {
    let steps = [
        ("current k", "none"),
        // It requires nothing.
        ("swap k a", "error: invalid-argument"),
        ("set k one", "ok"),
        ("current k", "`one`"),
        ("swap k two", "swapped"),
        ("get k", "`two`"),
        // The version was that of `one`. The plugin then knows that of `two`.
        ("swap k three", "stale `two`"),
        ("swap k three", "swapped"),
        ("swap-if k four other", "stale `three`"),
        ("swap-if k four three", "swapped"),
        ("swap-both k five three", "stale `four`"),
        ("swap-both k five three", "stale `four`"),
        ("swap-both k five four", "swapped"),
        ("swap-of k x bogus", "stale `five`"),
        ("swap-of k x ", "stale `five`"),
        ("swap-if k large:100000 five", "swapped"),
        ("current k", "100000 bytes"),
        ("delete k", "ok"),
        ("swap k x", "stale none"),
        ("swap-if k x five", "stale none"),
        ("exists k", "false"),
    ];
    let (operations, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    assert_prints(&[PLUGIN], &operations, &expected);
}

#[test]
fn a_version_tells_that_a_key_was_written_and_has_its_value_again() {
    let steps = [
        ("set k a", "ok"),
        ("current k", "`a`"),
        ("set k b", "ok"),
        ("set k a", "ok"),
        ("swap k c", "stale `a`"),
        ("set k a", "ok"),
        ("swap k c", "stale `a`"),
        ("delete k", "ok"),
        ("set-new k a", "ok"),
        ("swap k c", "stale `a`"),
        ("set-many k a", "ok"),
        ("swap k c", "stale `a`"),
        ("swap k b", "swapped"),
        ("swap-if k a b", "swapped"),
        ("swap k c", "stale `a`"),
        ("set n 1", "ok"),
        ("current n", "`1`"),
        ("increment n 1", "2"),
        ("increment n -1", "1"),
        ("swap n 7", "stale `1`"),
        ("increment n 0", "1"),
        ("swap n 7", "stale `1`"),
        ("swap n 7", "swapped"),
        // Only the value is required.
        ("swap-if k c a", "swapped"),
        ("get k", "`c`"),
    ];
    let (operations, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    assert_prints(&[PLUGIN], &operations, &expected);
}

#[test]
fn keys_are_listed_by_what_they_begin_with() {
    let operations = [
        "set user:1 v",
        "set user:2 v",
        "set user* v",
        "set us[e]r v",
        "set post:1 v",
        "list user",
        "list user:",
        "list user*",
        "list us[",
        "list us[e]",
        "list ?",
        "list nobody",
        "list ",
        "list",
    ];
    let all = "post:1 us[e]r user* user:1 user:2";
    let listed = ["user* user:1 user:2", "user:1 user:2", "user*", "us[e]r", "us[e]r", "", "", all, all];
    let expected: Vec<&str> = ["ok"; 5].into_iter().chain(listed).collect();
    assert_prints(&[PLUGIN], &operations, &expected);
}

#[test]
fn a_long_list_of_one_prefix_comes_in_pages() {
    let operations = ["fill 3000 a:", "fill 2500 b:", "count a:", "count b:", "count b:24", "count"];
    let pages = |keys| format!("{keys} keys, more than one page: true");
    on_every_backend(|cache| {
        let printed = run(PLUGIN, cache, &operations);
        assert_eq!(printed[2..4], [pages(3000), pages(2500)], "{cache}");
        assert!(printed[4].starts_with("111 keys"), "{printed:?}: {cache}");
        assert_eq!(printed[5], pages(5500), "{cache}");
    });
}

#[test]
fn what_no_key_begins_with_and_no_list_returned_is_refused() {
    let long = format!("list {}", "k".repeat(1025));
    let operations = ["set k v", &long, "list a\nb", "list-from x", "list-from -1", "list-from 0"];
    let refused = "error: invalid-argument";
    assert_prints(&[PLUGIN], &operations, &["ok", refused, refused, refused, refused, refused]);
}

#[test]
fn batches_keep_the_order_of_the_keys() {
    let operations = ["set-many a 1 b 2 a 3", "get-many b x a b", "delete-many a x", "get-many a b", "get-many"];
    assert_prints(&[PLUGIN], &operations, &["ok", "b=`2` none a=`3` b=`2`", "ok", "none b=`2`", ""]);
}

#[test]
fn counters_are_signed() {
    let steps = [
        ("increment n 5", "5"),
        ("increment n -7", "-2"),
        ("get n", "`-2`"),
        ("set n 9223372036854775807", "ok"),
        ("increment n 1", "error: invalid-argument"),
        ("set n x", "ok"),
        ("increment n 1", "error: invalid-argument"),
        ("get n", "`x`"),
    ];
    let (operations, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    assert_prints(&[PLUGIN], &operations, &expected);
}

#[test]
fn handles_and_arguments_have_the_limits_of_our_interface() {
    let config = "[caches.cache]\ntype = \"ram\"\nmax_value_bytes = 1000\n[sandbox]\nmax_handles = 5\nmax_batch = 10\n";
    let printed = run(PLUGIN, config, &["hold-buckets 4", "hold-buckets 6", "hold-buckets 4"]);
    assert_eq!(printed, ["4 held", "error: quota-exceeded", "4 held"]);
    let key = "k".repeat(1025);
    let too_large = "error: other: value: must not be over 1000 bytes";
    let operations = [
        (&*format!("get {key}"), "error: invalid-argument"),
        ("get ", "error: invalid-argument"),
        ("set k large:1001", too_large),
        ("set-new k large:1001", too_large),
        ("exists k", "false"),
        ("set k v", "ok"),
        ("swap-if k large:1001 v", too_large),
        ("get-many-of k 10", "10"),
        ("get-many-of k 11", "error: invalid-argument"),
    ];
    let (operations, expected): (Vec<_>, Vec<_>) = operations.into_iter().unzip();
    assert_eq!(run(PLUGIN, config, &operations), expected);
}

#[test]
fn a_read_only_grant_swaps_and_stores_nothing() {
    on_every_backend(|cache| {
        let config = format!("{cache}[plugins.{PLUGIN}]\naccess = \"read-only\"\n");
        let operations = ["current k", "set-new k v", "swap-of k v x", "swap-if k v x", "set-for k v 5", "get k"];
        let denied = "error: access-denied";
        assert_eq!(run(PLUGIN, &config, &operations), ["none", denied, denied, denied, denied, "none"], "{cache}");
        let operations = ["increment n 1", "set-many a 1", "delete-many a", "delete a", "list"];
        assert_eq!(run(PLUGIN, &config, &operations), [denied, denied, denied, denied, ""], "{cache}");
    });
}

/// The cache of a server behind a relay.
fn behind(relay: &Relay, rest: &str) -> String {
    format!(
        "[caches.cache]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {}\ntimeout = \"10s\"\n{rest}",
        relay.port()
    )
}

#[test]
fn a_call_that_waits_stops_no_other_task_of_the_instance() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let relay = Relay::to(server.port());
    run(PLUGIN, &behind(&relay, ""), &["set k v"]);
    relay.set_fault(Fault::Delay(Duration::from_millis(300)));
    let printed = run(PLUGIN, &behind(&relay, "connect_timeout = \"10s\"\n"), &["beside k", "gets k 100"]);
    // One after the other they would take a minute, and the plugin is stopped after 30 s.
    assert_eq!(printed, ["`v`, others went on: true", "100 hits"]);
}

#[test]
fn the_calls_of_an_instance_at_a_time_and_their_bytes_are_bounded() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let calls = format!("{}[plugins.{PLUGIN}]\nmax_concurrent_calls = 4\n", server.cache("cache"));
    let printed = run(PLUGIN, &calls, &["set k v", "gets k 4", "gets k 5", "gets k 4"]);
    assert_eq!(printed, ["ok", "4 hits", "error: quota-exceeded", "4 hits"]);
    let bytes = server.cache("cache") + "[sandbox]\nmax_batch_bytes = \"2MiB\"\n";
    let printed = run(PLUGIN, &bytes, &["sets 2 1000000", "sets 40 1000000", "sets 2 1000000"]);
    assert_eq!(printed, ["2 stored", "error: quota-exceeded", "2 stored"]);
}

#[test]
fn an_outage_is_an_error_of_the_interface() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("cache") + "start = \"degraded\"\ntimeout = \"1s\"\nconnect_timeout = \"1s\"\n";
    drop(server);
    let unavailable = "error: store-unavailable";
    let operations =
        ["get k", "exists k", "set k v", "set-new k v", "increment n 1", "list", "current k", "swap-if k v w"];
    let mut expected = vec![unavailable; operations.len()];
    expected[..2].copy_from_slice(&["none", "false"]);
    assert_eq!(run(PLUGIN, &config, &operations), expected);
    let batches = ["get-many k l", "set-many k v", "delete-many k"];
    assert_eq!(run(PLUGIN, &config, &batches), ["none none", unavailable, unavailable]);
    let strict = config + "on_outage = \"error\"\n";
    assert_eq!(run(PLUGIN, &strict, &["get k", "exists k"]), [unavailable; 2]);
}

#[test]
fn a_server_that_does_not_answer_is_a_timeout() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let relay = Relay::to(server.port());
    let config = behind(&relay, "on_outage = \"error\"\n").replace("\"10s\"", "\"1s\"");
    let mut plugin = Larder::run(PLUGIN).config(&config);
    for operation in ["set k v", "await", "set k w"] {
        plugin = plugin.arg(operation);
    }
    let mut running = plugin.start();
    assert_eq!([running.read_line(), running.read_line()], ["ok", "waiting"]);
    relay.set_fault(Fault::Blackhole);
    running.write_line("go on");
    let printed = running.succeed().stdout;
    assert!(printed.ends_with("error: timeout\n") || printed.ends_with("error: store-unavailable\n"), "{printed}");
}

#[test]
fn another_version_of_the_interface_is_refused_with_the_one_that_there_is() {
    let wat = r#"(component (import "wasmcloud:keyvalue/store@0.1.0" (instance
        (export "open" (func (param "identifier" u32))))))"#;
    let folder = tempfile::TempDir::new().unwrap();
    let plugin = folder.path().join("other.wasm");
    std::fs::write(&plugin, wat::parse_str(wat).unwrap()).unwrap();
    let reason = Larder::new(["run".as_ref(), plugin.as_os_str()]).fail(1).stderr;
    assert!(reason.contains("this host provides `wasmcloud:keyvalue/store@0.2.0`: build it for"), "{reason}");
}

#[test]
fn the_reason_that_an_error_has_no_place_for_is_a_warning_once() {
    let config = "[caches.cache]\ntype = \"ram\"\n[sandbox]\nmax_handles = 2\n";
    let operations = ["get ", "set-for k v 0", "hold-buckets 3", "hold-buckets 3", "list-from 0"];
    let larder = operations.iter().fold(Larder::run(PLUGIN).config(config), |larder, operation| larder.arg(operation));
    let run = larder.succeed();
    let invalid = "error: invalid-argument";
    let quota = "error: quota-exceeded";
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), [invalid, invalid, quota, quota, invalid]);
    let lines: Vec<&str> = run.stderr.lines().collect();
    let reasons = [
        "the plugin gets `invalid-argument` without the reason: key: must not be empty",
        "the plugin gets `quota-exceeded` without the reason: too many open handles: the limit is 2",
    ];
    assert_eq!(lines.len(), reasons.len(), "{lines:#?}");
    for (line, reason) in lines.iter().zip(reasons) {
        assert!(line.contains("WARN") && line.contains(PLUGIN) && line.contains(reason), "{line}");
    }
    // The further ones are there for whoever looks.
    let larder = operations.iter().fold(Larder::run(PLUGIN).config(config), |larder, operation| larder.arg(operation));
    let log = larder.env("LARDER_LOG", "larder_host=debug").succeed().stderr;
    for reason in ["duration: must not be zero", "cursor: must be one that list-keys returned"] {
        assert!(log.contains(&format!("without the reason: {reason}")), "{log}");
    }
}
