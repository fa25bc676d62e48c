//! What `larder serve` does under load, release build: against `wasmtime serve` with the same component, in turns within
//! one run; with a computation that is cached for a second in two processes that share a Valkey, whose hits and
//! computations are counted; and its memory over many requests.
//!
//! `WASMTIME` names a `wasmtime` program to compare with. `REQUESTS` is how many requests the memory is watched over.

#![allow(missing_docs, reason = "nobody uses a bench as a library")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_tests::{Answer, Client, Kind, Larder, Server, Serving, guest};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);

/// How long each request of a round took, sorted, and the round itself.
struct Round {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Round {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        self.latencies[self.latencies.len() * percent / 100].as_secs_f64() * 1e3
    }
}

/// Asks on many connections at once, until the round is over; `check` looks at each answer.
async fn load(addresses: &[SocketAddr], path: &str, round: Duration, check: fn(&Answer)) -> Round {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (address, path) = (addresses[n % addresses.len()], path.to_owned());
        clients.spawn(async move {
            let client = Client::connect(address).await;
            let mut latencies = Vec::new();
            while began.elapsed() < round {
                let asked = Instant::now();
                check(&client.get(&path).await.unwrap());
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    Round { latencies, took: began.elapsed() }
}

fn says_hello(answer: &Answer) {
    assert_eq!(answer, &Answer::ok("hello\n"));
}

fn larder(config: &str, plugin: &str) -> Serving {
    // `wasmtime serve` writes no access log.
    Serving::start_with(Larder::serve().config(config).env("LARDER_LOG", "warn").arg(guest(plugin)))
}

/// A `wasmtime serve`, which ends with this value.
struct Wasmtime(Child, SocketAddr);

impl Wasmtime {
    fn start(program: &str) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "-Scli", "--addr", "127.0.0.1:0"]).arg(guest("http_hello"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("`WASMTIME` names a program");
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_end_matches('/').rsplit('/').next().unwrap();
        let address = address.parse().unwrap_or_else(|_| panic!("`{line}` names no address"));
        Self(child, address)
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
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
        load(&[*address], "/", Duration::from_secs(1), says_hello).await;
    }
    let mut rounds: Vec<Vec<Round>> = hosts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, address), rounds) in hosts.iter().zip(&mut rounds) {
            rounds.push(load(&[*address], "/", ROUND, says_hello).await);
        }
    }
    println!("hello on {CONNECTIONS} connections, medians of {ROUNDS} rounds of {ROUND:?} in turns");
    for ((name, _), rounds) in hosts.iter().zip(&rounds) {
        let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        let (rate, p50, p99) = (of(Round::rate), of(|round| round.percentile(50)), of(|round| round.percentile(99)));
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
    let addresses = hosts.each_ref().map(Serving::address);
    let check = |answer: &Answer| match answer.body.as_str() {
        "key true" => _ = COMPUTED.fetch_add(1, Ordering::Relaxed),
        "key false" => {}
        _ => panic!("{answer:?}"),
    };
    let round = load(&addresses, "/compute/key", 2 * ROUND, check).await;
    let (p50, p99) = (round.percentile(50), round.percentile(99));
    let computed = COMPUTED.load(Ordering::Relaxed);
    let hits = (round.latencies.len() - computed) as f64 / round.took.as_secs_f64();
    println!("a value that takes 200 ms and lasts 1 s, {CONNECTIONS} connections to two processes that share a Valkey");
    println!("  {hits:>8.0} hits/s  p50 {p50:.2} ms  p99 {p99:.2} ms; computed {computed} times in {:.1?}", round.took);
    // Less time than that does not lie between two computations.
    assert!(computed as f64 <= round.took.as_secs_f64() / 1.2 + 1.0, "it was computed too often");
}

async fn memory() {
    let all: usize = std::env::var("REQUESTS").map_or(100_000, |all| all.parse().expect("`REQUESTS` is a number"));
    let mut serving = larder("", "http_hello");
    let status = format!("/proc/{}/status", serving.running().id());
    let resident = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.trim_start_matches("VmRSS:").trim().to_owned()
    };
    let address = serving.address();
    println!("memory of larder serve over {all} requests");
    for tenth in 1..=10 {
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(async move {
                let client = Client::connect(address).await;
                for _ in 0..all / 10 / CONNECTIONS {
                    says_hello(&client.get("/").await.unwrap());
                }
            });
        }
        clients.join_all().await;
        println!("  after {tenth:>2} tenths: {}", resident());
    }
}

#[tokio::main]
async fn main() {
    hello().await;
    cached().await;
    memory().await;
}
