//! The load generator: HTTP/1.1 connections that each send a request, wait for the response and send the next.
//!
//! It shares the machine with the host, so it costs little: one thread, a request that is rendered once, and a parser
//! that looks for the status and the length. Its processor time is measured.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cores;

/// A load. The connections are spread over the addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) addresses: &'a [SocketAddr],
    /// `{n}` in it is the number of the request on its connection.
    pub(crate) path: &'a str,
    pub(crate) connections: usize,
    pub(crate) stop: Stop,
    /// The cores of the generator, as `taskset` writes them.
    pub(crate) cores: &'a str,
    /// Panics unless the body is as expected.
    pub(crate) check: fn(&[u8]),
}

/// When a connection has sent its last request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    After(Duration),
    /// After this number of requests of each connection.
    Requests(usize),
}

/// The measurements of one round.
#[derive(Debug)]
pub(crate) struct Round {
    /// The latencies of the requests, sorted.
    latencies: Vec<Duration>,
    /// From the first request to the last response, when all connections were open.
    pub(crate) elapsed: Duration,
    /// The processor time of the generator.
    pub(crate) generator: Duration,
}

impl Round {
    pub(crate) fn requests(&self) -> usize {
        self.latencies.len()
    }

    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// The percentile of the latencies, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.latencies[self.latencies.len() * percent / 100].as_secs_f64() * 1e3
    }
}

impl Load<'_> {
    /// Runs the load in a thread of its own.
    pub(crate) fn run(self) -> Round {
        self.run_over(&[])
    }

    /// [`Load::run`] with `{n}` from these numbers, if there are any. Each connection begins at another one.
    pub(crate) fn run_over(self, numbers: &[usize]) -> Round {
        let run = || self.run_here(numbers);
        std::thread::scope(|scope| scope.spawn(run).join().expect("all responses are as expected"))
    }

    fn run_here(self, numbers: &[usize]) -> Round {
        cores::pin_this_thread(self.cores);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let render = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: host.example\r\n\r\n").into_bytes();
            let requests: Arc<[Vec<u8>]> = match self.stop {
                Stop::Requests(count) => {
                    (0..count).map(|n| render(&self.path.replace("{n}", &n.to_string()))).collect()
                }
                Stop::After(_) if numbers.is_empty() => Arc::new([render(self.path)]),
                Stop::After(_) => numbers.iter().map(|n| render(&self.path.replace("{n}", &n.to_string()))).collect(),
            };
            let first = |nth: usize| if numbers.is_empty() { 0 } else { nth * requests.len() / self.connections };
            let mut streams = Vec::new();
            for address in self.addresses.iter().cycle().take(self.connections) {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                streams.push(stream);
            }
            let (start, before) = (Instant::now(), cores::time_of_this_thread());
            let mut clients = JoinSet::new();
            for (nth, stream) in streams.into_iter().enumerate() {
                clients.spawn(client(stream, Arc::clone(&requests), first(nth), start, self.stop, self.check));
            }
            let mut latencies: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
            let (elapsed, generator) = (start.elapsed(), cores::time_of_this_thread().saturating_sub(before));
            latencies.sort_unstable();
            Round { latencies, elapsed, generator }
        })
    }
}

/// Sends requests on one connection, from `first` on, and returns their latencies.
async fn client(
    mut stream: TcpStream,
    requests: Arc<[Vec<u8>]>,
    first: usize,
    start: Instant,
    stop: Stop,
    check: fn(&[u8]),
) -> Vec<Duration> {
    let (mut latencies, mut buffer) = (Vec::new(), Vec::with_capacity(4096));
    let mut sent = Instant::now();
    loop {
        match stop {
            Stop::After(duration) if sent.duration_since(start) >= duration => return latencies,
            Stop::Requests(count) if latencies.len() == count => return latencies,
            _ => {}
        }
        stream.write_all(&requests[(first + latencies.len()) % requests.len()]).await.unwrap();
        buffer.clear();
        let response = loop {
            let read = stream.read_buf(&mut buffer).await.unwrap();
            assert!(read > 0, "the host closed a connection after `{}`", String::from_utf8_lossy(&buffer));
            if let Some(response) = Response::parse(&buffer) {
                break response;
            }
        };
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&buffer));
        check(&response.body);
        let now = Instant::now();
        latencies.push(now - sent);
        sent = now;
    }
}

/// A response that has arrived in full.
#[derive(Debug, PartialEq, Eq)]
struct Response<'a> {
    status: u16,
    body: Cow<'a, [u8]>,
}

impl<'a> Response<'a> {
    /// Returns `None` if more bytes are to come. Panics if the bytes are no response to one request.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = split(bytes, b"\r\n\r\n")?;
        let head = std::str::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in `{head}`"));
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: `{line}`"));
            if name.eq_ignore_ascii_case("content-length") {
                let length: usize = value.trim().parse().expect("a length");
                assert!(rest.len() <= length, "the body is longer than `content-length`");
                return (rest.len() == length).then_some(Self { status, body: Cow::Borrowed(rest) });
            }
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Some(Self { status, body: Cow::Owned(join_chunks(rest)?) });
            }
        }
        panic!("a body without a length: `{head}`");
    }
}

/// Joins the chunks of a body, or returns `None` if more are to come.
fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (size, after) = split(rest, b"\r\n")?;
        let size = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("the size of a chunk");
        let (chunk, end) = after.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = end.strip_prefix(b"\r\n")?;
        if size == 0 {
            assert!(rest.is_empty(), "bytes after the last chunk");
            return Some(body);
        }
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let position = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..position], &bytes[position + at.len()..]))
}
