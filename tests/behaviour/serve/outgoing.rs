//! The requests that plugins send: which hosts they may reach, and what the plugin receives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use larder_tests::{
    Authority, ChannelBody, Client, HttpResponse, Larder, ServeProcess, TEST_TIMEOUT, Upstream, UpstreamResponse,
    guest, ok_response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A configuration that lets the guest `http` reach these hosts.
fn grant(hosts: &[String]) -> String {
    format!("[plugins.http]\noutgoing_hosts = {hosts:?}\n")
}

fn local(upstream: &Upstream) -> String {
    upstream.address().to_string()
}

/// The default upstream: it replies with the request that it received, and counts.
async fn telling(asked: &Arc<AtomicUsize>) -> Upstream {
    let asked = Arc::clone(asked);
    Upstream::start(move |request| {
        asked.fetch_add(1, Ordering::Relaxed);
        tell(request)
    })
    .await
}

async fn tell(request: Request<Incoming>) -> UpstreamResponse {
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let head = format!("{} {} {}", request.method(), request.uri(), host.unwrap_or_default());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    ok_response(format!("{head} {}\n", String::from_utf8_lossy(&body)))
}

/// A reserved port without a listener.
fn refusing() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

/// The error that a plugin had of its request.
async fn error(serving: &ServeProcess, path: &str) -> String {
    let HttpResponse { status, body, .. } = serving.get(path).await;
    assert_eq!(status, 502, "{path}: {body}");
    body
}

async fn is_denied(serving: &ServeProcess, url: &str) {
    assert_eq!(error(serving, &format!("/fetch?{url}")).await, "ErrorCode::HttpRequestDenied", "{url}");
}

#[tokio::test]
async fn a_plugin_without_a_grant_reaches_no_host() {
    let asked = Arc::default();
    let upstream = telling(&asked).await;
    for config in
        ["", "[plugins.http]\n", "[plugins.http]\noutgoing_hosts = []\n", "[plugins.other]\noutgoing_hosts = [\"*\"]\n"]
    {
        let serving = ServeProcess::start(config);
        is_denied(&serving, &format!("http://{}/", upstream.address())).await;
        is_denied(&serving, "https://localhost/").await;
        // The plugin receives the error also while it sends a body that is not read.
        let client = Client::connect(serving.address()).await;
        let path = format!("/fetch?http://{}/", upstream.address());
        let answer = client.send(&path, &"x".repeat(1 << 20)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (502, "ErrorCode::HttpRequestDenied"));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_granted_host_is_reached() {
    let upstream = telling(&Arc::default()).await;
    let (address, port) = (upstream.address(), upstream.port());
    let serving = ServeProcess::start(&grant(&[local(&upstream), format!("localhost:{port}")]));
    let answer = serving.get(&format!("/fetch?http://{address}/a/b?c=%20d")).await;
    assert_eq!(answer, HttpResponse::ok(&format!("GET /a/b?c=%20d {address} \n")));
    // A name is resolved in upper and lower case.
    let answer = serving.get(&format!("/fetch?http://LocalHost.:{port}")).await;
    assert_eq!(answer, HttpResponse::ok(&format!("GET / localhost:{port} \n")));
    let client = Client::connect(serving.address()).await;
    let answer = client.send(&format!("/fetch?http://{address}/"), "body").await.unwrap();
    assert_eq!(answer, HttpResponse::ok(&format!("POST / {address} body\n")));
}

#[tokio::test]
async fn a_command_reaches_the_granted_caches_and_no_others() {
    let upstream = telling(&Arc::default()).await;
    let address = upstream.address();
    let config = format!("[plugins.fetch]\noutgoing_hosts = [\"{address}\"]\n");
    let run = Larder::run("fetch").config(&config).arg(format!("http://{address}/a")).arg("http://localhost/");
    let run = tokio::task::spawn_blocking(|| run.succeed()).await.unwrap();
    assert_eq!(run.stdout, format!("200 GET /a {address} \n\nErrorCode::HttpRequestDenied\n"));
}

#[tokio::test]
async fn another_port_or_name_of_a_granted_host_is_denied() {
    let (granted, other) = (telling(&Arc::default()).await, telling(&Arc::default()).await);
    let serving = ServeProcess::start(&grant(&[local(&granted), "localhost".to_owned(), "*.localhost".to_owned()]));
    for host in [
        format!("127.0.0.1:{}", other.port()),
        "127.0.0.1".to_owned(),
        format!("localhost:{}", granted.port()),
        format!("a.localhost:{}", granted.port()),
        format!("127.1:{}", granted.port()),
        format!("2130706433:{}", granted.port()),
        format!("[::ffff:127.0.0.1]:{}", granted.port()),
        // The host of this URL is the second one.
        format!("{}@{}", granted.address(), other.address()),
        format!("user@{}", granted.address()),
    ] {
        is_denied(&serving, &format!("http://{host}/")).await;
    }
}

#[tokio::test]
async fn the_header_host_is_that_of_the_url() {
    let asked = Arc::default();
    let upstream = telling(&asked).await;
    let serving = ServeProcess::start(&grant(&[local(&upstream)]));
    let error = error(&serving, &format!("/forge?http://{}/", upstream.address())).await;
    assert!(error.contains("Forbidden"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_redirect_is_the_plugins_to_follow() {
    let other = Arc::default();
    let elsewhere = telling(&other).await;
    let location = format!("http://{}/", elsewhere.address());
    let upstream = Upstream::start(move |_| {
        let mut reply = ok_response("moved");
        *reply.status_mut() = hyper::StatusCode::FOUND;
        reply.headers_mut().insert("location", location.parse().unwrap());
        std::future::ready(reply)
    })
    .await;
    let serving = ServeProcess::start(&grant(&[local(&upstream), local(&elsewhere)]));
    let answer = serving.get(&format!("/fetch?http://{}/", upstream.address())).await;
    assert_eq!((answer.status, answer.body.as_str()), (302, "moved"));
    assert_eq!(other.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn no_proxy_of_the_environment_is_asked() {
    let asked = Arc::default();
    let (proxy, upstream) = (telling(&asked).await, telling(&Arc::default()).await);
    let proxy = format!("http://{}", proxy.address());
    let larder = Larder::serve().config(&grant(&[local(&upstream)])).env("http_proxy", &proxy).env("ALL_PROXY", &proxy);
    let serving = ServeProcess::start_with(larder.arg(guest("http")));
    assert_eq!(serving.get(&format!("/fetch?http://{}/", upstream.address())).await.status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_refused_connection_is_an_error_and_no_trap() {
    let refusing = refusing();
    let address = refusing.local_addr().unwrap();
    let serving = ServeProcess::start(&grant(&[address.to_string(), "nowhere.invalid".to_owned()]));
    let url = format!("/fetch?http://{address}/");
    assert_eq!(error(&serving, &url).await, "ErrorCode::ConnectionRefused");
    let client = Client::connect(serving.address()).await;
    let answer = client.send(&url, &"x".repeat(1 << 20)).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (502, "ErrorCode::ConnectionRefused"));
    // A resolver may also be silent.
    let unknown = error(&serving, "/fetch/connect?http://nowhere.invalid/").await;
    assert!(unknown.contains("DnsError") || unknown.contains("ConnectionTimeout"), "{unknown}");
    let finished = serving.terminate().await;
    assert!(!finished.stderr.contains("trapped"), "{}", finished.stderr);
}

/// Answers the next connection with these bytes, and ends it.
async fn say(listener: &TcpListener, said: &str) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let _request = stream.read(&mut [0; 1024]).await.unwrap();
    // Who has seen enough reads no more of it.
    let _broken = stream.write_all(said.as_bytes()).await;
}

#[tokio::test]
async fn an_invalid_response_is_an_error_and_no_trap() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = ServeProcess::start(&grant(&[address.to_string()]));
    let path = format!("/fetch?http://{address}/");
    let long = format!("HTTP/1.1 200 OK\r\nlong: {}\r\n\r\n", "x".repeat(1 << 20));
    for (said, expected) in [
        ("", "ErrorCode::ConnectionTerminated"),
        ("nonsense\r\n\r\n", "ErrorCode::HttpProtocolError"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8\r\n\r\n", "ErrorCode::HttpProtocolError"),
        (long.as_str(), "ErrorCode::HttpResponseHeaderSectionSize(None)"),
    ] {
        let ((), error) = tokio::join!(say(&listener, said), error(&serving, &path));
        assert_eq!(error, expected, "{}", &said[..said.len().min(100)]);
    }
    // A response that is aborted is not complete, neither to the plugin nor to its client.
    let client = Client::connect(serving.address()).await;
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nhalf";
    let ((), answer) = tokio::join!(say(&listener, half), client.get(&path));
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn a_silent_upstream_times_out() {
    // The system accepts the connection, and no response ever arrives.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stalling = Upstream::start(|_| async {
        let (pieces, body) = unbounded_channel();
        pieces.send(Bytes::from_static(b"begun")).unwrap();
        // Kept open for longer than any timeout.
        std::mem::forget(pieces);
        UpstreamResponse::new(ChannelBody(body).boxed_unsync())
    })
    .await;
    let serving = ServeProcess::start(&grant(&[address.to_string(), local(&stalling)]));
    let began = Instant::now();
    assert_eq!(
        error(&serving, &format!("/fetch/first-byte?http://{address}/")).await,
        "ErrorCode::HttpResponseTimeout"
    );
    let client = Client::connect(serving.address()).await;
    let answer = client.get(&format!("/fetch/between-bytes?http://{}/", stalling.address())).await;
    assert!(answer.is_err(), "{answer:?}");
    // Well before the run's own end.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Without a timeout of the plugin, the `timeout` of the run ends it.
    let config = format!("[sandbox]\ntimeout = \"300ms\"\n{}", grant(&[address.to_string()]));
    assert_eq!(ServeProcess::start(&config).get(&format!("/fetch?http://{address}/")).await.status, 504);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_end_of_the_body_is_the_plugins() {
    let upstream = Upstream::start(|request| async {
        // Else the connection may be reset before the answer is read.
        tokio::spawn(request.into_body().collect());
        let mut reply = ok_response("too much");
        *reply.status_mut() = hyper::StatusCode::PAYLOAD_TOO_LARGE;
        reply
    })
    .await;
    let serving = ServeProcess::start(&grant(&[local(&upstream)]));
    let client = Client::connect(serving.address()).await;
    let path = format!("/fetch?http://{}/", upstream.address());
    for length in [0, 1, 1 << 20] {
        let answer = client.send(&path, &"x".repeat(length)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (413, "too much"), "{length}");
    }
    // A client without a body often receives the response before it has sent the end of its request.
    for _ in 0..200 {
        assert_eq!(client.get(&path).await.unwrap().status, 413);
    }
}

/// Reads until the text has come.
fn read_until(stream: &mut TcpStream, text: &str) {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(text) {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "no `{text}` in {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..count]);
    }
}

/// What the upstream of a streaming test has in hand: the pieces it received, and those that it sends.
struct Streaming {
    received: UnboundedReceiver<Bytes>,
    sends: UnboundedSender<Bytes>,
    upstream: Upstream,
}

/// An upstream that passes on each piece of a body as it arrives, and sends the pieces that the test gives it.
async fn streaming() -> Streaming {
    let (received_sender, received) = unbounded_channel();
    let (sends, pieces) = unbounded_channel();
    let pieces = Arc::new(std::sync::Mutex::new(Some(pieces)));
    let upstream = Upstream::start(move |request| {
        let (received, pieces) = (received_sender.clone(), pieces.lock().unwrap().take());
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                received.send(frame.unwrap().into_data().unwrap()).unwrap();
            }
            UpstreamResponse::new(ChannelBody(pieces.expect("it is asked once")).boxed_unsync())
        }
    })
    .await;
    Streaming { received, sends, upstream }
}

/// In either direction, the second piece is sent when the first one has arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_streamed_in_both_directions() {
    let Streaming { mut received, sends, upstream } = streaming().await;
    let serving = ServeProcess::start(&grant(&[local(&upstream)]));
    let mut client = TcpStream::connect(serving.address()).unwrap();
    client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let head = format!("POST /fetch?http://{}/ HTTP/1.1\r\nhost: h\r\n", upstream.address());
    write!(client, "{head}transfer-encoding: chunked\r\n\r\n").unwrap();
    for piece in ["first", "second"] {
        write!(client, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
        let came = tokio::time::timeout(TEST_TIMEOUT, received.recv()).await.expect("it does not wait for the rest");
        assert_eq!(came.unwrap(), piece);
    }
    write!(client, "0\r\n\r\n").unwrap();
    for piece in ["third", "fourth"] {
        sends.send(piece.into()).unwrap();
        read_until(&mut client, piece);
    }
    drop(sends);
    read_until(&mut client, "0\r\n\r\n");
}

#[tokio::test]
async fn max_outgoing_requests_bounds_the_requests_of_an_instance() {
    let upstream = telling(&Arc::default()).await;
    let config = format!("[sandbox]\nmax_outgoing_requests = 2\n{}", grant(&[local(&upstream)]));
    let serving = ServeProcess::start(&config);
    let crowd = |count: usize| format!("/crowd/{count}?http://{}/", upstream.address());
    assert_eq!(serving.get(&crowd(2)).await, HttpResponse::ok("200\n200\n200\n200\n"));
    let round = "200\n200\nErrorCode::ConnectionLimitReached\n";
    assert_eq!(serving.get(&crowd(3)).await, HttpResponse::ok(&round.repeat(2)));
}

#[tokio::test]
async fn requests_are_counted_by_their_outcome() {
    let upstream = telling(&Arc::default()).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = refusing();
    let (silent_address, refusing_address) = (silent.local_addr().unwrap(), refusing.local_addr().unwrap());
    let hosts = [local(&upstream), silent_address.to_string(), refusing_address.to_string()];
    let serving = ServeProcess::start_with_metrics(&format!("[sandbox]\nmax_outgoing_requests = 2\n{}", grant(&hosts)));
    for path in [
        format!("/crowd/3?http://{}/", upstream.address()),
        format!("/fetch?http://{refusing_address}/"),
        format!("/fetch/first-byte?http://{silent_address}/"),
        "/fetch?http://127.0.0.1/".to_owned(),
        format!("/forsake?http://{silent_address}/"),
    ] {
        serving.get(&path).await;
    }
    let metrics = Client::connect(serving.metrics_address()).await;
    for (outcome, count) in
        [("answered", 4), ("refused", 2), ("failed", 1), ("timed-out", 1), ("denied", 1), ("gone", 1)]
    {
        let line = format!("larder_outgoing_requests_total{{plugin=\"http\",outcome=\"{outcome}\"}} {count}\n");
        let counted = async {
            while !metrics.get("/metrics").await.unwrap().body.contains(&line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, counted).await.unwrap_or_else(|_| panic!("no {line}"));
    }
}

/// The beginning of a body must not be taken for the whole.
#[tokio::test]
async fn a_body_that_its_plugin_does_not_finish_is_aborted() {
    let (sender, mut received) = unbounded_channel();
    let upstream = Upstream::start(move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move {
            let body = request.into_body().collect().await;
            sender.send(body.map(|body| body.to_bytes().len()).map_err(drop)).unwrap();
            ok_response("")
        }
    })
    .await;
    let serving = ServeProcess::start(&(grant(&[local(&upstream)]) + "[sandbox]\ntimeout = \"1s\"\n"));
    for operation in ["/abandon/panic", "/abandon/wait", "/abandon/exit"] {
        serving.get(&format!("{operation}?http://{}/", upstream.address())).await;
        let broken =
            tokio::time::timeout(TEST_TIMEOUT, received.recv()).await.expect("the upstream sees the end").unwrap();
        assert_eq!(broken, Err(()), "{operation}");
    }
    let whole = serving.get(&format!("/abandon/finish?http://{}/", upstream.address())).await;
    assert_eq!((whole.status, received.recv().await), (200, Some(Ok(2 << 20))));
}

mod tls {
    use super::*;

    /// Serves the guest `http` to a host that trusts this authority.
    fn trusting(authority: &Authority, config: &str) -> ServeProcess {
        let larder = Larder::serve().config(config).env("SSL_CERT_FILE", authority.ca_file());
        ServeProcess::start_with(larder.arg(guest("http")))
    }

    #[tokio::test]
    async fn a_host_with_a_certificate_is_reached_by_its_name() {
        let authority = Authority::new();
        for name in ["localhost", "127.0.0.1"] {
            let upstream = Upstream::start_tls(&authority.issue(name), tell).await;
            let host = format!("{name}:{}", upstream.port());
            let serving = trusting(&authority, &grant(std::slice::from_ref(&host)));
            for _ in 0..2 {
                let answer = serving.get(&format!("/fetch?https://{host}/a")).await;
                assert_eq!(answer, HttpResponse::ok(&format!("GET /a {host} \n")));
            }
            // Who asks without TLS has no answer in clear text.
            assert_eq!(serving.get(&format!("/fetch?http://{host}/a")).await.status, 502);
        }
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_refused() {
        let (ours, other) = (Authority::new(), Authority::new());
        for certificate in [other.issue("localhost"), ours.issue("127.0.0.1"), ours.issue_until("localhost", 2020)] {
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&asked);
            let upstream = Upstream::start_tls(&certificate, move |request| {
                counted.fetch_add(1, Ordering::Relaxed);
                tell(request)
            })
            .await;
            let host = format!("localhost:{}", upstream.port());
            let serving = trusting(&ours, &grant(std::slice::from_ref(&host)));
            let refused = error(&serving, &format!("/fetch?https://{host}/")).await;
            assert_eq!(refused, "ErrorCode::TlsCertificateError", "{certificate:?}");
            assert_eq!(asked.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn a_host_that_speaks_no_tls_is_an_error_and_no_trap() {
        let upstream = telling(&Arc::default()).await;
        let serving = trusting(&Authority::new(), &grant(&[local(&upstream)]));
        let refused = error(&serving, &format!("/fetch?https://{}/", upstream.address())).await;
        assert_eq!(refused, "ErrorCode::TlsProtocolError");
    }
}

#[tokio::test]
async fn endless_interim_responses_are_given_up_and_hold_up_no_other_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(1_000);
        for mut stream in listener.incoming().flatten() {
            let hint = hint.clone();
            std::thread::spawn(move || {
                // A response before the request has arrived is a different error.
                let _request = stream.read(&mut [0; 4096]);
                while stream.write_all(&hint).is_ok() {}
            });
        }
    });
    let serving = ServeProcess::start(&grant(std::slice::from_ref(&address)));
    let flooded = async {
        for _ in 0..4 {
            let error = error(&serving, &format!("/fetch/any?http://{address}/")).await;
            assert!(error.contains("HttpResponseHeaderSectionSize"), "{error}");
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, flooded).await.expect("the requests end");
    assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
}
