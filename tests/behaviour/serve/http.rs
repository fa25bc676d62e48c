//! HTTP correctness: what is refused, what reaches the plugin, and what goes out. Nothing that a client sends makes an
//! ERROR line in the log.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_tests::http2_frames::{
    CONTINUATION, DATA, END, GO_AWAY, HEADERS, PING, PREFACE, RESET, SETTINGS, WINDOW_UPDATE, frame, literals,
};
use larder_tests::{Larder, ServeProcess, TEST_TIMEOUT, guest};

/// Serves the plugin `respond`.
fn respond() -> ServeProcess {
    let config = "[serve]\nmax_request_body = 1000\n[sandbox]\ntimeout = \"2s\"\n";
    ServeProcess::start_with(Larder::serve().config(config).arg(guest("respond")))
}

/// Sends bytes, closes the side of the client, and returns all that the host sends until it closes its own.
fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    // The host may close before it has all.
    let _closed = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut received = Vec::new();
    let _reset = stream.read_to_end(&mut received);
    String::from_utf8_lossy(&received).into_owned()
}

/// The statuses of a sequence of responses.
fn statuses(received: &str) -> Vec<u16> {
    let responses = received.match_indices("HTTP/1.").filter(|(at, _)| received[at + 8..].starts_with(' '));
    responses.map(|(at, _)| received[at + 9..at + 12].parse().unwrap()).collect()
}

/// Bytes sent over HTTP/1.1, the statuses of the responses, and what the plugin saw.
const HTTP1: &[(&str, &[u16], &str)] = &[
    // Requests that reach the plugin.
    ("GET /see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "GET http://h/see 0 headers, 0 bytes"),
    ("GET /see?a=%20&b HTTP/1.1\r\nHOST:h:80\r\n\r\n", &[200], "GET http://h:80/see?a=%20&b 0 headers"),
    ("\r\n\r\nGET /see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "GET http://h/see"),
    ("GET /see HTTP/1.0\r\nhost: h\r\n\r\n", &[200], "GET http://h/see"),
    ("GET http://other/see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "GET http://other/see"),
    ("GET HTTP://other/see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "GET http://other/see"),
    ("GET /see HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n", &[200], "GET http://[::1]:8080/see"),
    ("PROPFIND /see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "PROPFIND http://h/see"),
    ("OPTIONS /see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "OPTIONS http://h/see"),
    ("HEAD /see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc", &[200], "1 headers, 3 bytes"),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", &[200], ", 3 bytes"),
    (
        "POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200],
        "0 headers, 3 bytes",
    ),
    (
        "POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n",
        &[200],
        ", 3 bytes",
    ),
    ("GET /see HTTP/1.1\r\nhost: h\r\n\r\nGET /see HTTP/1.1\r\nhost: i\r\n\r\n", &[200, 200], "GET http://i/see"),
    // An upgrade is not done, and its headers do not reach the plugin.
    (
        "GET /see HTTP/1.1\r\nhost: h\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        &[200],
        "GET http://h/see 0 headers",
    ),
    ("GET /see HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", &[200], "0 headers"),
    ("POST /see HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na", &[100, 200], ", 1 bytes"),
    // The host.
    ("GET /see HTTP/1.1\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.0\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\nhost: i\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost:\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: a b\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: %zz\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: user@h\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h/\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h:port\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h, i\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: \u{fc}\r\n\r\n", &[400], ""),
    ("GET http://other/see HTTP/1.1\r\n\r\n", &[400], ""),
    ("GET http://user:p@other/see HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    // The target.
    ("GET admin HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET h:80 HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET * HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET ?see HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET ftp://h/see HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET /a b HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET  /see HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n", &[204], ""),
    ("CONNECT h:80 HTTP/1.1\r\nhost: h:80\r\n\r\n", &[405], ""),
    ("CONNECT /see HTTP/1.1\r\nhost: h\r\n\r\n", &[405], ""),
    ("TRACE /see HTTP/1.1\r\nhost: h\r\n\r\n", &[405], ""),
    ("AVERYLONGMETHODTHATNOBODYHASREGISTERED /see HTTP/1.1\r\nhost: h\r\n\r\n", &[501], ""),
    ("G@T /see HTTP/1.1\r\nhost: h\r\n\r\n", &[400], ""),
    ("G!T /see HTTP/1.1\r\nhost: h\r\n\r\n", &[200], "G!T http://h/see"),
    ("GET /see HTTP/2.0\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.2\r\nhost: h\r\n\r\n", &[400], ""),
    ("GET /see\r\n\r\n", &[400], ""),
    // Request smuggling.
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 3, 3\r\n\r\nabc", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: +3\r\n\r\nabc", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999\r\n\r\n", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 0x3\r\n\r\nabc", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n", &[413], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", &[400], ""),
    ("POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", &[400], ""),
    ("POST /see HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], ""),
    // With both framings the connection is closed after the answer: RFC 9112, 6.1.
    (
        "POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /see HTTP/1.1\r\nhost: h\r\n\r\n",
        &[200],
        "0 headers, 0 bytes",
    ),
    (
        "POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nGET /see HTTP/1.1\r\nhost: h\r\n\r\n",
        &[200],
        "0 headers, 0 bytes",
    ),
    ("GET /see HTTP/1.1\r\nhost : h\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\n host: h\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\n: a\r\n\r\n", &[400], ""),
    ("GET /see HTTP/1.1\r\nhost: h\r\nx\r\n\r\n", &[400], ""),
    // Bodies that the plugin finds broken.
    ("POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", &[200], "broken"),
    ("POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", &[200], "broken"),
    ("POST /see HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", &[200], "broken"),
    ("POST /see HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\na", &[200], "broken"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_requests_are_answered_by_the_plugin_or_refused() {
    let serving = respond();
    let address = serving.address();
    let wrong = tokio::task::spawn_blocking(move || {
        let mut wrong = Vec::new();
        for (bytes, expected, seen) in HTTP1 {
            let received = send(address, bytes.as_bytes());
            if statuses(&received) != *expected || !received.contains(seen) {
                wrong.push(format!("{}: {expected:?} {seen}\n  {}", bytes.escape_debug(), received.escape_debug()));
            }
        }
        wrong
    });
    let wrong = wrong.await.unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let finished = serving.terminate().await;
    let reached = HTTP1.iter().flat_map(|(_, statuses, _)| *statuses).filter(|status| **status == 200).count();
    assert_eq!(finished.stderr.matches(" status=200 ").count(), reached, "{}", finished.stderr);
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
}

/// Both framings in one request: only the chunks count, and the next request is not what the length says.
#[tokio::test]
async fn of_two_framings_chunks_win() {
    let serving = respond();
    for headers in [
        "content-length: 100\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 100\r\n",
    ] {
        let received = send(
            serving.address(),
            format!("POST /see HTTP/1.1\r\nhost: h\r\n{headers}\r\n1\r\na\r\n0\r\n\r\n").as_bytes(),
        );
        assert_eq!(statuses(&received), [200], "{received}");
        assert!(received.contains("0 headers, 1 bytes"), "{received}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_head_is_431_and_the_log_has_its_beginning() {
    let serving = respond();
    let address = serving.address();
    let received = tokio::task::spawn_blocking(move || {
        [
            send(address, format!("GET /see HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "a".repeat(400_000)).as_bytes()),
            send(address, format!("GET /see HTTP/1.1\r\nhost: h\r\nx: {}", "a".repeat(400_000)).as_bytes()),
            send(address, format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(60_000)).as_bytes()),
            send(address, format!("GET /see HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: y\r\n".repeat(1000)).as_bytes()),
            send(address, format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(30_000)).as_bytes()),
        ]
    });
    let statuses = received.await.unwrap().map(|received| statuses(&received));
    assert_eq!(statuses, [[431], [431], [431], [431], [200]]);
    let finished = serving.terminate().await;
    let longest = finished.stderr.lines().map(str::len).max().unwrap();
    assert!((1000..2000).contains(&longest), "{longest}");
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
}

/// A request of HTTP/2, its response or the error of its stream, and the body.
async fn over_http2(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<(Response<()>, Bytes), hyper::Error> {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let exchange = async {
        let (head, body) = send.send_request(request).await?.into_parts();
        Ok((Response::from_parts(head, ()), body.collect().await?.to_bytes()))
    };
    tokio::time::timeout(TEST_TIMEOUT, exchange).await.expect("a response")
}

#[tokio::test]
async fn http2_requests_are_answered_by_the_plugin_or_refused() {
    let serving = respond();
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16);
    let cases: &[Case] = &[
        ("GET", "http://h/see", &[], 200),
        ("GET", "http://h/see", &[("host", "h")], 200),
        ("GET", "http://h/see", &[("host", "H")], 200),
        ("GET", "http://h/see", &[("te", "trailers")], 200),
        ("OPTIONS", "http://h/see", &[], 200),
        ("GET", "http://h/see", &[("host", "other")], 400),
        ("GET", "http://h/see", &[("host", "h"), ("host", "h")], 400),
        ("GET", "http://u@h/see", &[], 400),
        ("TRACE", "http://h/see", &[], 405),
        ("POST", "http://h/see", &[("content-length", "1000000")], 413),
    ];
    for (method, uri, headers, status) in cases {
        let request = headers
            .iter()
            .fold(Request::builder().method(*method).uri(*uri), |request, (name, value)| request.header(*name, *value));
        match over_http2(serving.address(), request.body(Full::default()).unwrap()).await {
            Ok((head, body)) => {
                assert_eq!(head.status(), *status, "{method} {uri} {headers:?}: {body:?}");
                assert_eq!(body.starts_with(method.as_bytes()), *status == 200, "{method} {uri} {headers:?}: {body:?}");
            }
            // The client does not send what its head says, and the host may see that first.
            Err(error) => assert_eq!(*status, 413, "{method} {uri} {headers:?}: {error:?}"),
        }
    }
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR"), "{}", finished.stderr);
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/see"), (":authority", "h")];
/// Sends frames after the preface, and returns the kinds and first payload bytes of the frames that come back, until
/// the host resets a stream, says goodbye or closes, or answers the request.
fn exchange(address: SocketAddr, frames: &[u8]) -> &'static str {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frames);
    let _closed = stream.write_all(&bytes);
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let len = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let mut payload = vec![0; len];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        match head[3] {
            RESET => return "reset",
            GO_AWAY => return "goodbye",
            // `:status: 200` and `400` of the static table; others are literals.
            HEADERS if payload[0] == 0x88 => return "200",
            HEADERS if payload[0] == 0x8c => return "400",
            HEADERS => return "other",
            _ => {}
        }
    }
    "closed"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_http2_is_refused() {
    let serving = respond();
    let address = serving.address();
    let headers = |headers: &[(&str, &str)]| frame(HEADERS, END, 1, &literals(headers));
    let with = |more: &[(&str, &str)]| frame(HEADERS, END, 1, &literals(&[&GET, more].concat()));
    let mut cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("a request", headers(&GET), &["200"]),
        ("a header", with(&[("x", "y")]), &["200"]),
        ("trailers allowed", with(&[("te", "trailers")]), &["200"]),
        ("a host for the authority", headers(&[GET[0], GET[1], GET[2], ("host", "h")]), &["200"]),
        ("no host", headers(&GET[..3]), &["400"]),
        ("another host", with(&[("host", "i")]), &["400"]),
        ("an invalid host", headers(&[GET[0], GET[1], GET[2], ("host", "a b")]), &["400"]),
        ("an invalid authority", headers(&[GET[0], GET[1], GET[2], (":authority", "a b")]), &["reset", "400"]),
        ("an empty authority", headers(&[GET[0], GET[1], GET[2], (":authority", "")]), &["reset", "400"]),
        ("an upper-case name", with(&[("X", "y")]), &["reset", "goodbye"]),
        ("a pseudo-header last", headers(&[GET[0], GET[1], GET[2], ("x", "y"), GET[3]]), &["reset", "goodbye"]),
        ("a pseudo-header twice", headers(&[GET[0], GET[0], GET[1], GET[2], GET[3]]), &["reset", "goodbye"]),
        ("an unknown pseudo-header", with(&[(":x", "y")]), &["reset", "goodbye"]),
        ("a status in a request", with(&[(":status", "200")]), &["reset", "goodbye"]),
        ("no method", headers(&GET[1..]), &["reset", "goodbye"]),
        ("no path", headers(&[GET[0], GET[1], GET[3]]), &["reset", "goodbye"]),
        ("an empty path", headers(&[GET[0], GET[1], (":path", ""), GET[3]]), &["reset", "goodbye", "400"]),
        ("a relative path", headers(&[GET[0], GET[1], (":path", "see"), GET[3]]), &["reset", "goodbye", "400"]),
        ("connection", with(&[("connection", "close")]), &["reset", "goodbye"]),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), &["reset", "goodbye"]),
        ("upgrade", with(&[("upgrade", "h2c")]), &["reset", "goodbye"]),
        ("te", with(&[("te", "gzip")]), &["reset", "goodbye"]),
        ("a line break in a value", with(&[("x", "a\r\nb")]), &["reset", "goodbye"]),
        ("a space in a name", with(&[("a b", "y")]), &["reset", "goodbye"]),
        ("an even stream", frame(HEADERS, END, 2, &literals(&GET)), &["goodbye"]),
        ("stream 0", frame(HEADERS, END, 0, &literals(&GET)), &["goodbye"]),
        ("no HPACK", frame(HEADERS, END, 1, &[0xff; 20]), &["goodbye"]),
        ("data of no stream", frame(DATA, 0, 1, b"a"), &["goodbye"]),
        ("a window of no stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), &["goodbye"]),
        ("a window of 0", [headers(&GET), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(), &["reset", "goodbye", "200"]),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), &["goodbye"]),
        ("an initial window that overflows", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]), &["goodbye"]),
        ("a short setting", frame(SETTINGS, 0, 0, &[0; 5]), &["goodbye"]),
        ("a short ping", frame(PING, 0, 0, &[0; 7]), &["goodbye"]),
        ("a frame that is too large", frame(DATA, 0, 1, &[0; 20_000]), &["goodbye", "closed"]),
        ("a continuation of nothing", frame(CONTINUATION, 4, 1, &[]), &["goodbye"]),
        (
            "a frame between two parts of a head",
            [frame(HEADERS, 1, 1, &literals(&GET)), frame(PING, 0, 0, &[0; 8])].concat(),
            &["goodbye"],
        ),
    ];
    let mut flood = frame(HEADERS, 1, 1, &literals(&GET));
    (0..10_000).for_each(|_| flood.extend(frame(CONTINUATION, 0, 1, &[])));
    cases.push(("endless empty continuations", flood, &["goodbye", "closed"]));
    let mut flood = frame(HEADERS, 1, 1, &literals(&GET));
    let long = literals(&[("x", &"y".repeat(100))]).repeat(100);
    (0..200).for_each(|_| flood.extend(frame(CONTINUATION, 0, 1, &long)));
    cases.push(("an endless head", flood, &["goodbye", "closed"]));
    let mut flood = Vec::new();
    for stream in (1..2000).step_by(2) {
        flood.extend(frame(HEADERS, END, stream, &literals(&GET)));
        flood.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
    }
    cases.push(("rapid resets", flood, &["goodbye", "closed", "200", "reset"]));
    let checked = tokio::task::spawn_blocking(move || {
        let outcomes = cases.into_iter().map(|(name, frames, allowed)| (name, exchange(address, &frames), allowed));
        outcomes.filter(|(_, outcome, allowed)| !allowed.contains(outcome)).collect::<Vec<_>>()
    });
    assert_eq!(checked.await.unwrap(), []);
    assert_eq!(serving.get("/hello").await.body, "hello\n");
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("ERROR") && !finished.stderr.contains("h2::"), "{}", finished.stderr);
}

/// The query of a response, and its status, the headers that must be there or must not (`!`), and the body, or that the
/// body breaks off.
const RESPONSES: &[(&str, u16, &[&str], Option<usize>)] = &[
    ("piece=5", 200, &[], Some(5)),
    ("header=content-length:5&piece=5", 200, &["content-length: 5"], Some(5)),
    ("header=content-length:5&piece=2&piece=3", 200, &["content-length: 5"], Some(5)),
    ("header=content-length:0", 200, &["content-length: 0"], Some(0)),
    ("status=404&piece=5", 404, &[], Some(5)),
    ("status=599&piece=5", 599, &[], Some(5)),
    ("status=204&piece=5", 204, &["!content-length", "!transfer-encoding"], Some(0)),
    ("status=204&header=content-length:5&piece=5", 204, &["!content-length"], Some(0)),
    ("status=205&piece=5", 205, &["content-length: 0"], Some(0)),
    ("status=304&piece=5", 304, &["!transfer-encoding"], Some(0)),
    ("status=304&header=content-length:5&piece=5", 304, &["!transfer-encoding"], Some(0)),
    ("status=100&piece=5", 500, &[], Some(18)),
    ("status=101&header=x:y", 500, &["!x"], Some(18)),
    ("status=103", 500, &[], Some(18)),
    ("status=199", 500, &[], Some(18)),
    ("status=600&piece=5", 500, &[], Some(18)),
    ("status=999&header=x:y", 500, &["!x"], Some(18)),
    ("header=content-length:3&header=content-length:5&piece=5", 500, &[], Some(18)),
    ("header=content-length:3&piece=5", 200, &[], None),
    ("header=content-length:3&piece=3&piece=2", 200, &[], None),
    ("header=content-length:3&piece=3&then=panic", 200, &[], None),
    ("header=content-length:5&piece=3", 200, &[], None),
    ("header=content-length:5", 200, &[], None),
    ("piece=5&then=panic", 200, &[], None),
];

/// Checks that the head and the length of a body are as expected, unless it breaks off.
fn check_response(query: &str, status: u16, headers: &[(String, String)], body: Option<usize>) -> Result<(), String> {
    let expected = RESPONSES.iter().find(|(of, ..)| *of == query).unwrap();
    let has = |rule: &&str| {
        let (name, value) = rule.split_once(": ").unwrap_or((rule, ""));
        match name.strip_prefix('!') {
            Some(name) => headers.iter().all(|(header, _)| header != name),
            None => headers.iter().any(|(header, found)| header == name && found == value),
        }
    };
    match status == expected.1 && expected.2.iter().all(has) && body == expected.3 {
        true => Ok(()),
        false => Err(format!("{query}: {status} {headers:?} {body:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_out_over_http1_is_what_its_head_says() {
    let serving = respond();
    let address = serving.address();
    let wrong = tokio::task::spawn_blocking(move || {
        let check = |query: &str| {
            let bytes = format!("GET /respond?{query} HTTP/1.1\r\nhost: h\r\n\r\n");
            let received = send(address, bytes.as_bytes());
            let Some((head, body)) = received.split_once("\r\n\r\n") else {
                // The whole response was one that breaks off.
                return check_response(query, 200, &[], None);
            };
            let mut lines = head.lines();
            let status = lines.next().unwrap()[9..12].parse().unwrap();
            let headers: Vec<_> = lines
                .map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
                .collect();
            let value = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
            let body = match (value("content-length"), value("transfer-encoding")) {
                _ if status == 204 || status == 304 => Some(body.len()),
                (Some(length), None) => Some(body.len()).filter(|len| *len == length.parse::<usize>().unwrap()),
                (None, Some("chunked")) if body.ends_with("0\r\n\r\n") => {
                    // Chunks of fewer than 16 bytes.
                    Some(body.split("\r\n").skip(1).step_by(2).map(str::len).sum())
                }
                _ => None,
            };
            check_response(query, status, &headers, body)
        };
        RESPONSES.iter().filter_map(|(query, ..)| check(query).err()).collect::<Vec<_>>()
    });
    let wrong = wrong.await.unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("status=1"), "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("returned an invalid response: its status is not").count(), 6);
}

#[tokio::test]
async fn what_goes_out_over_http2_is_what_its_head_says() {
    let serving = respond();
    for (query, ..) in RESPONSES {
        let request = Request::get(format!("http://h/respond?{query}")).body(Full::default()).unwrap();
        let checked = match over_http2(serving.address(), request).await {
            Ok((head, body)) => {
                let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap().to_owned();
                let headers: Vec<_> =
                    head.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
                check_response(query, head.status().as_u16(), &headers, Some(body.len()))
            }
            Err(_) => check_response(query, 200, &[], None),
        };
        assert_eq!(checked, Ok(()));
    }
}

/// The end of the connection is the end of such a body, unless it is a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_answer_is_not_complete_over_http1_0() {
    let serving = respond();
    let address = serving.address();
    let ends = tokio::task::spawn_blocking(move || {
        ["piece=5", "piece=5&then=panic"].map(|query| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET /respond?{query} HTTP/1.0\r\nhost: h\r\n\r\n").unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).map_err(|error| error.kind())
        })
    });
    let [whole, broken] = ends.await.unwrap();
    assert!(whole.is_ok());
    assert_eq!(broken, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_long_error_text_of_a_plugin_is_cut() {
    let serving = respond();
    assert_eq!(serving.get("/fail?10000000").await.status, 500);
    let finished = serving.terminate().await;
    let line = finished.stderr.lines().find(|line| line.contains("returned an error instead of a response")).unwrap();
    assert!(line.len() < 1000, "{}", line.len());
}
