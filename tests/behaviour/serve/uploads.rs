//! Bodies of requests: clients that send them slowly, in tiny parts, without end or broken.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Frame};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_tests::http2_frames::{DATA, HEADERS, PREFACE, SETTINGS, frame, literals};
use larder_tests::{HttpResponse, Larder, ServeProcess, TEST_TIMEOUT, guest};

fn respond(config: &str) -> ServeProcess {
    ServeProcess::start_with_metrics_of(Larder::serve().config(config).arg(guest("respond")))
}

fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// All that the host sends until it closes.
fn read_all(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    let _reset = stream.read_to_end(&mut received);
    String::from_utf8_lossy(&received).into_owned()
}

/// Waits until a metric has at least this value.
async fn until(serving: &ServeProcess, name: &str, least: f64) {
    let began = Instant::now();
    loop {
        let metrics = serving.get_from_metrics_port("/metrics").await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.map_or(0.0, |value| value.parse().unwrap());
        if value >= least {
            return;
        }
        assert!(began.elapsed() < TEST_TIMEOUT, "{name} is still {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends these bytes, and then `piece` again and again until the host answers.
fn send_slowly(address: SocketAddr, head: &str, piece: &str, pause: Duration) -> String {
    let mut stream = connect(address, head.as_bytes());
    let mut writer = stream.try_clone().unwrap();
    let ended = &AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if writer.write_all(piece.as_bytes()).is_err() {
                    break;
                }
                std::thread::sleep(pause);
            }
        });
        // The head of the final response.
        let mut received = Vec::new();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            received.push(byte[0]);
            if received.ends_with(b"\r\n\r\n") && !received.ends_with(b"100 Continue\r\n\r\n") {
                break;
            }
        }
        ended.store(true, Ordering::Relaxed);
        String::from_utf8_lossy(&received).into_owned()
    })
}

/// One client holds all places with uploads of a byte now and then. Another one is served, and so is a slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_make_room_for_other_requests() {
    let serving =
        ServeProcess::start_with_metrics("[serve]\nmax_concurrent_requests = 8\n[sandbox]\ntimeout = \"300s\"\n");
    let address = serving.address();
    let heads = [
        "POST /attend HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n",
        "POST /attend HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n",
        "POST /attend HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\nexpect: 100-continue\r\n\r\n",
        "POST /attend HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
    ];
    let slow: Vec<_> = heads
        .into_iter()
        .enumerate()
        .map(|(n, head)| {
            let piece = ["", "a", "", "1\r\na\r\n"][n];
            tokio::task::spawn_blocking(move || send_slowly(address, head, piece, Duration::from_millis(50)))
        })
        .collect();
    let mut stalled = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/attend"), (":authority", "h")];
    for stream in [1, 3, 5] {
        stalled.extend(frame(HEADERS, 4, stream, &literals(&post)));
        stalled.extend(frame(DATA, 0, stream, b"a"));
    }
    let _stalled = connect(address, &stalled);
    // 10 KB/s.
    let honest = tokio::task::spawn_blocking(move || {
        let mut stream =
            connect(address, b"POST /length HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 80000\r\n\r\n");
        for _ in 0..80 {
            stream.write_all(&[b'x'; 1000]).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        read_all(stream)
    });
    until(&serving, "larder_instances{plugin=\"http\"}", 8.0).await;
    let began = Instant::now();
    while serving.get("/hello").await != HttpResponse::ok("hello\n") {
        assert!(began.elapsed() < TEST_TIMEOUT, "no place for another client");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let honest = honest.await.unwrap();
    assert!(honest.contains("\r\n80000\r\n"), "{honest}");
    for slow in slow {
        let head = slow.await.unwrap();
        assert!(head.contains("HTTP/1.1 408 "), "{head}");
    }
    until(&serving, "larder_slow_uploads_total", 7.0).await;
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
}

/// A body of small frames.
struct InFrames {
    left: usize,
    len: usize,
}

impl Body for InFrames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let len = self.len;
        Poll::Ready(self.left.checked_sub(len).map(|left| {
            self.left = left;
            Ok(Frame::data(Bytes::from(vec![b'x'; len])))
        }))
    }
}

/// A client chooses the length of its frames. h2 closes a connection with about 2,000 unread frames of one byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_small_frames_costs_the_plugin_no_more_than_another() {
    const LEN: usize = 1 << 20;
    let serving = respond("[sandbox]\nmax_cpu_time = \"1s\"\ntimeout = \"300s\"\n");
    let request = |len| Request::post("http://h/see").header("host", "h").body(InFrames { left: LEN, len }).unwrap();
    let stream = || async { TokioIo::new(tokio::net::TcpStream::connect(serving.address()).await.unwrap()) };
    let (mut send, connection) = http1::handshake(stream().await).await.unwrap();
    tokio::spawn(connection);
    let over_http1 = send.send_request(request(1)).await.unwrap();
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), stream().await).await.unwrap();
    tokio::spawn(connection);
    let over_http2 = send.send_request(request(1)).await.unwrap();
    for response in [over_http1, over_http2] {
        let version = response.version();
        assert_eq!(response.status(), 200, "{version:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.ends_with(&format!(", {LEN} bytes\n")), "{version:?}: {text}");
    }
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR") && !finished.stderr.contains("WARN"), "{}", finished.stderr);
}

/// What never ends is cut, whatever it consists of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_framing_is_cut() {
    let serving = respond("");
    let address = serving.address();
    let head = "POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let http1 = [
        format!("{head}1;{}", "x".repeat(1 << 20)),
        format!("{head}{}", "1;xxxxxxxx\r\na\r\n".repeat(1 << 16)),
        format!("{head}0\r\n{}", "x: y\r\n".repeat(1 << 16)),
        format!("{head}0\r\nx: {}", "y".repeat(1 << 20)),
    ];
    let answers = tokio::task::spawn_blocking(move || {
        http1.map(|bytes| {
            let mut stream = connect(address, b"");
            // The host may close before it has all.
            let _cut = stream.write_all(bytes.as_bytes());
            read_all(stream)
        })
    });
    for answer in answers.await.unwrap() {
        assert!(answer.is_empty() || answer.contains(", broken\n"), "{answer}");
    }
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/see"), (":authority", "h")];
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 4, 1, &literals(&post))].concat();
    let long = literals(&[("x", &"y".repeat(100))]).repeat(100);
    let http2 = [
        frame(DATA, 0, 1, &[]).repeat(1 << 16),
        frame(DATA, 8, 1, &[3, 0, 0, 0]).repeat(1 << 16),
        [frame(HEADERS, 1, 1, &long), frame(9, 0, 1, &long).repeat(200)].concat(),
    ];
    let ended = tokio::task::spawn_blocking(move || {
        http2.map(|bytes| {
            let mut stream = connect(address, &begin);
            let _cut = stream.write_all(&bytes);
            read_all(stream)
        })
    });
    ended.await.unwrap();
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
}

/// The plugin passes the error of its read on as its own, which is no failure of the plugin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_the_client_breaks_is_its_fault_and_not_the_plugins() {
    let config = "[serve]\nmax_request_body = 1000\n";
    let serving = ServeProcess::start_with_metrics_of(Larder::serve().config(config).arg(guest("http")));
    let address = serving.address();
    let head = "POST /attend HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = format!("{head}7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000));
    let broken = format!("{head}nonsense\r\n");
    let answers =
        tokio::task::spawn_blocking(move || [broken, long].map(|bytes| read_all(connect(address, bytes.as_bytes()))));
    let [broken, long] = answers.await.unwrap();
    assert!(broken.starts_with("HTTP/1.1 400 ") && broken.contains("the request body is broken"), "{broken}");
    assert!(long.starts_with("HTTP/1.1 413 ") && long.contains("the request body is too large"), "{long}");
    let metrics = serving.get_from_metrics_port("/metrics").await.body;
    for reason in ["broken-body", "body-too-large"] {
        let line = format!("larder_refused_requests_total{{reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{reason}: {metrics}");
    }
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
}

/// The client alone makes these requests fail: the log has a warning at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stall_or_leave_make_no_error_line() {
    let serving = respond("[sandbox]\ntimeout = \"2s\"\n");
    let address = serving.address();
    let received = tokio::task::spawn_blocking(move || {
        let slow = || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            stream.write_all(b"POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\na").unwrap();
            stream
        };
        // A client that does not take the answer, one that leaves, and a body that never ends.
        let mut deaf = TcpStream::connect(address).unwrap();
        let pieces = "piece=1000000&".repeat(30);
        write!(deaf, "GET /respond?{pieces} HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
        let mut left = slow();
        left.write_all(b"b").unwrap();
        drop(left);
        let mut received = [0; 12];
        slow().read_exact(&mut received).unwrap();
        String::from_utf8_lossy(&received).into_owned()
    });
    assert_eq!(received.await.unwrap(), "HTTP/1.1 408");
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
    assert!(finished.stderr.contains("the client had gone, or did not send or take"), "{}", finished.stderr);
}
