//! `larder ready`: the health check of a container.

use std::io::{Read, Write};
use std::net::TcpListener;

use larder_tests::{Kind, Larder, ServeProcess, Server};

#[tokio::test]
async fn ready_succeeds_while_the_host_is_ready_and_prints_why_it_is_not() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let serving = ServeProcess::start_with_metrics(&(server.cache("c") + "on_outage = \"error\"\n"));
    let ready = || Larder::new(["ready"]).arg(serving.metrics_address().to_string());
    assert_eq!(ready().succeed().stdout, "c: ready\n");
    // An answer of the host at another path, by the same configuration that the host has.
    let config = format!("[serve]\nmetrics_addr = \"{}\"\n", serving.metrics_address());
    assert_eq!(Larder::new(["ready"]).config(&config).succeed().stdout, "c: ready\n");
    server.kill();
    let run = ready().fail(1);
    assert!(run.stdout.starts_with("c: not ready: ") && run.stderr.is_empty(), "{run:#?}");
}

#[tokio::test]
async fn a_server_that_is_not_a_host_is_not_ready() {
    let serving = ServeProcess::start_with_metrics("");
    let run = Larder::new(["ready"]).arg(serving.address().to_string()).fail(1);
    assert!(run.error_line().ends_with("/readyz responded with 404 Not Found"), "{run:#?}");
    let run = Larder::new(["ready", "127.0.0.1:1"]).fail(1);
    assert!(run.error_line().starts_with("larder: cannot reach http://127.0.0.1:1/readyz: "), "{run:#?}");
}

#[test]
fn without_an_address_the_message_names_where_to_set_one() {
    let run = Larder::new(["ready"]).fail(2);
    assert!(run.error_line().contains("or set `metrics_addr` of `[serve]`"), "{run:#?}");
}

#[test]
fn control_characters_for_a_terminal_are_escaped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\na\x1b[2J\nb: c").unwrap();
    });
    assert_eq!(Larder::new(["ready", &address]).succeed().stdout, "a\\u{1b}[2J\nb: c\n");
}
