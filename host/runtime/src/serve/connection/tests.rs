//! The deadlines, with a paused clock over streams in memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wasmtime_wasi_http::WasiBody;

use super::*;
use crate::serve::admission::Admission;
use crate::serve::answer::Held;
use crate::serve::request_state::RequestState;

const ANSWER: usize = 60_000;

fn body(len: usize) -> WasiBody {
    Full::new(Bytes::from(vec![b'x'; len])).map_err(|never| match never {}).boxed_unsync()
}

/// Serves answers whose length is the path, or 60,000 bytes, over a stream that holds `buffer` bytes.
async fn served(connections: &Arc<OpenConnections>, buffer: usize) -> (DuplexStream, JoinHandle<()>) {
    let (client, host) = duplex(buffer);
    let open = connections.open().await.expect("there is room");
    let respond = |request: Request<FollowedBody>, answer: Arc<Answer>| async move {
        let len = request.uri().path().trim_start_matches('/').parse().unwrap_or(ANSWER);
        Response::new(AnswerBody::new(body(len), answer, None))
    };
    (client, tokio::spawn(serve(host, open, Timeouts::default(), respond)))
}

/// Seconds until the host closes the connection.
async fn seconds_until_closed(began: Instant, served: JoinHandle<()>) -> u64 {
    served.await.unwrap();
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_complete_head_is_cut() {
    let connections = OpenConnections::new(100);
    let heads: &[&[u8]] = &[
        b"",
        b"G",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        b"GET / HTTP/1.1\r\nhost: h\r\n",
        b"GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET / HTT",
        b"\r\n\r\n\r\n",
    ];
    for head in heads {
        let (mut client, served) = served(&connections, 1 << 20).await;
        client.write_all(head).await.unwrap();
        let seconds = seconds_until_closed(Instant::now(), served).await;
        assert_eq!(seconds, 30, "{}", head.escape_ascii());
    }
    // Bytes that arrive do not extend it.
    let (mut client, served) = served(&connections, 1 << 20).await;
    let began = Instant::now();
    let sending = async {
        loop {
            if client.write_all(b"a").await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let (seconds, ()) = tokio::join!(seconds_until_closed(began, served), sending);
    assert_eq!(seconds, 30);
    timeout(Duration::from_secs(1), connections.until_closed()).await.expect("all are closed");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_without_a_request_is_told_to_go_away_even_if_it_answers_pings() {
    let connections = OpenConnections::new(100);
    for preface in [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), {
        let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        preface.extend(frame(4, 0, 0, &[]));
        preface
    }] {
        let (mut client, served) = served(&connections, 1 << 20).await;
        client.write_all(&preface).await.unwrap();
        let began = Instant::now();
        let mut frames = Vec::new();
        let reading = async {
            let mut head = [0; 9];
            while client.read_exact(&mut head).await.is_ok() {
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(len).unwrap()];
                client.read_exact(&mut payload).await.unwrap();
                frames.push(head[3]);
                if head[3] == 6 && head[4] == 0 {
                    let _closed = client.write_all(&frame(6, 1, 0, &payload)).await;
                }
            }
        };
        let (seconds, ()) = tokio::join!(seconds_until_closed(began, served), reading);
        assert!((30..=33).contains(&seconds), "{seconds}");
        assert!(frames.contains(&7) || preface.len() == 24, "no GOAWAY: {frames:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_http1_answer_that_is_not_taken_is_cut() {
    let connections = OpenConnections::new(100);
    let (mut client, served) = served(&connections, 1000).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert_eq!(seconds_until_closed(Instant::now(), served).await, 30);
    // A client that takes little by little is served, if that is not too little.
    for (step, seconds) in [(1000, 60), (100, 30)] {
        let (mut client, served) = served_slowly(&connections, step).await;
        let began = Instant::now();
        let mut taken = 0;
        let mut buffer = vec![0; step];
        while let Ok(count) = client.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            taken += count;
            sleep(Duration::from_secs(1)).await;
        }
        drop(client);
        served.await.unwrap();
        let took = began.elapsed().as_secs();
        if step == 1000 {
            assert!(taken > ANSWER && took >= seconds, "{taken} bytes in {took} s");
        } else {
            assert!(taken < ANSWER && took < 2 * seconds + 11, "{taken} bytes in {took} s");
        }
    }
}

async fn served_slowly(connections: &Arc<OpenConnections>, buffer: usize) -> (DuplexStream, JoinHandle<()>) {
    let (mut client, served) = served(connections, buffer).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    (client, served)
}

async fn http2(connections: &Arc<OpenConnections>, window: u32) -> (http2::SendRequest<Empty<Bytes>>, JoinHandle<()>) {
    let (client, served) = served(connections, 1 << 20).await;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (send, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    (send, served)
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://h{path}")).body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_http2_answer_that_is_not_taken_is_broken_off_and_others_are_not() {
    let connections = OpenConnections::new(100);
    for window in [0, 1, 1000] {
        let (mut send, _served) = http2(&connections, window).await;
        let answers = [send.send_request(request("/60000")).await, send.send_request(request("/20000")).await];
        // Each second a request of the same connection, without a body.
        for _ in 0..31 {
            sleep(Duration::from_secs(1)).await;
            let other = send.send_request(request("/0")).await.unwrap();
            assert_eq!(other.into_body().collect().await.unwrap().to_bytes().len(), 0);
        }
        for answer in answers {
            let mut body = answer.unwrap().into_body();
            let mut taken = 0;
            let broken = loop {
                match body.frame().await {
                    Some(Ok(frame)) => taken += frame.into_data().unwrap().len(),
                    end => break end,
                }
            };
            assert!(broken.is_some_and(|end| end.is_err()), "window {window}: {taken} bytes");
            assert_eq!(taken, usize::try_from(window).unwrap());
        }
        let other = send.send_request(request("/0")).await.unwrap();
        assert_eq!(other.status(), 200);
    }
}

/// A stream that has its end cannot be reset.
#[tokio::test(start_paused = true)]
async fn a_small_answer_that_is_not_taken_is_reset_or_closes_the_connection() {
    let connections = OpenConnections::new(100);
    for (window, closes) in [(0, false), (1, true)] {
        let (mut send, served) = http2(&connections, window).await;
        let answer = send.send_request(request("/5")).await.unwrap();
        sleep(Duration::from_secs(29)).await;
        assert!(!served.is_finished());
        assert_eq!(send.send_request(request("/0")).await.unwrap().status(), 200);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(served.is_finished(), closes, "window {window}");
        assert!(answer.into_body().collect().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_not_taken_are_given_up_sooner_for_new_requests() {
    let connections = OpenConnections::new(100);
    let (mut deaf, served_deaf) = served(&connections, 100).await;
    deaf.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let (mut send, _served) = http2(&connections, 0).await;
    let answer = send.send_request(request("/")).await.unwrap();
    let crowded = Timeouts::default().crowded;
    sleep(crowded - Duration::from_secs(1)).await;
    connections.give_up_untaken(crowded);
    sleep(Duration::from_millis(600)).await;
    assert!(!served_deaf.is_finished());
    sleep(Duration::from_secs(1)).await;
    connections.give_up_untaken(crowded);
    served_deaf.await.unwrap();
    assert!(answer.into_body().collect().await.is_err());
    assert_eq!(send.send_request(request("/0")).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_idle_connection_makes_room_for_a_new_one() {
    let connections = OpenConnections::new(3);
    let (mut active, served_active) = served(&connections, 100).await;
    active.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let (_oldest, served_oldest) = served(&connections, 100).await;
    sleep(Duration::from_millis(10)).await;
    let (_newer, served_newer) = served(&connections, 100).await;
    let began = Instant::now();
    let (mut third, _served) = served(&connections, 100).await;
    served_oldest.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 0);
    assert!(!served_newer.is_finished() && !served_active.is_finished());
    // With a request in each, a new one is refused.
    let mut newest = served(&connections, 100).await;
    served_newer.await.unwrap();
    for client in [&mut third, &mut newest.0] {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    }
    sleep(Duration::from_millis(10)).await;
    assert!(connections.open().await.is_none());
    assert!(!served_active.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_those_that_do_not_take_their_answers() {
    let connections = OpenConnections::new(100);
    let (_idle, _served) = served(&connections, 100).await;
    let (mut partial, _served) = served(&connections, 100).await;
    partial.write_all(b"GET / HT").await.unwrap();
    let (mut stalled, _served) = served(&connections, 100).await;
    stalled.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let (mut send, _served) = http2(&connections, 0).await;
    let answer = send.send_request(request("/")).await.unwrap();
    let began = Instant::now();
    connections.shut_down();
    connections.until_closed().await;
    assert!((3..=7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(answer.into_body().collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_client_that_has_closed_its_side_is_answered() {
    let connections = OpenConnections::new(100);
    let (mut client, served) = served(&connections, 1 << 20).await;
    client.write_all(b"GET /5 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nxxxxx"), "{answer}");
    served.await.unwrap();
}

/// hyper takes no more of an HTTP/1 body than its length, and drops it before its end.
#[tokio::test]
async fn a_client_has_not_gone_if_hyper_has_the_whole_body() {
    for (taken, is_gone) in [(0, true), (1, false)] {
        let answer = Arc::new(ConnectionState::new(Instant::now())).begin_request(Version::HTTP_11);
        let admission = Admission::new(1, 1);
        let request = RequestState::new(admission.admit(&admission.plugin(None)).unwrap(), &answer);
        answer.hold(Held::Request(Arc::clone(&request)));
        let mut body = AnswerBody::new(body(5), answer, Some(5));
        for _ in 0..taken {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(request.may_be_the_clients_fault(false), is_gone);
    }
}

/// A body of frames of one byte.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

/// A part is added while the one before it is taken, on two threads as in the host.
#[tokio::test]
async fn an_answer_with_untaken_bytes_always_has_a_deadline() {
    const PARTS: usize = 20_000;
    let answer = Arc::new(ConnectionState::new(Instant::now())).begin_request(Version::HTTP_2);
    let mut body = AnswerBody::new(Endless.boxed_unsync(), Arc::clone(&answer), None);
    let taking = Arc::new(Mutex::new(None));
    let taken = Arc::new(AtomicUsize::new(0));
    let taker = std::thread::spawn({
        let (taking, taken) = (Arc::clone(&taking), Arc::clone(&taken));
        move || {
            let mut idle = 0_u32;
            while taken.load(Ordering::Acquire) < PARTS - 1 {
                let part = taking.lock().unwrap().take();
                if part.is_some() {
                    drop(part);
                    taken.fetch_add(1, Ordering::Release);
                    idle = 0;
                }
                idle += 1;
                match idle {
                    0..1000 => std::hint::spin_loop(),
                    // There may be one processor only.
                    _ => std::thread::yield_now(),
                }
            }
        }
    });
    let mut part = body.frame().await.unwrap().unwrap();
    for n in 1..PARTS {
        *taking.lock().unwrap() = Some(part);
        // At a different moment of the other thread each time.
        (0..n % 64).for_each(|_| std::hint::spin_loop());
        part = body.frame().await.unwrap().unwrap();
        while taken.load(Ordering::Acquire) < n {
            std::thread::yield_now();
        }
        assert_ne!(answer.untaken_since(), NEVER, "after {n} parts");
    }
    taker.join().unwrap();
    drop(part);
    assert_eq!(answer.untaken_since(), NEVER);
}

/// An upload in frames of one byte.
struct Tiny(usize);

impl Body for Tiny {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        Poll::Ready(self.0.checked_sub(1).map(|left| {
            self.0 = left;
            Ok(Frame::data(Bytes::from_static(b"x")))
        }))
    }
}

/// h2 closes a connection with about 2,000 unread frames of one byte. The client may send 65,535 before any is read.
#[tokio::test(start_paused = true)]
async fn small_frames_that_are_read_late_or_never_wait_and_close_no_connection() {
    let connections = OpenConnections::new(100);
    let (client, host) = duplex(1 << 20);
    let open = connections.open().await.expect("there is room");
    let respond = |request: Request<FollowedBody>, answer: Arc<Answer>| async move {
        let (head, mut upload) = request.into_parts();
        let mut received = 0;
        match head.uri.path() {
            "/late" => {
                sleep(Duration::from_secs(10)).await;
                while let Some(frame) = upload.frame().await {
                    received += frame.unwrap().into_data().unwrap().len();
                    // Slower than the client.
                    if received % 1000 == 0 {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            "/never" => sleep(Duration::from_secs(10)).await,
            "/refuse" => drop(upload),
            _ => {}
        }
        Response::new(AnswerBody::new(body(received), answer, None))
    };
    tokio::spawn(serve(host, open, Timeouts::default(), respond));
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(connection);
    for (path, len, received) in [
        ("/late", 200_000, 200_000),
        ("/never", 200_000, 0),
        ("/refuse", 200_000, 0),
        ("/late", 100_000, 100_000),
        ("/", 0, 0),
    ] {
        let request = Request::post(format!("http://h{path}")).body(Tiny(len)).unwrap();
        send.ready().await.unwrap_or_else(|error| panic!("before {path}: {error:?}"));
        let answer = send.send_request(request).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer.len(), received, "{path}");
    }
    assert!(!connection.is_finished());
}
