//! Which server it is: two caches with overlapping prefixes never use one server, whatever its addresses are.

use std::sync::Arc;

use larder_host::cache::{Cache, CacheError, Duration};
use larder_host::{Caches, Config};
use larder_tests::{Kind, Larder, Relay, Sentinels, Server, wait_for};

use crate::backends::{bytes, over_every_kind, view, within};

/// A port of loopback without a listener.
const DEAD_PORT: u16 = 1;

/// For a busy machine.
const PATIENT: &str = "timeout = \"20s\"\nconnect_timeout = \"20s\"\n";

/// The plugin `script` is granted the cache `open` alone.
const GRANT: &str = "[plugins.script]\ncaches = [\"open\"]\n";

fn cache(name: &str, kind: Kind, address: &str, prefix: &str) -> String {
    let type_name = kind.type_name();
    format!("[caches.{name}]\ntype = \"{type_name}\"\n{address}\nprefix = \"{prefix}\"\n{PATIENT}")
}

fn at(host: &str, port: u16) -> String {
    format!("host = \"{host}\"\nport = {port}")
}

/// Asserts that neither the program nor an embedder connects to both caches, and that the message names them.
async fn assert_refused(config: &str) {
    let config = format!("default = \"open\"\n{config}{GRANT}");
    let run = Larder::run("script").config(&config).arg("get secret:k").fail(2);
    assert_eq!(run.stdout, "");
    let line = run.error_line();
    for words in ["larder: cache `secret`: cannot use ", "cache `open`", "`app:`", "`app:secret:`", "run_id"] {
        assert!(line.contains(words), "`{words}` is not in: {line}");
    }
    let check = Larder::new(["check"]).config(&config).fail(1);
    assert!(check.stderr.lines().any(|of_check| of_check == line), "{check:#?}");
    match within(Caches::connect(Config::from_toml(&config).unwrap())).await {
        Err(larder_host::Error::Cache { cache, reason: CacheError::Overlap(_) }) => assert_eq!(cache, "secret"),
        other => panic!("{other:?}"),
    }
}

async fn two_names_of_one_server_do_not_open_one_cache_to_the_plugins_of_another(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let secret = cache("secret", kind, &at("127.0.0.1", server.port()), "app:secret:");
    Larder::new(["cache", "set", "k", "hidden"]).config(&secret).succeed();
    let open = cache("open", kind, &at("localhost", server.port()), "app:");
    assert_refused(&format!("{open}{secret}")).await;
    // The other type, and a relay, which may be a tunnel or a load balancer.
    let other = if kind == Kind::Redis { Kind::Valkey } else { Kind::Redis };
    let relay = Relay::to(server.port());
    assert_refused(&(cache("open", other, &at("127.0.0.1", relay.port()), "app:") + &secret)).await;
}

async fn other_prefixes_and_databases_of_one_server_are_accepted(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let open = cache("open", kind, &at("localhost", server.port()), "app:");
    for (prefix, db) in [("apps:", 0), ("app:secret:", 1)] {
        let secret = cache("secret", kind, &at("127.0.0.1", server.port()), prefix);
        let config = format!("default = \"open\"\n{open}{secret}db = {db}\n{GRANT}");
        Larder::run("script").config(&config).arg("get k").succeed();
        Larder::new(["check"]).config(&config).succeed();
    }
}

/// It has the keys of its primary.
async fn a_replica_is_the_server_of_its_primary(kind: Kind) {
    let Some(primary) = Server::start(kind) else { return };
    let follow = ["--replicaof", &format!("127.0.0.1 {}", primary.port())];
    let Some(replica) = Server::start_with(kind, &follow) else { return };
    wait_for("the replica is connected", || {
        let info: String = ::redis::cmd("INFO").arg("replication").query(&mut replica.client()).unwrap();
        info.contains("master_link_status:up").then_some(())
    });
    let secret = cache("secret", kind, &at("127.0.0.1", primary.port()), "app:secret:");
    let open = cache("open", kind, &at("127.0.0.1", replica.port()), "app:");
    assert_refused(&format!("{open}{secret}")).await;
}

/// A cluster of one node, whose seed has two names.
async fn two_names_of_one_cluster_are_the_same_servers(kind: Kind) {
    let Some(server) = Server::start_with(kind, &["--cluster-enabled", "yes"]) else { return };
    let mut client = server.client();
    ::redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).exec(&mut client).unwrap();
    wait_for("the cluster is up", || {
        let info: String = ::redis::cmd("CLUSTER").arg("INFO").query(&mut client).unwrap();
        info.contains("cluster_state:ok").then_some(())
    });
    let seed = |host: &str| format!("cluster = [\"{host}:{}\"]", server.port());
    let open = cache("open", kind, &seed("localhost"), "app:");
    let secret = cache("secret", kind, &seed("127.0.0.1"), "app:secret:");
    assert_refused(&format!("{open}{secret}")).await;
}

over_every_kind! {
    two_names_of_one_server_do_not_open_one_cache_to_the_plugins_of_another,
    other_prefixes_and_databases_of_one_server_are_accepted,
    a_replica_is_the_server_of_its_primary,
    two_names_of_one_cluster_are_the_same_servers,
    a_cache_that_is_led_to_the_server_of_another_one_is_refused_until_it_is_led_back,
    a_restart_changes_the_number_of_a_server_and_all_its_caches_return,
}

#[tokio::test]
async fn the_primary_of_sentinels_and_its_address_are_the_same_server() {
    let Some(watched) = Sentinels::start(Kind::Valkey) else { return };
    let open = cache("open", Kind::Valkey, &at("127.0.0.1", watched.servers[0].port()), "app:");
    let secret = format!("{}prefix = \"app:secret:\"\n{PATIENT}", watched.cache("secret"));
    assert_refused(&format!("{open}{secret}")).await;
}

/// Repeats a call until its outcome is as expected.
async fn until<T: std::fmt::Debug>(mut call: impl AsyncFnMut() -> T, is_expected: impl Fn(&T) -> bool) {
    let reached = async {
        while !is_expected(&call().await) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(reached).await;
}

async fn set(cache: &Arc<Cache>) -> Result<(), CacheError> {
    view(cache).set("k", bytes("v"), Duration::Default).await
}

/// After a failover, or a change of a name.
async fn a_cache_that_is_led_to_the_server_of_another_one_is_refused_until_it_is_led_back(kind: Kind) {
    let (Some(first), Some(second)) = (Server::start(kind), Server::start(kind)) else { return };
    let (relay, way) = (Relay::to(first.port()), Relay::to(second.port()));
    let open = cache("open", kind, &at("127.0.0.1", relay.port()), "app:");
    let secret = cache("secret", kind, &at("127.0.0.1", way.port()), "app:secret:");
    let config = Config::from_toml(&format!("default = \"open\"\n{open}{secret}")).unwrap();
    let caches = within(Caches::connect(config)).await.unwrap();
    let (open, secret) = (caches.get("open").unwrap(), caches.get("secret").unwrap());
    set(secret).await.unwrap();
    set(open).await.unwrap();

    relay.set_target(second.port());
    relay.reset();
    until(async || set(open).await, |outcome| matches!(outcome, Err(CacheError::Overlap(_)))).await;
    assert_eq!(view(open).get("secret:k").await, Ok(None), "a miss, as in an outage");
    assert_eq!(view(secret).get("k").await, Ok(Some(bytes("v"))));
    let written: i64 = ::redis::cmd("EXISTS").arg("app:k").query(&mut second.client()).unwrap();
    assert_eq!(written, 0);

    // Nor when the other cache has lost its connection.
    let mut client = second.client();
    let mut connections = || {
        let info: String = ::redis::cmd("INFO").arg("stats").query(&mut client).unwrap();
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        count.trim_end().parse::<u64>().unwrap()
    };
    way.set_target(DEAD_PORT);
    way.reset();
    until(async || set(secret).await, |outcome| matches!(outcome, Err(CacheError::Unavailable(_)))).await;
    let before = connections();
    until(async || connections(), |count| *count >= before + 3).await;
    assert!(matches!(set(open).await, Err(CacheError::Overlap(_))));
    way.set_target(second.port());

    relay.set_target(first.port());
    until(async || set(open).await, Result::is_ok).await;
    assert_eq!(view(open).get("k").await, Ok(Some(bytes("v"))));
    until(async || set(secret).await, Result::is_ok).await;
}

async fn a_restart_changes_the_number_of_a_server_and_all_its_caches_return(kind: Kind) {
    let Some(mut server) = Server::start(kind) else { return };
    let one = cache("one", kind, &at("127.0.0.1", server.port()), "one:") + "connections = 2\n";
    let two = cache("two", kind, &at("localhost", server.port()), "two:");
    let config = Config::from_toml(&format!("default = \"one\"\n{one}{two}")).unwrap();
    let caches = within(Caches::connect(config)).await.unwrap();
    server.kill();
    server.restart();
    for cache in caches.iter() {
        until(async || set(cache).await, Result::is_ok).await;
    }
}

/// Without `INFO` the host does not know which server it is.
#[test]
fn a_user_without_the_right_to_info_stops_the_start_and_is_told_so() {
    for kind in Kind::ALL {
        let acl = ["--user", "worker", "on", ">s3cret", "~cache:*", "+@all", "-info"];
        let Some(server) = Server::start_with(kind, &acl) else { continue };
        let config = server.cache("c") + "username = \"worker\"\npassword = \"s3cret\"\n";
        let run = Larder::run("script").config(&config).arg("get k").fail(1);
        assert!(run.error_line().contains("the user needs the right to `INFO`: "), "{run:#?}");
    }
}

#[test]
fn a_user_without_the_right_to_the_database_is_told_so_and_not_that_the_server_is_out_of_reach() {
    for kind in Kind::ALL {
        let acl = ["--user", "worker", "on", ">s3cret", "~cache:*", "+@all", "-select"];
        let Some(server) = Server::start_with(kind, &acl) else { continue };
        let config = server.cache("c") + "username = \"worker\"\npassword = \"s3cret\"\ndb = 1\n";
        let run = Larder::run("script").config(&config).arg("get k").fail(1);
        let words = "it was reached, but its user lacks a right, which `larder check` names: ";
        assert!(run.error_line().starts_with("larder: cache `c`: cannot use "), "{run:#?}");
        assert!(run.error_line().contains(words) && run.error_line().contains("select"), "{run:#?}");
    }
}
