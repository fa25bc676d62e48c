//! The commands that a host sends: the list, what servers receive, and what `larder check` says of a user without one.

use std::collections::BTreeSet;

use larder_host::cache::valkey::{COMMANDS, Need};
use larder_host::cache::{Duration, Entry, Freshness};
use larder_host::{Config, connect_cache};
use larder_tests::documents::rights_after;
use larder_tests::imitation::{imitate, usual_reply};
use larder_tests::repository::sources;
use larder_tests::{Kind, Larder, LarderOutput, Server};
use serde_json::Value;

use crate::backends::{bytes, over_every_kind, view, within};

/// Rights for everything on the keys of the default prefix, then these rules.
fn set_user(server: &Server, rules: &[&str]) {
    let all = ["SETUSER", "worker", "reset", "on", ">s3cret", "resetchannels", "+@all"];
    ::redis::cmd("ACL").arg(&all).arg(rules).exec(&mut server.client()).unwrap();
}

/// The table of a cache of this user.
fn cache_of_user(server: &Server) -> String {
    let login = "username = \"worker\"\npassword = \"s3cret\"\n";
    format!("{}{login}timeout = \"20s\"\nconnect_timeout = \"20s\"\n", server.cache("c"))
}

fn check(config: &str) -> LarderOutput {
    let run = Larder::new(["check", "--json"]).config(config).finish();
    assert!(!run.stdout.contains("s3cret") && !run.stderr.contains("s3cret"), "{run:#?}");
    run
}

/// The JSON of one cache. The exit status, `ok` and standard error agree with it.
pub(crate) fn read(run: &LarderOutput) -> Value {
    let output: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:#?}"));
    let cache = output["caches"][0].clone();
    let problems = cache["problems"].as_array().unwrap();
    assert_eq!(run.status, Some(i32::from(!problems.is_empty())), "{run:#?}");
    assert_eq!((&output["ok"], &cache["ok"]), (&Value::Bool(problems.is_empty()), &Value::Bool(problems.is_empty())));
    assert_eq!(run.stderr.lines().count(), problems.len(), "{run:#?}");
    for (line, problem) in run.stderr.lines().zip(problems) {
        assert!(line.ends_with(problem["text"].as_str().unwrap()), "{run:#?}");
    }
    cache
}

/// The commands that are named by `problems` or `advice`.
fn named<'a>(cache: &'a Value, list: &str) -> Vec<&'a str> {
    cache[list].as_array().unwrap().iter().filter_map(|finding| finding["command"].as_str()).collect()
}

/// The texts of `problems` or `advice`, in one.
pub(crate) fn texts(cache: &Value, list: &str) -> String {
    let texts = cache[list].as_array().unwrap().iter().map(|finding| finding["text"].as_str().unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

async fn check_names_each_command_that_a_user_lacks(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    set_user(&server, &["~cache:*"]);
    let whole = read(&check(&cache_of_user(&server)));
    assert_eq!((named(&whole, "problems"), named(&whole, "advice")), (vec![], vec![]));
    for command in COMMANDS {
        let db = match command.need {
            Need::Login | Need::Information | Need::Cluster | Need::Sentinel => continue,
            Need::Database => "db = 1\n",
            _ => "",
        };
        set_user(&server, &["~cache:*", &command.rule().replace('+', "-")]);
        let cache = read(&check(&(cache_of_user(&server) + db)));
        let is_optional = matches!(command.need, Need::Tracking | Need::Increment)
            || (command.need == Need::Scripts && has_ifeq(&cache));
        let (in_list, other) = if is_optional { ("advice", "problems") } else { ("problems", "advice") };
        assert_eq!((named(&cache, in_list), named(&cache, other)), (vec![command.name], vec![]), "{cache:#}");
        let text = texts(&cache, in_list);
        let words = format!("it refuses {} (used for {}", command.name, command.purpose);
        assert!(text.contains(&words) && text.contains("NOPERM"), "{text}");
        let commands = cache["servers"][0]["commands"].as_array().unwrap();
        let refused: Vec<_> = commands.iter().filter(|command| command["allowed"] == false).collect();
        assert_eq!((refused.len(), &refused[0]["name"]), (1, &command.name.into()), "{cache:#}");
    }
}

fn has_ifeq(cache: &Value) -> bool {
    cache["servers"][0]["ifeq"].as_bool().unwrap()
}

async fn check_names_what_a_key_pattern_does_not_cover(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let on_keys = ["GET", "MGET", "SET", "GETRANGE", "PTTL", "PEXPIRETIME", "UNLINK"];
    for (rule, refused) in [
        ("~other:*", &on_keys[..]),
        ("resetkeys", &on_keys),
        ("~cache:user:*", &on_keys),
        // Reads alone.
        ("%R~cache:*", &["SET", "UNLINK"]),
    ] {
        set_user(&server, &[rule]);
        let cache = read(&check(&cache_of_user(&server)));
        let named: Vec<&str> = named(&cache, "problems").into_iter().filter(|name| *name != "EVAL").collect();
        assert_eq!(named, refused, "{rule}: {cache:#}");
        assert!(texts(&cache, "problems").contains("key"), "{cache:#}");
    }
}

/// Larder uses no channels: client tracking needs none.
async fn a_user_without_channels_and_administration_lacks_nothing(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    // Clients are refused in many places because they name themselves, or ask for the configuration: redis-vl-python#673,
    // jedis#3438, sccache#598. `ACL DRYRUN` is no help to a user without the right to it.
    set_user(&server, &["~cache:*", "-@admin", "-@pubsub", "-echo", "-config", "-acl"]);
    if kind != Kind::Redis {
        ::redis::cmd("ACL").arg(&["SETUSER", "worker", "-client|setinfo"]).exec(&mut server.client()).unwrap();
    }
    let cache = read(&check(&cache_of_user(&server)));
    assert_eq!((named(&cache, "problems"), named(&cache, "advice")), (vec![], vec![]));
    assert_eq!(cache["servers"][0]["persistence"]["snapshots"], Value::Null);
    assert_eq!(cache["servers"][0]["tracking"], true);
}

/// Many access lists forbid `@dangerous`, which has `INFO`: ioredis#1211, telekom/gateway-jumper#131.
async fn check_names_info_for_a_user_without_dangerous_commands(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    set_user(&server, &["~cache:*", "-@dangerous"]);
    let cache = read(&check(&cache_of_user(&server)));
    assert_eq!(named(&cache, "problems"), ["INFO"], "{cache:#}");
    set_user(&server, &["~cache:*", "-@dangerous", "+info"]);
    assert_eq!(named(&read(&check(&cache_of_user(&server))), "problems"), [""; 0]);
}

/// With `CLUSTER INFO` and no other subcommand: redis_exporter#785.
async fn check_names_the_subcommands_that_a_cluster_needs(kind: Kind) {
    let Some(server) = Server::start_with(kind, &["--cluster-enabled", "yes"]) else { return };
    ::redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).exec(&mut server.client()).unwrap();
    let nodes = format!("cluster = [\"127.0.0.1:{}\"]", server.port());
    let address = format!("host = \"127.0.0.1\"\nport = {}", server.port());
    let config = cache_of_user(&server).replace(&address, &nodes);
    for (rules, missing) in [
        (&["-cluster", "+cluster|info"][..], &["CLUSTER SLOTS", "CLUSTER NODES"][..]),
        (&["-cluster|nodes"], &["CLUSTER NODES"]),
        (&["-asking"], &["ASKING"]),
        // A cluster is read key by key.
        (&["-mget"], &[]),
    ] {
        set_user(&server, &[&["~cache:*"], rules].concat());
        let cache = read(&check(&config));
        assert_eq!(named(&cache, "problems"), missing, "{cache:#}");
        assert_eq!(cache["servers"][0]["mode"], "cluster");
    }
}

async fn a_command_that_the_server_does_not_know_is_named(kind: Kind) {
    let options =
        ["--rename-command", "SCAN", "", "--rename-command", "CONFIG", "", "--rename-command", "GETRANGE", "x"];
    let Some(server) = Server::start_with(kind, &options) else { return };
    let cache = read(&check(&server.cache("c")));
    assert_eq!(named(&cache, "problems"), ["GETRANGE", "SCAN"], "{cache:#}");
    assert!(texts(&cache, "problems").contains("unknown command"), "{cache:#}");
}

/// Health checks that look at the connection alone call a replica healthy: StackExchange.Redis#2264, go-redis#1643.
async fn check_names_a_replica(kind: Kind) {
    let Some(primary) = Server::start(kind) else { return };
    let address = format!("127.0.0.1 {}", primary.port());
    let Some(replica) = Server::start_with(kind, &["--replicaof", &address]) else { return };
    let cache = read(&check(&replica.cache("c")));
    let server = &cache["servers"][0];
    let of = format!("127.0.0.1:{}", primary.port());
    assert_eq!((&server["role"], &server["replica_of"]), (&"replica".into(), &of.as_str().into()));
    let problems = texts(&cache, "problems");
    assert!(
        problems.contains(&format!("it is a replica of `{of}`")) && problems.contains("takes no writes"),
        "{problems}"
    );
    assert_eq!(named(&cache, "problems"), [""; 0], "the rights are not in doubt: {cache:#}");
    // Where no plugin writes, a replica will do.
    let reader = replica.cache("c") + "[plugins.reader]\naccess = \"read-only\"\n";
    let cache = read(&check(&reader));
    assert!(texts(&cache, "advice").contains("it is a replica of"), "{cache:#}");
    assert_eq!(read(&check(&(reader + "[plugins.writer]\n")))["ok"], false);
}

async fn commands_that_write_are_not_needed_where_no_plugin_writes(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    set_user(&server, &["%R~cache:*", "-@write", "-@scripting"]);
    let config = cache_of_user(&server);
    assert_eq!(read(&check(&config))["ok"], false);
    let cache = read(&check(&(config + "[plugins.reader]\naccess = \"read-only\"\n")));
    assert_eq!((named(&cache, "problems"), &cache["ok"]), (vec![], &Value::Bool(true)), "{cache:#}");
    assert!(named(&cache, "advice").starts_with(&["SET"]), "{cache:#}");
}

/// Also where plugins only read. Without them the cache works, and nothing is near: the configuration asks for more.
async fn check_names_what_a_near_tier_lacks(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let near = "near = { max_bytes = \"2MiB\", max_staleness = \"500ms\", max_expire = \"1m\" }\n";
    let config = |near: &str| cache_of_user(&server) + near + "[plugins.reader]\naccess = \"read-only\"\n";
    for missing in ["PTTL", "CLIENT TRACKING", "CLIENT CACHING"] {
        let command = COMMANDS.iter().find(|command| command.name == missing).unwrap();
        set_user(&server, &["~cache:*", &command.rule().replace('+', "-")]);
        // A host without tracking warns of it, too.
        let check =
            |more: &str| Larder::new(["check", "--json"]).config(&config(more)).env("LARDER_LOG", "off").finish();
        let cache = read(&check(near));
        assert_eq!((named(&cache, "problems"), named(&cache, "advice")), (vec![missing], vec![]), "{cache:#}");
        assert!(texts(&cache, "problems").contains("; without it nothing is kept near): "), "{cache:#}");
        assert_eq!(cache["near"]["tracking"], Value::Null);
        let cache = read(&check(""));
        assert_eq!((named(&cache, "problems"), &cache["near"]), (vec![], &Value::Null), "{cache:#}");
    }
    // The rights of the guide, on keys that it may only read.
    let rights = rights_after("Where plugins only read (`access = \"read-only\"`), ");
    let rules: Vec<&str> = ["%R~cache:*", "-@all"].into_iter().chain(rights.iter().map(String::as_str)).collect();
    set_user(&server, &rules);
    let run = check(&config(near));
    let cache = read(&run);
    assert_eq!(named(&cache, "problems"), [""; 0], "{cache:#}");
    // Those that the guide names for other interfaces.
    let is_of_others = |finding: &&Value| {
        finding["text"].as_str().is_some_and(|text| text.contains("only reads by other interfaces need it"))
    };
    let of_others = cache["advice"].as_array().unwrap().iter().filter(is_of_others);
    let of_others: BTreeSet<&str> = of_others.filter_map(|finding| finding["command"].as_str()).collect();
    assert_eq!(of_others, BTreeSet::from(["GETRANGE", "PEXPIRETIME", "SCAN"]), "{cache:#}");
    let settings = serde_json::json!({
        "max_bytes": 2 << 20, "max_staleness_seconds": 0.5, "max_value_bytes": 64 << 10, "max_expire_seconds": 60.0,
        "tracking": "by-key",
    });
    assert_eq!(cache["near"], settings);
    let table = Larder::new(["check"]).config(&config(near)).finish().stdout;
    let row = "\nNEAR  MAX BYTES  MAX STALENESS  MAX VALUE  MAX EXPIRE  TRACKING\n\
               c     2.0 MiB    500ms          64.0 KiB   1m          by key\n";
    assert!(table.contains(row), "{table}");
}

async fn a_full_server_is_a_problem_and_its_user_lacks_nothing(kind: Kind) {
    let Some(server) = Server::start_with(kind, &["--maxmemory", "100kb", "--maxmemory-policy", "noeviction"]) else {
        return;
    };
    let cache = read(&check(&server.cache("c")));
    assert_eq!(named(&cache, "problems"), [""; 0], "{cache:#}");
    assert!(texts(&cache, "problems").contains("it cannot serve: OOM "), "{cache:#}");
    let memory = &cache["servers"][0]["memory"];
    assert_eq!((&memory["max_bytes"], &memory["policy"]), (&Value::from(100 << 10), &"noeviction".into()));
}

async fn check_advises_on_memory_and_disk(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let set = |name: &str, value: &str| {
        ::redis::cmd("CONFIG").arg(&["SET", name, value]).exec(&mut server.client()).unwrap();
    };
    let advice = |more: &str| texts(&read(&check(&(server.cache("c") + more))), "advice");
    assert!(advice("").starts_with("`maxmemory` is not set, "), "{}", advice(""));
    set("maxmemory", "100mb");
    for (policy, words) in [
        ("noeviction", "`maxmemory-policy` is `noeviction`, "),
        ("volatile-ttl", "`maxmemory-policy` is `volatile-ttl`, "),
        ("volatile-lru", "`maxmemory-policy` evicts only values that expire: "),
        ("allkeys-lru", ""),
        ("allkeys-lfu", ""),
    ] {
        set("maxmemory-policy", policy);
        let advice = advice("");
        assert!(advice.starts_with(words) && advice.lines().count() == usize::from(!words.is_empty()), "{advice}");
    }
    set("maxmemory-policy", "volatile-lru");
    assert_eq!(advice("max_expire = 600\n"), "");
    set("save", "3600 1");
    assert!(advice("max_expire = 600\n").starts_with("after a crash it starts from its last snapshot, "));
    set("appendonly", "yes");
    assert_eq!(advice("max_expire = 600\n"), "");
}

/// What a host sends is what the list has, and each command of the list is sent.
async fn a_host_sends_the_commands_of_the_list_and_no_others(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let mut client = server.client();
    ::redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut client).unwrap();
    let config = format!("{}db = 1\ntimeout = \"20s\"\n", server.cache("c"));
    let config = Config::from_toml(&config).unwrap();
    let (one, two) = (connect_cache("c", &config.caches["c"]).await, connect_cache("c", &config.caches["c"]).await);
    let (one, two) = (one.unwrap(), two.unwrap());
    let calls = async {
        let (holder, waiter) = (view(&one), view(&two));
        let Ok(Entry::Vacant(vacancy)) = holder.get_or_set("k").await else { panic!("the key has no value") };
        let before = two.stats().joined_remotely;
        let waits = tokio::spawn(async move { waiter.get_or_set("k").await });
        // It has read how long the lease lasts.
        while two.stats().joined_remotely == before || !received(&mut client).contains("pttl") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(holder.fill(vacancy, bytes("v"), Duration::Default).await.unwrap());
        assert!(matches!(waits.await.unwrap(), Ok(Entry::Occupied(_))));
        assert!(holder.get("k").await.unwrap().is_some());
        holder.set("l", bytes("v"), Duration::Default).await.unwrap();
        let hour = Duration::Milliseconds(3_600_000);
        let Ok(Freshness::Stale { refresh: Some(refresh), .. }) = holder.get_or_refresh("l", hour).await else {
            panic!("the value does not expire within the hour")
        };
        assert!(holder.fill_stale(refresh, bytes("w"), Duration::Default, hour).await.unwrap());
        holder.set_many(vec![("m".to_owned(), bytes("v"))], Duration::Default).await.unwrap();
        holder.get_many(&["k", "l"]).await.unwrap();
        holder.clear("k").await.unwrap();
        for sum in 1..=2 {
            assert_eq!(holder.increment("n", 1, Duration::Default).await.unwrap(), sum);
        }
        assert_eq!(holder.clear_all().await.unwrap(), 3);
        one.check().await.unwrap();
    };
    within(calls).await;
    let of_the_test = ["config|resetstat", "info"];
    let received = received(&mut client);
    let is_listed = |name: &&str| COMMANDS.iter().any(|command| rule(command.name) == **name);
    let others: Vec<&str> =
        received.iter().map(String::as_str).filter(|name| !of_the_test.contains(name) && !is_listed(name)).collect();
    assert_eq!(others, [""; 0], "the list lacks what a host sends");
    for command in COMMANDS {
        // `HELLO` has the password, and old servers have no `CLIENT SETINFO`.
        let is_elsewhere =
            matches!(command.need, Need::Cluster | Need::Sentinel | Need::Information) || command.name == "AUTH";
        assert!(is_elsewhere || received.contains(&rule(command.name)), "a host does not send {}", command.name);
    }
}

/// The name of a command in `INFO commandstats`.
fn rule(name: &str) -> String {
    name.to_lowercase().replace(' ', "|")
}

/// The names of the commands that the server has received.
fn received(client: &mut ::redis::Connection) -> BTreeSet<String> {
    let stats: String = ::redis::cmd("INFO").arg("commandstats").query(client).unwrap();
    let names = stats.lines().filter_map(|line| Some(line.strip_prefix("cmdstat_")?.split_once(':')?.0.to_owned()));
    names.collect()
}

over_every_kind! {
    check_names_each_command_that_a_user_lacks,
    check_names_what_a_key_pattern_does_not_cover,
    a_user_without_channels_and_administration_lacks_nothing,
    check_names_info_for_a_user_without_dangerous_commands,
    check_names_the_subcommands_that_a_cluster_needs,
    a_command_that_the_server_does_not_know_is_named,
    check_names_a_replica,
    commands_that_write_are_not_needed_where_no_plugin_writes,
    check_names_what_a_near_tier_lacks,
    a_full_server_is_a_problem_and_its_user_lacks_nothing,
    check_advises_on_memory_and_disk,
    a_host_sends_the_commands_of_the_list_and_no_others,
}

/// Also those that only a cluster or a sentinel receives.
#[test]
fn every_command_in_the_code_is_in_the_list() {
    let first: BTreeSet<&str> = COMMANDS.iter().map(|command| command.name.split(' ').next().unwrap()).collect();
    let mut found = BTreeSet::new();
    for (path, text) in sources("host/cache/src/valkey").into_iter().chain(sources("host/cache/src/valkey.rs")) {
        // The inspection also asks for a setting.
        if path.ends_with("valkey/inspection/probe.rs") || path.ends_with("valkey/server/rights.rs") {
            continue;
        }
        for start in ["cmd(\"", "command(\""] {
            for name in text.split(start).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(first.contains(name), "{}: the list has no `{name}`", path.display());
                found.insert(name.to_owned());
            }
        }
    }
    for name in ["SCAN", "CLUSTER", "SENTINEL", "ASKING", "SET"] {
        assert!(found.contains(name), "{found:?}");
    }
}

/// A server whose refusals and reports have control sequences and 100 KB.
#[test]
fn the_words_of_a_server_are_escaped_and_cut() {
    let port = imitate(|_, command| {
        let info = "redis_version:7.2.0\r\nrole:slave\r\nmaster_host:\u{1b}[2J\r\nused_memory:1\r\n\
                    maxmemory_policy:\u{9b}2J\r\n";
        Some(match command[0].as_str() {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            "HELLO" | "PING" | "EVAL" | "CLIENT" => usual_reply(command),
            _ => format!("-NOPERM \u{1b}[2J\u{9b}2J{}\r\n", "x".repeat(100_000)),
        })
    });
    let config = format!("[caches.c]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let run = Larder::new(["check", "--json"]).config(&config).fail(1);
    let table = Larder::new(["check"]).config(&config).fail(1);
    for text in [&run.stdout, &run.stderr, &table.stdout, &table.stderr] {
        assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
        assert!(text.len() < 20_000, "{} bytes", text.len());
    }
    let cache = read(&run);
    assert!(named(&cache, "problems").contains(&"SET"), "{cache:#}");
    assert_eq!(cache["servers"][0]["memory"]["policy"], "\\u{9b}2J");
}
