//! The start of a host while its server is away: `start` of a cache.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};

use larder_host::cache::{CacheError, OnOutage};
use larder_host::{Caches, Config, operator_view};
use larder_tests::{
    Cluster, Fault, Kind, Larder, LarderProcess, Relay, Sentinels, ServeProcess, Server, guest, wait_for,
};

const DEGRADED: &str = "start = \"degraded\"\n";

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

fn session(cache: &str) -> LarderProcess {
    Larder::run("session").config(&format!("{cache}[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n")).start()
}

/// The plugin that began in an outage reaches the server, and the log has one line about the start.
fn recovers(mut session: LarderProcess) {
    // Each connection has attempts of its own, and a key belongs to one of them.
    for (operation, answer) in [("set k v", "ok"), ("get k", "hit v"), ("get-or-set fresh 2", "vacant, filled true")] {
        wait_for(operation, || (ask(&mut session, operation) == answer).then_some(()));
    }
    wait_for("a clear", || (!ask(&mut session, "clear-pattern *").starts_with("error")).then_some(()));
    let run = session.succeed();
    let is_of_the_start = |line: &&str| line.contains("; started in an outage, and trying to connect");
    let lines: Vec<&str> = run.stderr.lines().filter(is_of_the_start).collect();
    assert!(matches!(lines.as_slice(), [line] if line.contains(" WARN ")), "{}", run.stderr);
}

/// Calls do what they do in an outage.
fn is_in_an_outage(session: &mut LarderProcess) {
    assert_eq!(ask(session, "get k"), "miss");
    assert_eq!(ask(session, "get-many k l"), "miss miss");
    assert_eq!(ask(session, "set k v"), "error Unavailable");
    assert_eq!(ask(session, "get-or-set k 1"), "vacant, error Unavailable");
}

#[test]
fn a_degraded_start_begins_in_an_outage_and_connects_when_the_server_is_back() {
    for kind in Kind::ALL {
        let Some(mut server) = Server::start(kind) else { continue };
        server.kill();
        let mut session = session(&(server.cache("c") + DEGRADED + "connections = 3\n"));
        is_in_an_outage(&mut session);
        server.restart();
        recovers(session);
    }
}

#[test]
fn a_degraded_start_reports_the_outage_if_on_outage_is_error() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    server.kill();
    let mut session = session(&(server.cache("c") + DEGRADED + "on_outage = \"error\"\n"));
    for operation in ["get k", "get-many k l", "get-or-set k 1", "set k 1"] {
        assert_eq!(ask(&mut session, operation), "error Unavailable", "{operation}");
    }
    server.restart();
    recovers(session);
}

/// A server that accepts and never answers is as far away as one that refuses.
#[test]
fn a_silent_server_is_an_outage_too() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let relay = Relay::to(server.port());
    relay.set_fault(Fault::Blackhole);
    let cache = server.cache("c").replace(&server.port().to_string(), &relay.port().to_string());
    let mut session = session(&(cache + DEGRADED + "connect_timeout = \"300ms\"\n"));
    is_in_an_outage(&mut session);
    relay.set_fault(Fault::None);
    recovers(session);
}

/// It refuses to select a database, for a reason that passes.
#[test]
fn a_server_that_is_busy_with_a_script_is_an_outage_too() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--lua-time-limit", "10"]) else { continue };
        let mut endless = server.client();
        let script = std::thread::spawn(move || {
            let _killed: Result<(), _> = redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut endless);
        });
        let port = server.port();
        let reply = move |command: &str| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.write_all(command.as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            line
        };
        wait_for("the script runs", || reply("PING\r\n").starts_with("-BUSY").then_some(()));
        let mut session = session(&(server.cache("c") + "db = 1\n" + DEGRADED));
        is_in_an_outage(&mut session);
        assert_eq!(reply("SCRIPT KILL\r\n"), "+OK\r\n");
        script.join().unwrap();
        recovers(session);
    }
}

#[test]
fn a_degraded_start_works_for_the_primary_of_sentinels() {
    let Some(watched) = Sentinels::start(Kind::Redis) else { return };
    let cache = watched.cache("c");
    let nodes = cache.split('"').filter_map(|text| text.strip_prefix("127.0.0.1:")?.parse::<u16>().ok());
    let relays: Vec<(u16, Relay)> = nodes.map(|node| (node, Relay::to(node))).collect();
    assert_eq!(relays.len(), 3, "{cache}");
    let mut through = cache.clone();
    for (node, relay) in &relays {
        relay.set_fault(Fault::ResetAfter(0));
        through = through.replace(&format!("127.0.0.1:{node}\""), &format!("127.0.0.1:{}\"", relay.port()));
    }
    let mut session = session(&(through + DEGRADED));
    is_in_an_outage(&mut session);
    relays.iter().for_each(|(_, relay)| relay.set_fault(Fault::None));
    recovers(session);
}

#[test]
fn a_degraded_start_works_for_a_cluster() {
    let Some(cluster) = Cluster::start(Kind::Redis) else { return };
    let relay = Relay::to(cluster.nodes[0].port());
    relay.set_fault(Fault::ResetAfter(0));
    let port = relay.port();
    let mut session = session(&format!("[caches.c]\ntype = \"redis\"\ncluster = [\"127.0.0.1:{port}\"]\n{DEGRADED}"));
    is_in_an_outage(&mut session);
    relay.set_fault(Fault::None);
    recovers(session);
}

/// What another attempt does not mend is an error at the start, whatever `start` says.
#[test]
fn a_wrong_configuration_is_no_outage() {
    let Some(server) = Server::start_with(Kind::Valkey, &["--requirepass", "s3cret"]) else { return };
    let Some(redis) = Server::start(Kind::Redis) else { return };
    let cluster = |server: &Server| {
        format!("[caches.c]\ntype = \"valkey\"\ncluster = [\"127.0.0.1:{}\"]\npassword = \"s3cret\"\n", server.port())
    };
    for (cache, reason) in [
        (server.cache("c") + "password = \"wr0ng\"\n", "cannot log in to Valkey at "),
        (server.cache("c"), "it was reached, but asks for a password"),
        (server.cache("c") + "password = \"s3cret\"\ndb = 999\n", "DB index is out of range"),
        (cluster(&server), "it is no node of a cluster"),
        (redis.cache("c") + "tls = true\nca_file = \"absent.pem\"\n", "`ca_file`"),
    ] {
        let run = Larder::run("script").config(&(cache + DEGRADED)).arg("get k").fail(1);
        assert!(run.error_line().starts_with("larder: cache `c`: cannot "), "{}", run.stderr);
        assert!(run.stderr.contains(reason), "{reason}: {}", run.stderr);
    }
}

#[test]
fn check_and_cache_need_the_server_however_a_host_may_start() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    server.kill();
    for arguments in [&["check"][..], &["cache", "get", "k"]] {
        let run = Larder::new(arguments).config(&(server.cache("c") + DEGRADED)).fail(1);
        assert!(run.error_line().starts_with("larder: cache `c`: cannot reach Valkey at "), "{}", run.stderr);
    }
}

/// An orchestrator neither restarts the host during an outage nor, with `on_outage = "error"`, sends it requests.
#[tokio::test]
async fn health_readiness_and_metrics_of_a_host_that_started_in_an_outage() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    for (more, status, state) in
        [("", 200, "c: degraded, reads are misses: "), ("on_outage = \"error\"\n", 503, "c: not ready: ")]
    {
        server.kill();
        let config = server.cache("c") + DEGRADED + more;
        let host = ServeProcess::start_with_metrics_of(Larder::serve().config(&config).arg(guest("http")));
        let ready = host.get_from_metrics_port("/readyz").await;
        assert_eq!(ready.status, status);
        let reason = ready.body.strip_prefix(state).unwrap_or_else(|| panic!("{}", ready.body));
        assert!(reason.contains("cannot reach Valkey at "), "{reason}");
        assert_eq!(host.get_from_metrics_port("/healthz").await.status, 200);
        let up = |metrics: &str, value: &str| metrics.contains(&format!("larder_up{{cache=\"c\"}} {value}\n"));
        let metrics = host.get_from_metrics_port("/metrics").await.body;
        assert!(up(&metrics, "0"), "{metrics}");
        server.restart();
        let deadline = tokio::time::Instant::now() + larder_tests::TEST_TIMEOUT;
        while host.get_from_metrics_port("/readyz").await.body != "c: ready\n" {
            assert!(tokio::time::Instant::now() < deadline, "the host connects");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let metrics = host.get_from_metrics_port("/metrics").await.body;
        assert!(up(&metrics, "1"), "{metrics}");
        assert!(metrics.contains("larder_reconnects_total{cache=\"c\"} 0"), "{metrics}");
        assert_eq!(host.terminate().await.status, Some(0));
    }
}

#[tokio::test]
async fn an_embedder_connects_caches_that_begin_in_an_outage() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    server.kill();
    let toml = server.cache("c") + DEGRADED;
    let config = Config::from_toml(&toml).unwrap();
    assert_eq!(config.caches["c"].policy.on_outage, OnOutage::Miss);
    let caches = Caches::connect(config).await.unwrap();
    let cache = operator_view(caches.get("c").unwrap().clone(), None);
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert!(matches!(caches.get("c").unwrap().check().await, Err(CacheError::Unavailable(_))));
    server.restart();
    let connected = async {
        while caches.get("c").unwrap().check().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(larder_tests::TEST_TIMEOUT, connected).await.expect("it connects");
    // Without the key, and with its default.
    server.kill();
    let required = Config::from_toml(&toml.replace(DEGRADED, "start = \"require\"\n")).unwrap();
    assert!(Caches::connect(required).await.is_err());
}
