//! Connections: clients that send nothing, take nothing, or open more of them than there may be.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_tests::http2_frames::{PREFACE, get, preface_with_window};
use larder_tests::{Client, HttpResponse, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, guest, program, wait_for};
use tempfile::TempDir;

fn respond(config: &str) -> ServeProcess {
    let config = format!("[serve]\n{config}");
    ServeProcess::start_with_metrics_of(Larder::serve().config(&config).arg(guest("respond")))
}

/// A value of the metrics port, or 0.
async fn value(serving: &ServeProcess, name: &str) -> f64 {
    let metrics = serving.get_from_metrics_port("/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until a value of the metrics port is as expected.
async fn until(serving: &ServeProcess, name: &str, limit: Duration, expected: impl Fn(f64) -> bool) {
    let began = Instant::now();
    loop {
        let value = value(serving, name).await;
        if expected(value) {
            return;
        }
        assert!(began.elapsed() < limit, "{name} is still {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

const BUSY: &str = "larder_refused_requests_total{reason=\"busy\"}";

/// Answers that nobody takes occupy their requests; a client that leaves frees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_counts_until_its_answer_is_taken() {
    let serving = respond("max_concurrent_requests = 4\n");
    for window in [0, 1] {
        let mut bytes = preface_with_window(window);
        (1..40).step_by(2).for_each(|stream| bytes.extend(get(stream, "/respond?piece=60000")));
        let before = value(&serving, BUSY).await;
        let given_up = value(&serving, "larder_untaken_answers_total").await;
        let stalled = connect(serving.address(), &bytes);
        until(&serving, BUSY, TEST_TIMEOUT, |busy| busy >= before + 16.0).await;
        until(&serving, "larder_instances{plugin=\"respond\"}", TEST_TIMEOUT, |running| running == 0.0).await;
        // No plugin runs, and all places are taken, for 5 s, which a busy machine may need to get here.
        let status = serving.get("/hello").await.status;
        let is_over = value(&serving, "larder_untaken_answers_total").await > given_up;
        assert!(status == 503 || is_over, "{status}");
        drop(stalled);
        let answered = async { while serving.get("/hello").await.status != 200 {} };
        tokio::time::timeout(TEST_TIMEOUT, answered).await.expect("the places are free");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stall_are_cut_after_30_seconds() {
    let serving = respond("");
    let address = serving.address();
    let began = Instant::now();
    let mut silent: Vec<_> =
        [&b""[..], b"G", b"P", PREFACE, b"GET / HTTP/1.1\r\nhost: h\r\nx", &preface_with_window(0)]
            .iter()
            .map(|bytes| connect(address, bytes))
            .collect();
    let large = "piece=1000000&".repeat(30);
    let deaf = connect(address, format!("GET /respond?{large} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
    let mut bytes = preface_with_window(0);
    (1..40).step_by(2).for_each(|stream| bytes.extend(get(stream, "/respond?piece=60000")));
    let stalled = connect(address, &bytes);
    until(&serving, "larder_untaken_answers_total", TEST_TIMEOUT, |cut| cut >= 20.0).await;
    until(&serving, "larder_closed_connections_total{reason=\"head-timeout\"}", TEST_TIMEOUT, |cut| cut >= 6.0).await;
    until(&serving, "larder_closed_connections_total{reason=\"write-timeout\"}", TEST_TIMEOUT, |cut| cut >= 1.0).await;
    let took = began.elapsed().as_secs();
    assert!(took >= 29, "{took} s");
    let ended = tokio::task::spawn_blocking(move || {
        silent.iter_mut().for_each(|stream| drop(stream.read_to_end(&mut Vec::new())));
    });
    ended.await.unwrap();
    drop((deaf, stalled));
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_connections_closes_the_oldest_idle_one_for_a_new_one() {
    let serving = respond("max_connections = 8\n");
    let mut silent: Vec<_> = (0..100).map(|_| connect(serving.address(), b"")).collect();
    for _ in 0..3 {
        assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
    }
    assert!(value(&serving, "larder_connections").await <= 8.0);
    assert!(value(&serving, "larder_closed_connections_total{reason=\"over-limit\"}").await >= 92.0);
    let ended = tokio::task::spawn_blocking(move || silent[0].read(&mut [0]).unwrap());
    assert_eq!(ended.await.unwrap(), 0, "the first one is closed");
    // Connections with a request are not closed for a new one.
    let mut running = Vec::new();
    for _ in 0..8 {
        let bytes = b"POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\n";
        running.push(connect(serving.address(), bytes));
        until(&serving, "larder_instances{plugin=\"respond\"}", TEST_TIMEOUT, |count| count == running.len() as f64)
            .await;
    }
    let refused = tokio::task::spawn_blocking({
        let address = serving.address();
        move || connect(address, b"GET").read(&mut [0]).unwrap_or(0)
    });
    assert_eq!(refused.await.unwrap(), 0);
    assert!(value(&serving, "larder_closed_connections_total{reason=\"no-room\"}").await >= 1.0);
    let answers = tokio::task::spawn_blocking(move || {
        running.iter_mut().for_each(|stream| {
            stream.write_all(b"a").unwrap();
            let mut head = [0; 15];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK");
        });
    });
    answers.await.unwrap();
}

/// A host that may have 256 descriptors. Dropping this value kills it.
struct Limited {
    process: Child,
    plugins: SocketAddr,
    metrics: SocketAddr,
    _folder: TempDir,
}

impl Limited {
    fn start(config: &str, plugin: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("larder.toml"), config).unwrap();
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""]).arg(program()).current_dir(folder.path());
        limited.args(["serve", "--addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"]).arg(guest(plugin));
        let mut process = limited.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |before: &str, after: &str| -> SocketAddr {
            lines.next().unwrap().strip_prefix(before).unwrap().strip_suffix(after).unwrap().parse().unwrap()
        };
        let (plugins, metrics) = (address("listening on http://", ""), address("metrics on http://", "/metrics"));
        Self { process, plugins, metrics, _folder: folder }
    }

    /// Ends the host and returns its log.
    fn log(mut self) -> String {
        self.process.kill().unwrap();
        let mut log = Vec::new();
        self.process.stderr.take().unwrap().read_to_end(&mut log).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _already_dead = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The whole answer to a GET request, of which the connection may be lost.
fn answer(address: SocketAddr, path: &str) -> String {
    let mut answer = Vec::new();
    let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let _lost = connect(address, request.as_bytes()).read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// More connections than the process has descriptors for.
#[test]
fn silent_connections_do_not_use_up_all_descriptors() {
    let host = Limited::start("", "respond");
    let (plugins, metrics) = (host.plugins, host.metrics);
    let silent: Vec<_> = (0..372).map(|_| connect(plugins, b"")).collect();
    let began = Instant::now();
    for (address, path) in [(plugins, "/hello"), (metrics, "/healthz"), (plugins, "/hello"), (metrics, "/metrics")] {
        let answer = answer(address, path);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        if path == "/metrics" {
            assert!(answer.contains("\nlarder_connections 14"), "{answer}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let log = host.log();
    assert!(log.matches("cannot accept").count() <= 2, "{log}");
    drop(silent);
}

/// A connection to the server that is opened anew needs a descriptor too.
#[test]
fn a_host_full_of_silent_connections_connects_to_its_server_again() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let host = Limited::start(&server.cache("c"), "http");
    assert!(answer(host.plugins, "/visit/k").starts_with("HTTP/1.1 200 OK\r\n"));
    // New ones take the place of those that the host closes.
    let is_over = Arc::new(AtomicBool::new(false));
    let crowding = std::thread::spawn({
        let (is_over, address) = (Arc::clone(&is_over), host.plugins);
        move || {
            let mut silent = VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                if silent.len() >= 372 {
                    silent.pop_front();
                    std::thread::sleep(Duration::from_millis(2));
                }
                silent.push_back(connect(address, b""));
            }
        }
    });
    wait_for("the host is full", || {
        let export = answer(host.metrics, "/metrics");
        let closed = "larder_closed_connections_total{reason=\"over-limit\"} ";
        export.lines().find_map(|line| line.strip_prefix(closed)).filter(|count| *count != "0").map(drop)
    });
    server.kill();
    wait_for("the server is missed", || answer(host.metrics, "/readyz").contains("c: degraded").then_some(()));
    server.restart();
    wait_for("the server is used again", || {
        answer(host.plugins, "/visit/k").starts_with("HTTP/1.1 200 OK").then_some(())
    });
    is_over.store(true, Ordering::Relaxed);
    crowding.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_closed_its_side_gets_its_answer() {
    let serving = ServeProcess::start("");
    let address = serving.address();
    let received = tokio::task::spawn_blocking(move || {
        ["/hello", "/sleep/300"].map(|path| {
            let mut client = connect(address, format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        })
    });
    let [hello, slept] = received.await.unwrap();
    assert!(hello.starts_with("HTTP/1.1 200 OK\r\n") && hello.contains("hello\n"), "{hello}");
    assert!(slept.starts_with("HTTP/1.1 200 OK\r\n") && slept.contains("slept"), "{slept}");
    let finished = serving.terminate().await;
    assert_eq!(finished.stderr.matches("status=200").count(), 2, "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_clients_that_do_not_read() {
    let serving = respond("[sandbox]\ntimeout = \"2s\"\n");
    let large = "piece=1000000&".repeat(30);
    let request = format!("GET /respond?{large} HTTP/1.1\r\nhost: h\r\n\r\n");
    let _deaf = connect(serving.address(), request.as_bytes());
    let _partial = connect(serving.address(), b"GET / HTT");
    let mut bytes = preface_with_window(0);
    bytes.extend(get(1, "/respond?piece=60000"));
    let _stalled = connect(serving.address(), &bytes);
    let requests = "larder_requests_total{plugin=\"respond\",status=\"2xx\"}";
    until(&serving, requests, TEST_TIMEOUT, |count| count == 2.0).await;
    let began = Instant::now();
    let finished = serving.terminate().await;
    assert_eq!(finished.status, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!finished.stderr.contains("requests were still running"), "{}", finished.stderr);
}

/// 4,000 finished answers of 60 KB would be 240 MB.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_answers_that_are_not_taken_is_bounded() {
    const CONNECTIONS: usize = 40;
    const REQUESTS: usize = 100;
    let mut serving = respond("max_concurrent_requests = 16\n");
    assert_eq!(serving.get("/respond?piece=60000").await.status, 200);
    let before = serving.process().peak_memory();
    let mut bytes = preface_with_window(0);
    (0..REQUESTS).for_each(|n| bytes.extend(get(u32::try_from(2 * n + 1).unwrap(), "/respond?piece=60000")));
    let stalled: Vec<_> = (0..CONNECTIONS).map(|_| connect(serving.address(), &bytes)).collect();
    let began = Instant::now();
    loop {
        let answered = value(&serving, "larder_requests_total{plugin=\"respond\",status=\"2xx\"}").await;
        if answered + value(&serving, BUSY).await >= (CONNECTIONS * REQUESTS) as f64 {
            break;
        }
        assert!(began.elapsed() < TEST_TIMEOUT, "the requests are not handled");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let grown = serving.process().peak_memory() - before;
    println!("{} KiB", grown >> 10);
    assert!(grown < 100 << 20, "{} KiB", grown >> 10);
    drop(stalled);
}

/// Heads of 400 KB that do not end.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_unfinished_heads_is_bounded() {
    let mut serving = respond("max_connections = 2000\n");
    assert_eq!(serving.get("/hello").await.status, 200);
    let before = serving.process().peak_memory();
    let address = serving.address();
    let clients = tokio::task::spawn_blocking(move || {
        let head = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}", "a".repeat(400_000));
        let send = |len: usize| {
            let mut client = connect(address, b"");
            client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let _cut = client.write_all(&head.as_bytes()[..len]);
            client
        };
        // Some are cut because they are too long, and some wait for their end.
        (0..500).map(|_| send(400_000)).chain((0..500).map(|_| send(32_000))).collect::<Vec<_>>()
    });
    let clients = clients.await.unwrap();
    assert_eq!(serving.get("/hello").await.status, 200);
    let grown = serving.process().peak_memory() - before;
    assert!(grown < 80 << 20, "{} KiB", grown >> 10);
    drop(clients);
}

/// A connection that is kept for more requests is used again, by both protocols.
#[tokio::test]
async fn connections_are_kept_for_further_requests() {
    let serving = respond("");
    for client in [Client::connect(serving.address()).await, Client::connect_http2(serving.address()).await] {
        for _ in 0..20 {
            assert_eq!(client.get("/hello").await.unwrap(), HttpResponse::ok("hello\n"));
        }
    }
    until(&serving, "larder_connections", TEST_TIMEOUT, |open| open <= 2.0).await;
}
