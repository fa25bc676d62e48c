//! Instances that answer many requests, one after the other (`reuse` of `[plugins.*]`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use larder_tests::{
    Client, HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, Upstream, guest, language_plugin,
};
use tokio::task::JoinSet;

use super::metrics::values;

/// One request at a time, so that each request finds the instance that the last one has left.
const ONE: &str = "[serve]\nmax_concurrent_requests = 1\n";

/// Serves a guest at all paths with a metrics port.
fn start(name: &str, reuse: &str, rest: &str) -> ServeProcess {
    start_file(&guest(name), name, reuse, rest)
}

fn start_file(file: &Path, name: &str, reuse: &str, rest: &str) -> ServeProcess {
    let config = format!("[plugins.{name}]\npath = {file:?}\nroute = \"/\"\n{reuse}\n{rest}");
    ServeProcess::start_with_metrics_of(Larder::serve().config(&config))
}

/// Sends a request, again while the one before it still counts.
async fn ask(serving: &ServeProcess, path: &str) -> HttpResponse {
    let asked = async {
        loop {
            match serving.get(path).await {
                busy if busy.status == 503 => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, asked).await.expect("the request before it ends")
}

/// How many requests the instance that answers has answered, from the guest `http`.
async fn answered(serving: &ServeProcess) -> u32 {
    ask(serving, "/instance").await.body.parse().unwrap()
}

/// The number of the instance that answers, how many requests it has handled, and what it says, from the guest `warm`.
async fn warm(serving: &ServeProcess, path: &str) -> (String, u32, String) {
    let answer = ask(serving, path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    let mut words = answer.body.trim_end().splitn(3, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    (word(), word().parse().unwrap(), word())
}

async fn metric(serving: &ServeProcess, name: &str) -> f64 {
    let export = serving.get_from_metrics_port("/metrics").await.body;
    let values = values(&export);
    *values.get(name).unwrap_or_else(|| panic!("no `{name}` in {export}"))
}

/// Waits until a metric has a value.
async fn until(serving: &ServeProcess, name: &str, expected: f64) {
    let reached = async {
        while metric(serving, name).await != expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(TEST_TIMEOUT, reached).await.is_err() {
        panic!("`{name}` is {} and not {expected}", metric(serving, name).await);
    }
}

fn ended(plugin: &str, reason: &str) -> String {
    format!("larder_ended_instances_total{{plugin=\"{plugin}\",reason=\"{reason}\"}}")
}

fn idle(plugin: &str) -> String {
    format!("larder_idle_instances{{plugin=\"{plugin}\"}}")
}

#[tokio::test]
async fn the_state_of_an_instance_survives_a_request_only_with_reuse() {
    for (reuse, expected) in [("", [1; 5]), ("reuse = {}", [1, 2, 3, 4, 5])] {
        let serving = start("http", reuse, ONE);
        for expected in expected {
            assert_eq!(answered(&serving).await, expected, "`{reuse}`");
        }
        if !reuse.is_empty() {
            assert_eq!(metric(&serving, "larder_created_instances_total{plugin=\"http\"}").await, 1.0);
            assert_eq!(metric(&serving, "larder_reused_instances_total{plugin=\"http\"}").await, 4.0);
        }
        let finished = serving.terminate().await;
        assert_eq!(finished.status, Some(0), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn each_bound_of_reuse_ends_an_instance() {
    let serving = start("http", "reuse = { requests = 3 }", ONE);
    for expected in [1, 2, 3, 1, 2, 3, 1] {
        assert_eq!(answered(&serving).await, expected);
    }
    assert_eq!(metric(&serving, &ended("http", "requests")).await, 2.0);

    let serving = start("http", "reuse = { max_age = \"1ms\" }", ONE);
    for _ in 0..3 {
        assert_eq!(answered(&serving).await, 1);
        // The request itself may be shorter than the age.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(metric(&serving, &ended("http", "max_age")).await >= 2.0);

    let serving = start("http", "reuse = { idle = \"20ms\" }", ONE);
    for ends in [1.0, 2.0] {
        assert_eq!(answered(&serving).await, 1);
        until(&serving, &ended("http", "idle"), ends).await;
        assert_eq!(metric(&serving, &idle("http")).await, 0.0);
    }
}

#[tokio::test]
async fn an_instance_that_fails_or_is_stopped_answers_no_more_and_the_next_request_succeeds() {
    let limits =
        "[sandbox]\nmax_memory = \"16MiB\"\nmax_output = \"1KiB\"\nmax_cpu_time = \"300ms\"\ntimeout = \"1s\"\n";
    let serving = start("http", "reuse = {}", &format!("{ONE}{limits}"));
    let mut stopped = 0.0;
    for (path, status) in [
        ("/panic", 500),
        ("/exit/0", 500),
        ("/exit/1", 500),
        ("/spin", 500),
        ("/sleep/60000", 504),
        ("/chatter/2000", 500),
        ("/grow", 500),
    ] {
        assert_eq!([answered(&serving).await, answered(&serving).await], [1, 2], "before {path}");
        assert_eq!(ask(&serving, path).await.status, status, "{path}");
        stopped += 1.0;
        until(&serving, &ended("http", "stopped"), stopped).await;
        assert_eq!(metric(&serving, &idle("http")).await, 0.0);
        // Leaves no instance for the next path.
        assert_eq!(answered(&serving).await, 1, "after {path}");
        assert_eq!(ask(&serving, "/panic").await.status, 500);
        stopped += 1.0;
    }
}

#[tokio::test]
async fn the_bounds_of_output_and_time_hold_for_each_request() {
    let limits = "[sandbox]\nmax_output = \"1KiB\"\ntimeout = \"3s\"\n";
    let serving = start("http", "reuse = {}", &format!("{ONE}{limits}"));
    // Together over both bounds.
    for _ in 0..5 {
        assert_eq!(ask(&serving, "/chatter/600").await, HttpResponse::ok("printed"));
        assert_eq!(ask(&serving, "/sleep/700").await, HttpResponse::ok("slept"));
    }
    assert_eq!(metric(&serving, "larder_created_instances_total{plugin=\"http\"}").await, 1.0);
}

#[tokio::test]
async fn a_line_without_an_end_is_written_when_its_request_ends() {
    let serving = start("http", "reuse = {}", ONE);
    for _ in 0..3 {
        assert_eq!(ask(&serving, "/print/x").await, HttpResponse::ok("printed"));
    }
    assert_eq!(metric(&serving, "larder_created_instances_total{plugin=\"http\"}").await, 1.0);
    let finished = serving.terminate().await;
    let lines = finished.stderr.lines().filter(|line| *line == "http: no end of a line").count();
    assert_eq!(lines, 3, "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacancy_is_given_back_when_its_request_ends_and_a_late_fill_stores_nothing() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let cache = format!("{}lease = \"1h\"\nwait = \"1h\"\n", server.cache("c"));
    let serving = start("warm", "reuse = {}", &format!("{ONE}{cache}"));
    let (first, _, said) = warm(&serving, "/vacancy/k").await;
    assert_eq!(said, "vacant");
    // Another process computes at once, although the instance lives.
    let other = ServeProcess::start(&cache);
    assert_eq!(other.get("/compute/k").await, HttpResponse::ok("k true"));
    let (same, handled, stored) = warm(&serving, "/fill").await;
    assert_eq!((same, handled, stored.as_str()), (first.clone(), 2, "Ok(false)"));
    assert_eq!(warm(&serving, "/vacancy/k").await, (first.clone(), 3, "\"k\"".to_owned()));
    // So does a request of the same instance, and a handle that it drops later is a handle all the same.
    for handled in [4, 5] {
        assert_eq!(warm(&serving, "/vacancy/l").await, (first.clone(), handled, "vacant".to_owned()));
    }
    assert_eq!(warm(&serving, "/drop").await.0, first);
    assert_eq!(other.get("/compute/l").await, HttpResponse::ok("l true"));
}

#[tokio::test]
async fn requests_at_the_same_time_get_instances_of_their_own() {
    let mut serving = start("http", "reuse = {}", "");
    let client = Client::connect_http2(serving.address()).await;
    for _ in 0..2 {
        let mut running = JoinSet::new();
        for _ in 0..3 {
            let client = client.clone();
            running.spawn(async move { client.get("/doze/300").await.unwrap() });
            serving.expect_line("http: dozing").await;
        }
        assert_eq!(metric(&serving, &idle("http")).await, 0.0);
        while let Some(answer) = running.join_next().await {
            assert_eq!(answer.unwrap(), HttpResponse::ok("dozed"));
        }
        until(&serving, &idle("http"), 3.0).await;
    }
    assert_eq!(metric(&serving, "larder_created_instances_total{plugin=\"http\"}").await, 3.0);
}

/// Two plugins; `/warm` has a `reuse`.
fn two_plugins(rest: &str, cold: &str) -> ServeProcess {
    let path = guest("http");
    let config = format!(
        "[plugins.warm]\npath = {path:?}\nroute = \"/warm\"\nreuse = {{}}\n\
         [plugins.cold]\npath = {path:?}\nroute = \"/cold\"\n{cold}\n{rest}"
    );
    ServeProcess::start_with_metrics_of(Larder::serve().config(&config))
}

#[tokio::test]
async fn idle_instances_give_their_places_to_the_requests_of_another_plugin() {
    let mut serving = two_plugins("[serve]\nmax_concurrent_requests = 4\n", "");
    let client = Client::connect_http2(serving.address()).await;
    let mut fill = async |plugin: &str| {
        let mut running = JoinSet::new();
        for _ in 0..3 {
            let (client, path) = (client.clone(), format!("/{plugin}/do/doze/300"));
            running.spawn(async move { client.get(&path).await.unwrap() });
            serving.expect_line(&format!("{plugin}: dozing")).await;
        }
        while let Some(answer) = running.join_next().await {
            assert_eq!(answer.unwrap(), HttpResponse::ok("dozed"), "{plugin}");
        }
    };
    fill("warm").await;
    fill("cold").await;
    // One of four places was free.
    assert_eq!(metric(&serving, &ended("warm", "displaced")).await, 2.0);
    assert_eq!(metric(&serving, &idle("warm")).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_that_take_each_others_places_all_the_time_fail_no_request() {
    for cold in ["", "reuse = {}"] {
        let serving = two_plugins("[serve]\nmax_concurrent_requests = 3\n", cold);
        let mut clients = JoinSet::new();
        for n in 0..6 {
            let client = Client::connect(serving.address()).await;
            clients.spawn(async move {
                let mut answered = 0;
                for _ in 0..100 {
                    let path = if n % 2 == 0 { "/warm/do/hello" } else { "/cold/do/hello" };
                    let answer = client.get(path).await.unwrap();
                    assert!([200, 503].contains(&answer.status), "{answer:?}");
                    answered += u32::from(answer.status == 200);
                }
                answered
            });
        }
        let mut answered = 0;
        while let Some(count) = clients.join_next().await {
            answered += count.unwrap();
        }
        assert!(answered > 0, "`{cold}`");
        let finished = serving.terminate().await;
        assert_eq!(finished.status, Some(0), "{}", finished.stderr);
        assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn a_reload_ends_idle_instances_at_once_and_others_with_their_requests() {
    let file = tempfile::TempDir::new().unwrap();
    let plugin = file.path().join("http.wasm");
    std::fs::copy(guest("http"), &plugin).unwrap();
    let mut serving = start_file(&plugin, "http", "reuse = {}", "");
    let client = Client::connect_http2(serving.address()).await;
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.get("/doze/2000").await.unwrap() }
    });
    serving.expect_line("http: dozing").await;
    assert_eq!(client.get("/instance").await.unwrap(), HttpResponse::ok("1"));
    until(&serving, &idle("http"), 1.0).await;
    let new = plugin.with_extension("new");
    std::fs::copy(guest("http-pages"), &new).unwrap();
    std::fs::rename(&new, &plugin).unwrap();
    serving.process().signal("-HUP");
    until(&serving, &ended("http", "closed"), 1.0).await;
    assert_eq!(metric(&serving, &idle("http")).await, 0.0);
    let page = HttpResponse::ok("<h1>/instance</h1>\n");
    assert_eq!(client.get("/instance").await.unwrap(), page);
    assert_eq!(running.await.unwrap(), HttpResponse::ok("dozed"));
    until(&serving, &ended("http", "closed"), 2.0).await;
    assert_eq!(client.get("/instance").await.unwrap(), page);
}

#[tokio::test]
async fn a_shutdown_ends_idle_instances_while_requests_run() {
    let mut serving = start("http", "reuse = {}", "");
    let client = Client::connect_http2(serving.address()).await;
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.get("/doze/2000").await.unwrap() }
    });
    serving.expect_line("http: dozing").await;
    assert_eq!(client.get("/instance").await.unwrap(), HttpResponse::ok("1"));
    until(&serving, &idle("http"), 1.0).await;
    serving.process().terminate();
    until(&serving, &ended("http", "closed"), 1.0).await;
    assert_eq!(running.await.unwrap(), HttpResponse::ok("dozed"));
}

#[tokio::test]
async fn a_plugin_that_leaves_things_behind_gets_new_instances_before_a_bound_fails_a_request() {
    let limits = "[sandbox]\nmax_memory = \"4MiB\"\nmax_handles = 40\n";
    for path in ["/fields/2", "/handles/5", "/memory/100", "/head"] {
        let serving = start("warm", "reuse = {}", &format!("{ONE}{limits}"));
        let mut most = 0;
        for _ in 0..200 {
            let (_, handled, said) = warm(&serving, path).await;
            assert!(said.is_empty() || said == "5", "{path}: {said}");
            most = most.max(handled);
        }
        assert!((2..200).contains(&most), "{path}: an instance answers {most} requests");
        assert!(metric(&serving, &ended("warm", "full")).await >= 1.0, "{path}");
        assert_eq!(metric(&serving, &ended("warm", "stopped")).await, 0.0, "{path}");
    }
}

#[tokio::test]
async fn what_a_request_leaves_open_ends_with_it_and_holds_up_no_one() {
    let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::start(move |_| {
        let seen = seen.clone();
        async move {
            seen.send(()).unwrap();
            std::future::pending().await
        }
    })
    .await;
    let outgoing = format!("outgoing_hosts = [\"{}\"]\nreuse = {{}}", upstream.address());
    let serving = start("warm", &outgoing, ONE);
    let mut open = 0.0;
    for path in ["/unfinished".to_owned(), format!("/request/{}", upstream.address()), "/unread".to_owned()] {
        let client = Client::connect(serving.address()).await;
        let asked = async {
            loop {
                let answer = client.send(&path, &"x".repeat(1000)).await.unwrap();
                if answer.status != 503 {
                    return answer;
                }
            }
        };
        let answer = tokio::time::timeout(TEST_TIMEOUT, asked).await.expect("the answer is complete");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        open += 1.0;
        until(&serving, &ended("warm", "open"), open).await;
        assert_eq!(warm(&serving, "/count").await.1, 1, "after {path}");
        assert_eq!(ask(&serving, "/silent").await.status, 500);
        open += 1.0;
    }
    until(&serving, "larder_outgoing_requests_total{plugin=\"warm\",outcome=\"gone\"}", 1.0).await;
    // It may have been given up before it arrived.
    let _seen = sees.try_recv();
    assert_eq!(metric(&serving, &ended("warm", "open")).await, open);
}

#[tokio::test]
async fn a_client_that_goes_leaves_an_instance_for_the_next_one() {
    let serving = start("http", "reuse = {}", &format!("{ONE}[sandbox]\ntimeout = \"10s\"\n"));
    let began = Instant::now();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(serving.address()).unwrap();
        stream.write_all(b"GET /pieces/100000 HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
        let mut head = [0; 100];
        stream.read_exact(&mut head).unwrap();
        drop(stream);
        assert!(answered(&serving).await >= 1);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "a plugin waited for a client that had gone");
}

/// The body and the header `answered` of a response to a request of its own connection.
fn said(serving: &ServeProcess, path: &str) -> String {
    let mut stream = TcpStream::connect(serving.address()).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_plugin_in_python_and_in_javascript_answers_200_requests_with_one_instance() {
    for name in ["python-served", "javascript-served"] {
        let Some(plugin) = language_plugin(name) else { continue };
        let serving = start_file(&plugin, "served", "reuse = {}", "");
        for n in 1..=200 {
            let answer = said(&serving, "/page");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
            assert!(answer.contains(&format!("/page: {n} of {n}")), "{name}: {answer}");
            // Also where it ends a moment after its answer.
            until(&serving, &idle("served"), 1.0).await;
        }
        assert_eq!(metric(&serving, "larder_created_instances_total{plugin=\"served\"}").await, 1.0);
    }
}
