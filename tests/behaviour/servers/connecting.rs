//! The first connection to a server: its address from the environment, passwords, and servers that cannot be used.

use std::net::{Ipv4Addr, TcpListener};

use larder_tests::imitation::{imitate, usual_reply};
use larder_tests::{Kind, Larder, Server};

/// A port of loopback without a listener: it is reserved for a service that no machine runs.
const DEAD_PORT: u16 = 1;

fn variables(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Valkey | Kind::ValkeyWithIfeq | Kind::Valkey9 => ("VALKEY_HOST", "VALKEY_PORT"),
        Kind::Redis => ("REDIS_HOST", "REDIS_PORT"),
    }
}

#[test]
fn the_environment_names_host_and_port_where_the_file_does_not() {
    for (kind, other) in [(Kind::Valkey, Kind::Redis), (Kind::Redis, Kind::Valkey)] {
        let Some(server) = Server::start(kind) else { continue };
        let config = format!("[caches.c]\ntype = \"{}\"\n", kind.type_name());
        let ((host, port), (_, port_of_other)) = (variables(kind), variables(other));
        let script = Larder::run("script").config(&config).arg("set k v");
        let script = script.env(host, "127.0.0.1").env(port, server.port().to_string());
        script.env(port_of_other, DEAD_PORT.to_string()).succeed();
        assert_eq!(redis::TypedCommands::get(&mut server.client(), "cache:k").unwrap().as_deref(), Some("v"));
    }
}

#[test]
fn the_environment_is_ignored_where_the_file_names_host_and_port() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let (host, port) = variables(kind);
        let script = Larder::run("script").config(&server.cache("c")).arg("set k v");
        script.env(host, "host.invalid").env(port, DEAD_PORT.to_string()).succeed();
        assert_eq!(redis::TypedCommands::get(&mut server.client(), "cache:k").unwrap().as_deref(), Some("v"));
    }
}

#[test]
fn an_invalid_port_in_the_environment_is_a_configuration_error() {
    let config = "[caches.c]\ntype = \"valkey\"\n";
    for bad in ["0", "70000", "http"] {
        let run = Larder::run("script").config(config).env("VALKEY_PORT", bad).fail(2);
        assert!(run.error_line().contains("`VALKEY_PORT`") && run.stderr.contains(bad), "{}", run.stderr);
    }
    // As Kubernetes sets it beside a service with the name `valkey`.
    let run = Larder::run("script").config(config).env("VALKEY_PORT", "tcp://192.0.2.1:6379").fail(2);
    assert!(run.error_line().contains("Kubernetes") && run.stderr.contains("`port`"), "{}", run.stderr);
    for bad in ["valkey://:s3cret@h", "h:6379"] {
        let run = Larder::run("script").config(config).env("VALKEY_HOST", bad).fail(2);
        assert!(run.error_line().contains("from the environment variable `VALKEY_HOST`: must"), "{}", run.stderr);
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    }
}

#[test]
fn an_unreachable_server_stops_the_start_with_one_clear_line() {
    for (type_name, kind) in [("valkey", "Valkey"), ("redis", "Redis")] {
        let config = format!("[caches.pages]\ntype = \"{type_name}\"\nhost = \"127.0.0.1\"\nport = {DEAD_PORT}\n");
        let run = Larder::run("script").config(&config).arg("get k").fail(1);
        let start = format!("larder: cache `pages`: cannot reach {kind} at `127.0.0.1:{DEAD_PORT}`: ");
        let reason = run.error_line().strip_prefix(&start).unwrap_or_else(|| panic!("{}", run.stderr));
        assert!(reason.contains("refused"), "{reason}");
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn a_host_name_that_does_not_exist_stops_the_start_with_one_clear_line() {
    let config = "[caches.pages]\ntype = \"valkey\"\nhost = \"host.invalid\"\n";
    let run = Larder::run("script").config(config).arg("get k").fail(1);
    let start = "larder: cache `pages`: cannot reach Valkey at `host.invalid:6379`: ";
    assert!(run.error_line().starts_with(start), "{}", run.stderr);
}

#[test]
fn a_server_that_accepts_and_never_replies_stops_the_start_too() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config =
        format!("[caches.c]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = {port}\nconnect_timeout = \"200ms\"\n");
    let run = Larder::run("script").config(&config).fail(1);
    let expected = format!("larder: cache `c`: cannot reach Redis at `127.0.0.1:{port}`: no answer within 200ms");
    assert_eq!(run.error_line(), expected);
}

#[test]
fn a_server_with_a_password_accepts_the_configured_one() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--requirepass", "s3cret"]) else { continue };
        let written = server.cache("c") + "password = \"s3cret\"\n";
        let from_environment = server.cache("c") + "password = \"${CACHE_PASSWORD}\"\n";
        let from_file = server.cache("c") + "password_file = \"password\"\n";
        Larder::run("script").config(&written).arg("set k v").succeed();
        let second = Larder::run("script").config(&from_environment).env("CACHE_PASSWORD", "s3cret");
        assert_eq!(second.arg("get k").succeed().stdout, "hit v\n");
        let third = Larder::run("script").config(&from_file).arg("get k");
        std::fs::write(third.folder().join("password"), "s3cret\n").unwrap();
        assert_eq!(third.succeed().stdout, "hit v\n");
    }
}

#[test]
fn a_user_of_the_access_list_connects_with_the_password() {
    for kind in Kind::ALL {
        let acl = ["--user", "worker", "on", ">s3cret", "~cache:*", "+@all", "--user", "default", "off"];
        let Some(server) = Server::start_with(kind, &acl) else { continue };
        let config = server.cache("c") + "username = \"worker\"\npassword = \"s3cret\"\n";
        let run = Larder::run("script").config(&config).arg("set k v").arg("get k").arg("clear-all").succeed();
        assert_eq!(run.stdout, "ok\nhit v\n1\n");
        let wrong = server.cache("c") + "username = \"workex\"\npassword = \"s3cret\"\n";
        let run = Larder::run("script").config(&wrong).fail(1);
        assert!(
            run.error_line()
                .ends_with("it was reached, but refused the user name or password (correct `username` or `password`)"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn a_wrong_or_missing_password_stops_the_start_and_is_not_shown() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--requirepass", "s3cret"]) else { continue };
        let start = format!(
            "larder: cache `c`: cannot log in to {} at `127.0.0.1:{}`: it was reached, but ",
            kind.name(),
            server.port()
        );
        let wrong = server.cache("c") + "password = \"wr0ng-guess\"\n";
        let wrong = Larder::run("script").config(&wrong).env("LARDER_LOG", "warn").fail(1);
        assert_eq!(
            wrong.error_line(),
            format!("{start}refused the user name or password (correct `username` or `password`)")
        );
        let missing = Larder::run("script").config(&server.cache("c")).fail(1);
        assert_eq!(missing.error_line(), format!("{start}asks for a password: set `password_file` or `password`"));
        // Not even the most talkative log has it.
        let talkative = server.cache("c") + "password = \"wr0ng-guess\"\n";
        let talkative = Larder::run("script").config(&talkative).env("LARDER_LOG", "trace").fail(1);
        assert!(!talkative.stderr.contains("wr0ng-guess") && !talkative.stdout.contains("wr0ng-guess"));
    }
}

/// No package manager has a server this old, so this is an imitation.
#[test]
fn a_server_too_old_stops_the_start_with_what_is_needed() {
    let port = imitate(|_, command| {
        Some(match command[0].as_str() {
            "INFO" => "$32\r\n# Server\r\nredis_version:6.2.14\r\n\r\n".to_owned(),
            _ => usual_reply(command),
        })
    });
    let config = format!("[caches.old]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let run = Larder::run("script").config(&config).fail(1);
    let expected = format!(
        "larder: cache `old`: cannot use Redis at `127.0.0.1:{port}`: Redis 6.2.14 is too old: 7.0.0 or later is needed"
    );
    assert_eq!(run.error_line(), expected);
}

/// Redis before 6, and proxies, do not know `HELLO`.
#[test]
fn a_server_without_resp3_stops_the_start_with_what_is_needed() {
    let port = imitate(|_, command| {
        Some(match command[0].as_str() {
            "HELLO" => "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n".to_owned(),
            _ => usual_reply(command),
        })
    });
    let config = format!("[caches.old]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let run = Larder::run("script").config(&config).fail(1);
    assert!(run.error_line().contains("`HELLO 3`") && run.error_line().contains("Redis 6"), "{}", run.stderr);
}

#[test]
fn a_refused_password_of_a_url_or_of_a_file_comes_with_where_it_is_from() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--requirepass", "p%41ss"]) else { continue };
        let scheme = kind.type_name();
        let url = |password: &str| {
            let url = format!("{scheme}://:{password}@127.0.0.1:{}", server.port());
            format!("[caches.c]\ntype = \"{scheme}\"\nurl = \"{url}\"\n")
        };
        let run = Larder::run("script").config(&url("p%41ss")).fail(1);
        let decoded = "it was reached, but refused the user name or password (in the password of a `url`, ";
        assert!(run.error_line().contains(decoded) && run.error_line().contains("`%25`"), "{}", run.stderr);
        assert!(!run.stderr.contains("p%41ss") && !run.stderr.contains("pAss"), "{}", run.stderr);
        Larder::run("script").config(&url("p%2541ss")).arg("get k").succeed();
        let run = Larder::run("script").config(&(server.cache("c") + "password_file = \"password\"\n"));
        std::fs::write(run.folder().join("password"), "s3cret\n").unwrap();
        let run = run.fail(1);
        let named = "(the password is that of `password_file` = `password`)";
        assert!(run.error_line().ends_with(named), "{}", run.stderr);
    }
}

#[test]
fn a_node_of_a_cluster_stops_the_start() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--cluster-enabled", "yes"]) else { continue };
        let run = Larder::new(["check"]).config(&server.cache("c")).fail(1);
        assert!(run.stderr.contains("it is a node of a cluster: name the nodes as `cluster`"), "{}", run.stderr);
    }
}
