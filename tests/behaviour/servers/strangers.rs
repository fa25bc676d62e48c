//! Something else than a Valkey or Redis server is at the address, or a server that takes no more clients.

use larder_tests::imitation::{Manner, imitate, stranger, usual_reply};
use larder_tests::{Authority, Kind, Larder, LarderOutput, Server};

fn toml(port: u16) -> String {
    format!("[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {port}\n")
}

/// The reason that the only line on standard error gives.
fn reason(run: &LarderOutput, port: u16) -> &str {
    let reason_after = |verb| {
        run.error_line().strip_prefix(&format!("larder: cache `c`: cannot {verb} Valkey at `127.0.0.1:{port}`: "))
    };
    reason_after("reach").or_else(|| reason_after("use")).unwrap_or_else(|| panic!("{run:#?}"))
}

#[test]
fn another_kind_of_server_is_named_by_what_it_says() {
    let mysql = b"J\0\0\0\x0a8.0.36\0\x08\0\0\0m\x1b[2J\x11\0\xff\xff\xff\x02\0";
    let mut long = b"<html>".to_vec();
    long.resize(100 << 10, b'x');
    for (name, said, manner, expected) in [
        (
            "HTTP",
            &b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>"[..],
            Manner::Answers,
            "`HTTP/1.1 400 Bad Request`",
        ),
        ("MySQL", mysql, Manner::Greets, "\\n8.0.36\\u{0}"),
        ("memcached", b"ERROR\r\n", Manner::Answers, "it said `ERROR`"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Manner::Greets, "it said `SSH-2.0-OpenSSH_9.2p1 Debian-2`"),
        ("SMTP", b"220 mail.example.com ESMTP\r\n", Manner::Greets, "it said `220 mail.example.com ESMTP`"),
        ("POP3", b"+OK ready\r\n", Manner::Greets, "this is no Valkey or Redis server"),
        ("one that closes the connection", b"", Manner::Answers, "without a reply"),
        ("a long line", &long, Manner::Answers, "it said `<html>xxx"),
        ("an endless line", &[b'x'; 4096], Manner::Repeats, "it said `xxx"),
        ("an endless reply", &[b'+'; 4096], Manner::Repeats, "it said `+++"),
        ("an endless error", &[b'-'; 4096], Manner::Repeats, "it refuses the connection"),
    ] {
        let port = stranger(said, manner);
        let run = Larder::run("script").config(&toml(port)).fail(1);
        let reason = reason(&run, port);
        assert!(reason.contains(expected), "{name}: {reason}");
        assert!(reason.len() < 600 && !reason.contains(char::is_control), "{name}: {reason}");
    }
}

#[test]
fn a_server_that_takes_no_more_clients_says_so_itself() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        // The client of the test is the one client that fits.
        let mut client = server.client();
        redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec(&mut client).unwrap();
        // The server notices that an earlier client has left only after a while.
        let run = larder_tests::wait_for("the server is full", || {
            let run = Larder::run("script").config(&server.cache("c")).finish();
            (run.status == Some(1)).then_some(run)
        });
        assert!(
            run.error_line().ends_with(": it refuses the connection: ERR max number of clients reached"),
            "{run:#?}"
        );
    }
}

#[test]
fn the_text_of_a_server_is_one_short_line() {
    let long = format!("-ERR \u{1b}]0;title\u{7}\u{1b}[31m{}\r\n", "x".repeat(100 << 10));
    let refused = stranger(long.clone(), Manner::Answers);
    let run = Larder::run("script").config(&toml(refused)).fail(1);
    let text = reason(&run, refused);
    assert!(text.contains("ERR \\u{1b}]0;title") && text.len() < 600, "{text}");
    // The same later, when the server is known to be one.
    for command in ["HELLO", "INFO"] {
        let long = long.clone();
        let port = imitate(move |_, words| Some(if words[0] == command { long.clone() } else { usual_reply(words) }));
        let run = Larder::run("script").config(&toml(port)).fail(1);
        let text = reason(&run, port);
        assert!(text.starts_with("ERR \\u{1b}]0;title") && text.len() < 600, "{command}: {text}");
    }
    let version = "redis_version:7.0\u{1b}[31m\r\n";
    let port = imitate(move |_, words| {
        let info = format!("${}\r\n{version}\r\n", version.len());
        Some(if words[0] == "INFO" { info } else { usual_reply(words) })
    });
    let run = Larder::run("script").config(&toml(port)).fail(1);
    assert!(run.error_line().contains("`7.0\\u{1b}[31m`"), "{}", run.stderr);
}

#[test]
fn replies_outside_of_the_protocol_are_no_riddle() {
    for reply in ["HTTP/1.1 200 OK\r\n", "*x\r\n"] {
        let port =
            imitate(move |_, words| Some(if words[0] == "HELLO" { reply.to_owned() } else { usual_reply(words) }));
        let run = Larder::run("script").config(&toml(port)).fail(1);
        let text = reason(&run, port);
        assert!(text.contains("no Valkey or Redis server") || text.contains("not RESP"), "{text}");
    }
}

/// An error without an end, from a server that has passed for a Valkey so far.
#[cfg(target_os = "linux")]
#[test]
fn an_endless_line_uses_no_memory() {
    let long = format!("-ERR {}", "x".repeat(128 << 20));
    let port = imitate(move |_, words| Some(if words[0] == "HELLO" { long.clone() } else { usual_reply(words) }));
    let run = Larder::run("script").config(&toml(port)).start();
    let status = format!("/proc/{}/status", run.id());
    let mut peak = 0;
    larder_tests::wait_for("larder gives up", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        match status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")) {
            Some(kib) => {
                peak = kib.parse::<u64>().unwrap() << 10;
                None
            }
            // It has exited.
            None => Some(()),
        }
    });
    assert_eq!(run.finish().status, Some(1));
    assert!(peak < 64 << 20, "{peak}");
}

#[test]
fn tls_on_one_side_only_is_named() {
    let authority = Authority::new();
    let options = authority.server_options(&authority.issue("127.0.0.1"), false);
    for kind in Kind::ALL {
        let Some(plain) = Server::start(kind) else { continue };
        let tls = Server::start_with(kind, &options.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let run = Larder::run("script").config(&tls.cache("c")).fail(1);
        assert!(run.error_line().contains("TLS"), "{}", run.stderr);
        let keys = format!("tls = true\nca_file = \"{}\"\n", authority.ca_file().display());
        let run = Larder::run("script").config(&(plain.cache("c") + &keys)).fail(1);
        assert!(run.error_line().contains("a connection without TLS"), "{}", run.stderr);
    }
}
