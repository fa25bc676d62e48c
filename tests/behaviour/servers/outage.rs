//! A server that stops, hangs and returns while a plugin runs.

use larder_tests::{Fault, Kind, Larder, LarderProcess, Relay, Server, wait_for};

fn session(server: &Server, more: &str) -> LarderProcess {
    let sandbox = "[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n";
    Larder::run("session").config(&format!("{}{more}{sandbox}", server.cache("c"))).start()
}

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

fn is_outage(answer: &str) -> bool {
    ["error Timeout", "error Unavailable"].contains(&answer)
}

/// The plugin that runs reaches the server again, without a restart of its own.
fn recovers(session: &mut LarderProcess) {
    wait_for("the cache to work again", || (ask(session, "set back 1") == "ok").then_some(()));
    assert_eq!(ask(session, "get back"), "hit 1");
    assert_eq!(ask(session, "get-or-set fresh 2"), "vacant, filled true");
    assert_eq!(ask(session, "compute fresher 3"), "computed 3");
    assert_eq!(ask(session, "get fresher"), "hit \"computed 3\"");
}

#[test]
fn reads_are_misses_and_writes_report_while_the_server_is_dead() {
    for kind in Kind::ALL {
        let Some(mut server) = Server::start(kind) else { continue };
        let mut session = session(&server, "");
        assert_eq!(ask(&mut session, "set k v"), "ok");
        server.kill();
        for _ in 0..3 {
            assert_eq!(ask(&mut session, "get k"), "miss");
            assert_eq!(ask(&mut session, "get-many k k"), "miss miss");
            let answer = ask(&mut session, "get-or-set k 1");
            assert!(is_outage(answer.strip_prefix("vacant, ").unwrap()), "{answer}");
            assert_eq!(ask(&mut session, "compute k 1"), "computed 1");
            for write in ["set k 1", "clear k", "clear-pattern *", "clear-all"] {
                let answer = ask(&mut session, write);
                assert!(is_outage(&answer), "{write}: {answer}");
            }
        }
        server.restart();
        recovers(&mut session);
        session.succeed();
    }
}

#[test]
fn reads_report_the_outage_if_on_outage_is_error() {
    for kind in Kind::ALL {
        let Some(mut server) = Server::start(kind) else { continue };
        let mut session = session(&server, "on_outage = \"error\"\n");
        assert_eq!(ask(&mut session, "set k v"), "ok");
        server.kill();
        for _ in 0..3 {
            for operation in ["get k", "get-many k k", "get-or-set k 1", "compute k 1", "set k 1", "clear k"] {
                let answer = ask(&mut session, operation);
                assert!(is_outage(&answer), "{operation}: {answer}");
            }
        }
        server.restart();
        recovers(&mut session);
        session.succeed();
    }
}

#[test]
fn a_call_whose_connection_is_lost_before_the_reply_is_a_timeout_and_its_reason_is_logged() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let relay = Relay::to(server.port());
        let config = server.cache("c").replace(&server.port().to_string(), &relay.port().to_string());
        let mut session = Larder::run("session").config(&config).env("LARDER_LOG", "larder=debug").start();
        assert_eq!(ask(&mut session, "set k before"), "ok");
        relay.set_fault(Fault::ResetAfter(0));
        assert_eq!(ask(&mut session, "set k after"), "error Timeout");
        let log = session.succeed().stderr;
        let reason = "the connection was lost before the reply: ";
        assert!(log.lines().any(|line| line.starts_with("DEBUG ") && line.contains(reason)), "{log}");
    }
}

#[test]
fn no_call_hangs_with_the_server_and_after_a_few_none_waits_for_it() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut session = session(&server, "on_outage = \"error\"\n");
        assert_eq!(ask(&mut session, "set k v"), "ok");
        server.freeze();
        let answers: Vec<String> = (0..20).map(|_| ask(&mut session, "get k")).collect();
        let (waited, at_once): (Vec<&str>, Vec<&str>) =
            answers.iter().map(String::as_str).partition(|answer| *answer == "error Timeout");
        // The next one may come before the connection is given up.
        assert!((3..=4).contains(&waited.len()), "{answers:?}");
        assert!(at_once.iter().all(|answer| *answer == "error Unavailable"), "{answers:?}");
        server.thaw();
        recovers(&mut session);
        session.succeed();
    }
}

#[test]
fn a_plugin_that_computes_continues_while_the_server_is_frozen() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut session = session(&server, "");
    assert_eq!(ask(&mut session, "get nothing"), "miss");
    server.freeze();
    for n in 0..10 {
        assert_eq!(ask(&mut session, &format!("compute k{n} {n}")), format!("computed {n}"));
        assert_eq!(ask(&mut session, "get k"), "miss");
    }
    server.thaw();
    recovers(&mut session);
    session.succeed();
}

/// Its keys are gone with it, and nothing of what was there before comes back.
#[test]
fn a_server_that_restarts_empty_is_an_empty_cache() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let mut session = session(&server, "");
    assert_eq!(ask(&mut session, "compute k 1"), "computed 1");
    server.kill();
    server.restart();
    recovers(&mut session);
    assert_eq!(ask(&mut session, "get k"), "miss");
    assert_eq!(ask(&mut session, "compute k 2"), "computed 2");
    assert_eq!(ask(&mut session, "compute k 3"), "computed 2");
    session.succeed();
}

#[test]
fn an_outage_of_one_cache_leaves_the_others_alone() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let config = format!("default = \"ram\"\n[caches.ram]\ntype = \"ram\"\n{}", server.cache("valkey"));
    let mut session = Larder::run("session").config(&config).start();
    assert_eq!(ask(&mut session, "set k v"), "ok");
    server.kill();
    assert_eq!(ask(&mut session, "get k"), "hit v");
    assert_eq!(ask(&mut session, "set k w"), "ok");
    assert_eq!(ask(&mut session, "clear-all"), "1");
    session.succeed();
}

/// The old primary has become a replica, and keeps the connections it has.
#[test]
fn a_failover_behind_one_address_is_followed() {
    for kind in Kind::ALL {
        let (Some(old), Some(new)) = (Server::start(kind), Server::start(kind)) else { continue };
        let relay = Relay::to(old.port());
        let config = format!("[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {}\n", relay.port());
        let mut session = Larder::run("session").config(&config).start();
        assert_eq!(ask(&mut session, "set k before"), "ok");
        relay.set_target(new.port());
        let primary = ["127.0.0.1".to_owned(), new.port().to_string()];
        redis::cmd("REPLICAOF").arg(&primary).exec(&mut old.client()).unwrap();
        wait_for("the host to follow", || match ask(&mut session, "set k after").as_str() {
            "ok" => Some(()),
            refused => {
                assert_eq!(refused, "error Unavailable");
                None
            }
        });
        assert_eq!(redis::TypedCommands::get(&mut new.client(), "cache:k").unwrap().as_deref(), Some("after"));
        session.succeed();
    }
}

/// The system does the probing; `/proc` says for each connection which of its timers runs.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_connection_is_probed() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut session = session(&server, "");
    assert_eq!(ask(&mut session, "get k"), "miss");
    let remote = format!(":{:04X}", server.port());
    wait_for("the timer of an idle connection", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // The remote address, the state and the timer: established, and keepalive.
        let is_probed = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[2].ends_with(&remote) && fields[3] == "01" && fields[5].starts_with("02:")
        };
        table.lines().skip(1).any(is_probed).then_some(())
    });
    session.succeed();
}
