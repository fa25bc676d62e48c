//! The first connection to a server: its address from the environment, passwords, and servers that cannot be used.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};

use larder_tests::{Kind, Larder, Server};

/// A port of loopback without a listener: it is reserved for a service that no machine runs.
const DEAD_PORT: u16 = 1;

fn variables(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Valkey | Kind::ValkeyWithIfeq => ("VALKEY_HOST", "VALKEY_PORT"),
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
        assert!(run.error_line().ends_with("it refused the user name or password"), "{}", run.stderr);
    }
}

#[test]
fn a_wrong_or_missing_password_stops_the_start_and_is_not_shown() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--requirepass", "s3cret"]) else { continue };
        let start = format!("larder: cache `c`: cannot reach {} at `127.0.0.1:{}`: ", kind.name(), server.port());
        let wrong = server.cache("c") + "password = \"wr0ng-guess\"\n";
        let wrong = Larder::run("script").config(&wrong).env("LARDER_LOG", "warn").fail(1);
        assert_eq!(wrong.error_line(), format!("{start}it refused the user name or password"));
        let missing = Larder::run("script").config(&server.cache("c")).fail(1);
        assert_eq!(missing.error_line(), format!("{start}it asks for a password"));
        // Not even the most talkative log has it.
        let talkative = server.cache("c") + "password = \"wr0ng-guess\"\n";
        let talkative = Larder::run("script").config(&talkative).env("LARDER_LOG", "trace").fail(1);
        assert!(!talkative.stderr.contains("wr0ng-guess") && !talkative.stdout.contains("wr0ng-guess"));
    }
}

/// No package manager has a server this old, so this is an imitation. It speaks just enough of the protocol to
/// be asked for its version.
#[test]
fn a_server_too_old_stops_the_start_with_what_is_needed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut answers = connection.unwrap();
            let mut commands = BufReader::new(answers.try_clone().unwrap());
            while let Some(command) = read_command(&mut commands) {
                let answer = match command[0].as_str() {
                    "HELLO" => "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n",
                    "INFO" => "$32\r\n# Server\r\nredis_version:6.2.14\r\n\r\n",
                    _ => "+OK\r\n",
                };
                answers.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    let config = format!("[caches.old]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let run = Larder::run("script").config(&config).fail(1);
    let expected = format!(
        "larder: cache `old`: cannot use Redis at `127.0.0.1:{port}`: Redis 6.2.14 is too old: 7.0.0 or later is needed"
    );
    assert_eq!(run.error_line(), expected);
}

/// The words of one command: `*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n`.
pub(super) fn read_command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let words = read_number(input, '*')?;
    let mut command = Vec::new();
    for _ in 0..words {
        let len = read_number(input, '$')?;
        let mut word = vec![0; len + 2];
        input.read_exact(&mut word).ok()?;
        word.truncate(len);
        command.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(command)
}

fn read_number(input: &mut impl BufRead, sign: char) -> Option<usize> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

#[test]
fn a_node_of_a_cluster_stops_the_start() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--cluster-enabled", "yes"]) else { continue };
        let run = Larder::new(["check"]).config(&server.cache("c")).fail(1);
        assert!(run.stderr.contains("it is a node of a cluster: name the nodes as `cluster`"), "{}", run.stderr);
    }
}
