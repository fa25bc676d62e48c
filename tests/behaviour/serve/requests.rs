//! The requests that a plugin receives, the responses that the client receives, and errors in between.

use std::io::{Read, Write};
use std::net::TcpStream;

use larder_tests::{Client, HttpResponse, Larder, ServeProcess, guest};

const FAILED: &str = "the plugin failed\n";

fn refused(status: u16, body: &str) -> HttpResponse {
    HttpResponse { status, body: body.to_owned(), retry_after: None }
}

#[tokio::test]
async fn a_request_is_answered_by_the_plugin() {
    let serving = ServeProcess::start("");
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
    assert_eq!(serving.get("/nothing").await, refused(404, ""));
    let client = Client::connect(serving.address()).await;
    let long = "é".repeat(1 << 20);
    assert_eq!(client.send("/echo", &long).await.unwrap(), HttpResponse::ok(&long));
    assert_eq!(client.send("/echo", "").await.unwrap(), HttpResponse::ok(""));
    let answer = client.get("/where?a=%20b&c").await.unwrap();
    assert_eq!(answer, HttpResponse::ok("http://host.example/where?a=%20b&c GET"));
    assert_eq!(serving.get("/pieces/3000").await.body.len(), 3000 << 10);
    assert_eq!(serving.terminate().await.status, Some(0));
}

#[tokio::test]
async fn http2_is_served_without_tls() {
    let serving = ServeProcess::start("");
    let client = Client::connect_http2(serving.address()).await;
    let sleeping = tokio::spawn({
        let client = client.clone();
        async move { client.get("/sleep/3000").await }
    });
    assert_eq!(client.get("/hello").await.unwrap(), HttpResponse::ok("hello\n"));
    assert_eq!(client.send("/echo", "body").await.unwrap(), HttpResponse::ok("body"));
    assert!(!sleeping.is_finished(), "one request waited for another");
    assert_eq!(sleeping.await.unwrap().unwrap(), HttpResponse::ok("slept"));
    assert_eq!(client.get("/where").await.unwrap(), HttpResponse::ok("http://host.example/where GET"));
}

#[tokio::test]
async fn each_request_has_a_sandbox_of_its_own_and_all_share_the_cache() {
    let serving = ServeProcess::start("");
    let client = Client::connect(serving.address()).await;
    for visit in 1..=3 {
        assert_eq!(client.get("/instance").await.unwrap(), HttpResponse::ok("1"));
        assert_eq!(client.get("/visit/page").await.unwrap(), HttpResponse::ok(&visit.to_string()));
    }
}

#[tokio::test]
async fn of_many_requests_one_computes() {
    let serving = ServeProcess::start("");
    let client = Client::connect_http2(serving.address()).await;
    let asked = (0..20).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.get("/compute/key").await.unwrap().body })
    });
    let mut answers = Vec::new();
    for answer in asked.collect::<Vec<_>>() {
        answers.push(answer.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "key true").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "key false").count(), 19, "{answers:?}");
}

#[tokio::test]
async fn no_request_sees_the_state_of_another() {
    let serving = ServeProcess::start("[sandbox]\nmax_memory = \"16MiB\"\nmax_cpu_time = \"500ms\"\n");
    let client = Client::connect_http2(serving.address()).await;
    let sleeping = tokio::spawn({
        let client = client.clone();
        async move { client.get("/sleep/1500").await }
    });
    for path in ["/panic", "/spin", "/grow", "/exit/0", "/exit/1", "/fail"] {
        assert_eq!(client.get(path).await.unwrap(), refused(500, FAILED), "{path}");
    }
    assert_eq!(sleeping.await.unwrap().unwrap(), HttpResponse::ok("slept"));
    assert_eq!(client.get("/hello").await.unwrap(), HttpResponse::ok("hello\n"));
    let finished = serving.terminate().await;
    for reason in [
        "plugin `http` trapped: wasm trap: wasm `unreachable` instruction executed",
        "plugin `http` was stopped: it used more than 500ms of processor time (`max_cpu_time` of `[sandbox]`)",
        "(`max_memory` of `[sandbox]`)",
        "plugin `http` sent no response",
        "plugin `http` trapped: it exited with status 1 during a request",
        "plugin `http` returned an error instead of a response: ",
    ] {
        assert!(finished.stderr.contains(reason), "no `{reason}`: {}", finished.stderr);
    }
}

#[tokio::test]
async fn an_unfinished_response_is_not_complete_to_the_client() {
    let serving = ServeProcess::start("[sandbox]\ntimeout = \"1s\"\n");
    for http2 in [false, true] {
        for path in ["/cut/3", "/cut/300", "/hang/3"] {
            let client = match http2 {
                false => Client::connect(serving.address()).await,
                true => Client::connect_http2(serving.address()).await,
            };
            let answer = client.get(path).await;
            assert!(answer.is_err(), "{path}: {answer:?}");
        }
    }
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_504() {
    let serving = ServeProcess::start("[sandbox]\ntimeout = \"300ms\"\n");
    assert_eq!(serving.get("/sleep/60000").await, refused(504, "the plugin timed out\n"));
    assert_eq!(serving.get("/sleep/10").await, HttpResponse::ok("slept"));
}

#[tokio::test]
async fn max_request_body_makes_a_longer_one_413_or_an_error_to_the_plugin() {
    let serving = ServeProcess::start("[serve]\nmax_request_body = 1000\n");
    let client = Client::connect(serving.address()).await;
    assert_eq!(client.send("/length", &"x".repeat(1000)).await.unwrap(), HttpResponse::ok("1000"));
    let client = Client::connect(serving.address()).await;
    let answer = client.send("/length", &"x".repeat(1001)).await.unwrap();
    assert_eq!(answer, refused(413, "the request body is too large\n"));
    // The length of this body is not known in advance.
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let head = "POST /length HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(raw(&serving, &format!("{head}{chunk}0\r\n\r\n")).ends_with("1000\r\n0\r\n\r\n"));
    let said = raw(&serving, &format!("{head}{chunk}{chunk}0\r\n\r\n"));
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("broke off: "), "{said}");
    assert!(said.contains("body size exceeds limit: 1000 bytes"), "{said}");
}

/// What the server says to these bytes, until it closes.
fn raw(serving: &ServeProcess, request: &str) -> String {
    let mut stream = TcpStream::connect(serving.address()).unwrap();
    stream.set_read_timeout(Some(larder_tests::TEST_TIMEOUT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[tokio::test]
async fn an_invalid_request_is_400() {
    let serving = ServeProcess::start("");
    let close = "connection: close\r\n\r\n";
    let said = raw(&serving, &format!("GET /hello HTTP/1.1\r\n{close}"));
    assert!(said.starts_with("HTTP/1.1 400 ") && said.ends_with("the request has no valid host\n"), "{said}");
    let said = raw(&serving, &format!("GET /hello HTTP/1.1\r\nhost: \u{e9}\r\n{close}"));
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(raw(&serving, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    // A path that would say something to the operator's terminal.
    raw(&serving, &format!("GET /\u{9b}2J HTTP/1.1\r\nhost: h\r\n{close}"));
    raw(&serving, &format!("GET /\u{202e}a\u{2028}b HTTP/1.1\r\nhost: h\r\n{close}"));
    assert!(raw(&serving, &format!("GET /hello HTTP/1.0\r\nhost: h\r\n{close}")).ends_with("hello\n"));
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains(['\u{9b}', '\u{202e}', '\u{2028}']), "{}", finished.stderr);
}

#[tokio::test]
async fn a_response_to_head_has_no_body_and_its_plugin_succeeds() {
    let serving = ServeProcess::start("");
    let said = raw(&serving, "HEAD /pieces/3000 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\n"), "{said}");
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("trapped"), "{}", finished.stderr);
}

#[tokio::test]
async fn each_line_that_a_plugin_prints_begins_with_its_name() {
    let serving = ServeProcess::start_with(Larder::serve().config("").arg("--name").arg("shop").arg(guest("http")));
    assert_eq!(serving.get("/print/a").await, HttpResponse::ok("printed"));
    assert_eq!(serving.get("/print/b").await, HttpResponse::ok("printed"));
    let finished = serving.terminate().await;
    assert_eq!(finished.stdout, "shop: out a\nshop: out b\n");
    assert_eq!(finished.stderr.matches("shop: no end of a line\n").count(), 2, "{}", finished.stderr);
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_and_no_query() {
    let mut serving = ServeProcess::start("");
    serving.get("/hello?token=s3cret").await;
    serving.get("/nothing").await;
    // A client that does not wait for its answer. One of HTTP/1 could be one that has only closed its side.
    let client = Client::connect_http2(serving.address()).await;
    let hasty = tokio::spawn(async move { client.get("/doze/300").await });
    serving.expect_line("http: dozing").await;
    hasty.abort();
    let finished = serving.terminate().await;
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("larder_host::access")).collect();
    assert_eq!(lines.len(), 3, "{}", finished.stderr);
    assert!(
        lines[0].contains("method=GET path=/hello status=200 milliseconds=") && lines[0].ends_with(" plugin=http"),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("method=GET path=/nothing status=404 "), "{}", lines[1]);
    assert!(lines[2].contains("method=GET path=/doze/300 gone=true "), "{}", lines[2]);
    assert!(!finished.stderr.contains("s3cret"));
}
