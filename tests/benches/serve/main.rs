//! Load tests of `larder serve`, in the release build.
//!
//! - Throughput and latency, compared with `wasmtime serve` and the same component in interleaved rounds.
//! - Hits and computations of a value that two processes cache for a second on one Valkey server.
//! - Memory over many requests.
//!
//! `WASMTIME` is the path of a `wasmtime` program to compare with. `REQUESTS` is the number of requests of the memory
//! test.

#![allow(missing_docs, reason = "a benchmark is not a library")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_tests::{Client, HttpResponse, Kind, Larder, ServeProcess, Server, guest};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);

/// The measurements of one round.
struct Round {
    /// The latencies of the requests, sorted.
    latencies: Vec<Duration>,
    duration: Duration,
}

impl Round {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.duration.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        self.latencies[self.latencies.len() * percent / 100].as_secs_f64() * 1e3
    }
}

/// Sends requests on [`CONNECTIONS`] concurrent connections for a duration. `check` asserts on each response.
async fn load(addresses: &[SocketAddr], path: &str, duration: Duration, check: fn(&HttpResponse)) -> Round {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (address, path) = (addresses[n % addresses.len()], path.to_owned());
        clients.spawn(async move {
            let client = Client::connect(address).await;
            let mut latencies = Vec::new();
            while start.elapsed() < duration {
                let sent = Instant::now();
                check(&client.get(&path).await.unwrap());
                latencies.push(sent.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    Round { latencies, duration: start.elapsed() }
}

fn is_hello(answer: &HttpResponse) {
    assert_eq!(answer, &HttpResponse::ok("hello\n"));
}

fn larder(config: &str, plugin: &str) -> ServeProcess {
    // `wasmtime serve` writes no access log.
    ServeProcess::start_with(Larder::serve().config(config).env("LARDER_LOG", "warn").arg(guest(plugin)))
}

/// A `wasmtime serve` process. Dropping this value kills it.
struct Wasmtime(Child, SocketAddr);

impl Wasmtime {
    fn start(program: &str) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "-Scli", "--addr", "127.0.0.1:0"]).arg(guest("http_hello"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("`WASMTIME` is the path of a program");
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_end_matches('/').rsplit('/').next().unwrap();
        let address = address.parse().unwrap_or_else(|_| panic!("no address in `{line}`"));
        Self(child, address)
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        let _already_dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn hello() {
    let ours = larder("", "http_hello");
    let theirs = std::env::var("WASMTIME").ok().map(|program| Wasmtime::start(&program));
    let mut hosts = vec![("larder serve", ours.address())];
    hosts.extend(theirs.iter().map(|Wasmtime(_, address)| ("wasmtime serve", *address)));
    for (_, address) in &hosts {
        load(&[*address], "/", Duration::from_secs(1), is_hello).await;
    }
    let mut rounds: Vec<Vec<Round>> = hosts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, address), rounds) in hosts.iter().zip(&mut rounds) {
            rounds.push(load(&[*address], "/", ROUND, is_hello).await);
        }
    }
    println!("hello on {CONNECTIONS} connections, medians of {ROUNDS} interleaved rounds of {ROUND:?}");
    for ((name, _), rounds) in hosts.iter().zip(&rounds) {
        let median_of = |measure: fn(&Round) -> f64| median(rounds.iter().map(measure).collect());
        let (p50, p99) = (median_of(|round| round.percentile(50)), median_of(|round| round.percentile(99)));
        let rate = median_of(Round::rate);
        println!("  {name:<15} {rate:>8.0} requests/s  p50 {p50:.2} ms  p99 {p99:.2} ms");
    }
    if let [ours, theirs] = rounds.as_slice() {
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours.rate() / theirs.rate()).collect();
        println!("  requests/s, larder to wasmtime: {:.2}", median(ratios));
    }
}

async fn cached() {
    static COMPUTED: AtomicUsize = AtomicUsize::new(0);
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = format!("{}default_expire = 1\n", server.cache("c"));
    let hosts = [larder(&config, "http"), larder(&config, "http")];
    let addresses = hosts.each_ref().map(ServeProcess::address);
    let check = |answer: &HttpResponse| match answer.body.as_str() {
        "key true" => _ = COMPUTED.fetch_add(1, Ordering::Relaxed),
        "key false" => {}
        _ => panic!("{answer:?}"),
    };
    let round = load(&addresses, "/compute/key", 2 * ROUND, check).await;
    let (p50, p99) = (round.percentile(50), round.percentile(99));
    let computed = COMPUTED.load(Ordering::Relaxed);
    let hits = (round.latencies.len() - computed) as f64 / round.duration.as_secs_f64();
    println!("a value computed in 200 ms, cached for 1 s; {CONNECTIONS} connections, two processes, one Valkey server");
    println!(
        "  {hits:>8.0} hits/s  p50 {p50:.2} ms  p99 {p99:.2} ms; computed {computed} times in {:.1?}",
        round.duration
    );
    // A computation of 200 ms and an expiry after 1 s are at least 1.2 s per computation.
    assert!(computed as f64 <= round.duration.as_secs_f64() / 1.2 + 1.0, "the value was computed too often");
}

async fn memory() {
    let requests: usize =
        std::env::var("REQUESTS").map_or(100_000, |requests| requests.parse().expect("`REQUESTS` is a number"));
    let mut serving = larder("", "http_hello");
    let status = format!("/proc/{}/status", serving.process().id());
    let resident = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.trim_start_matches("VmRSS:").trim().to_owned()
    };
    let address = serving.address();
    println!("memory of larder serve over {requests} requests");
    for tenth in 1..=10 {
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(async move {
                let client = Client::connect(address).await;
                for _ in 0..requests / 10 / CONNECTIONS {
                    is_hello(&client.get("/").await.unwrap());
                }
            });
        }
        clients.join_all().await;
        println!("  after {tenth:>2}/10: {}", resident());
    }
}

#[tokio::main]
async fn main() {
    hello().await;
    cached().await;
    memory().await;
}
