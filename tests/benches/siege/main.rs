//! `larder serve` under siege, in the release build: how long others wait while plugins, clients and readers misbehave.
//!
//! Each siege begins anew with one host. While it lasts, the health check is asked on the operator's port and a quiet
//! plugin on the host's port; then SIGTERM is sent. If one of them takes longer than it may, the benchmark fails.
//! `LARDER_PROGRAM` is the path of another build to compare with.

#![allow(missing_docs, reason = "a benchmark is not a library")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use larder_tests::{Client, Kind, Server, guest, program};
use tokio::task::JoinSet;

/// How long one siege is measured.
const SIEGE: Duration = Duration::from_secs(8);

/// The longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bound on the 99th percentile of the health check.
const MAX_HEALTH: Duration = Duration::from_millis(50);

/// How much the 99th percentile of the quiet plugin may exceed that without a siege.
const MAX_DELAY: Duration = Duration::from_millis(100);

/// The bound on the time from SIGTERM until the port is closed.
const MAX_TERMINATION: Duration = Duration::from_secs(1);

/// What misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Siege {
    Nothing,
    /// This many requests of one plugin compute.
    Spinning(usize),
    /// This many requests of one plugin call the host for random bytes.
    HostCalls(usize),
    /// A plugin prints into a pipe that is not read, and each request is logged to one.
    Unread,
    /// This many connections send nothing.
    Silent(usize),
    /// The server of the cache does not answer, and a plugin asks it.
    StoppedServer,
    All,
}

/// A host whose standard output is read only up to its addresses, and whose log is not read.
struct Host {
    child: Child,
    address: SocketAddr,
    metrics: SocketAddr,
    _stdout: BufReader<std::process::ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start(server: Option<&Server>) -> Self {
        let path = guest("http");
        let table = |name: &str| format!("[plugins.{name}]\npath = {path:?}\nroute = \"/{name}\"\n");
        let cache = server.map_or_else(|| "[caches.c]\ntype = \"ram\"\n".to_owned(), |server| server.cache("c"));
        let limits = "[sandbox]\ntimeout = \"60s\"\nmax_cpu_time = \"60s\"\n";
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("larder.toml");
        std::fs::write(&config, [cache, table("busy"), table("quiet"), limits.to_owned()].concat()).unwrap();
        let larder = std::env::var_os("LARDER_PROGRAM").map_or_else(program, Into::into);
        let mut child = Command::new(larder)
            .args(["serve", "--addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut address = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let address = line.trim().trim_end_matches("/metrics").rsplit('/').next().unwrap();
            address.parse().unwrap_or_else(|_| panic!("no address in `{line}`"))
        };
        let (address, metrics) = (address(), address());
        Self { child, address, metrics, _stdout: stdout, _folder: folder }
    }

    /// Sends SIGTERM and returns the time until the port is closed.
    async fn terminate(&mut self) -> Option<Duration> {
        let sent = Instant::now();
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        while sent.elapsed() < PATIENCE {
            // A longer wait would count as the host's time if its queue of new connections is full.
            let closed = match TcpStream::connect_timeout(&self.address, Duration::from_millis(100)) {
                Ok(_) => false,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            };
            if closed {
                return Some(sent.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The times of requests that are sent one after the other, each after a pause, until the siege ends. A request without
/// an answer in time counts with [`PATIENCE`].
async fn ask(address: SocketAddr, path: &'static str) -> Vec<Duration> {
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < SIEGE {
        let sent = Instant::now();
        let asked = async {
            let client = Client::try_connect(address).await?;
            client.get(path).await.ok().filter(|answer| answer.status == 200)
        };
        let answered = tokio::time::timeout(PATIENCE, asked).await.ok().flatten().is_some();
        times.push(if answered { sent.elapsed() } else { PATIENCE });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort_unstable();
    times
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn milliseconds(times: &[Duration]) -> String {
    let [median, p99, longest] = [50, 99, 100].map(|percent| match percentile(times, percent) {
        time if time >= PATIENCE => "none".to_owned(),
        time => format!("{:.1}", time.as_secs_f64() * 1e3),
    });
    format!("{median:>8} {p99:>8} {longest:>8}")
}

/// What takes longer than it may. `alone` is the 99th percentile of the quiet plugin without a siege.
fn violations(health: &[Duration], quiet: &[Duration], ended: Option<Duration>, alone: Duration) -> Vec<String> {
    let (health, quiet) = (percentile(health, 99), percentile(quiet, 99));
    let checks = [
        ("the 99th percentile of /healthz", Some(health), MAX_HEALTH),
        ("the 99th percentile of another plugin", Some(quiet), alone + MAX_DELAY),
        ("SIGTERM", ended, MAX_TERMINATION),
    ];
    let exceeded = checks.into_iter().filter(|(_, time, max)| time.is_none_or(|time| time > *max));
    let took = |time: Option<Duration>| time.map_or("no end in sight".to_owned(), |time| format!("{time:.1?}"));
    exceeded.map(|(what, time, max)| format!("{what}: {}, and may take {max:.1?}", took(time))).collect()
}

/// Starts what misbehaves. It goes on until the set is dropped.
async fn lay(siege: Siege, host: &Host, server: Option<&Server>) -> JoinSet<()> {
    let mut besiegers = JoinSet::new();
    let many = |besiegers: &mut JoinSet<()>, count: usize, path: &'static str| {
        let address = host.address;
        for _ in 0..count {
            besiegers.spawn(async move {
                loop {
                    if let Some(client) = Client::try_connect(address).await {
                        let _ends_or_fails = client.get(path).await;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    };
    let all = siege == Siege::All;
    match siege {
        Siege::Spinning(count) => many(&mut besiegers, count, "/busy/do/spin"),
        _ if all => many(&mut besiegers, 20, "/busy/do/spin"),
        _ => {}
    }
    match siege {
        Siege::HostCalls(count) => many(&mut besiegers, count, "/busy/do/random/1048576"),
        _ if all => many(&mut besiegers, 20, "/busy/do/random/1048576"),
        _ => {}
    }
    if all || siege == Siege::Unread {
        many(&mut besiegers, 8, "/busy/do/chatter/8192");
    }
    if all || matches!(siege, Siege::Silent(_)) {
        let count = if let Siege::Silent(count) = siege { count } else { 10_000 };
        let address = host.address;
        besiegers.spawn(async move {
            let mut silent = Vec::new();
            for _ in 0..count {
                silent.extend(tokio::net::TcpStream::connect(address).await);
            }
            std::future::pending::<()>().await;
        });
    }
    if let Some(server) = server {
        server.freeze();
        many(&mut besiegers, 8, "/busy/do/visit/key");
    }
    besiegers
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    println!("milliseconds of 3 x 3: median, 99th percentile, longest; SIGTERM: until the port is closed");
    println!("{:<18}{:^26} | {:^26} | SIGTERM", "", "/healthz", "another plugin");
    let sieges = [
        Siege::Nothing,
        Siege::Spinning(2),
        Siege::Spinning(20),
        Siege::Spinning(224),
        Siege::HostCalls(20),
        Siege::Unread,
        Siege::Silent(10_000),
        Siege::StoppedServer,
        Siege::All,
    ];
    let mut alone = None;
    let mut violated = Vec::new();
    for siege in sieges {
        let server = matches!(siege, Siege::StoppedServer | Siege::All).then(|| Server::start(Kind::Valkey)).flatten();
        let mut host = Host::start(server.as_ref());
        let besiegers = lay(siege, &host, server.as_ref()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (health, quiet) = tokio::join!(ask(host.metrics, "/healthz"), ask(host.address, "/quiet/do/hello"));
        let ended = host.terminate().await;
        let took = ended.map_or("none".to_owned(), |time| format!("{:.0}", time.as_secs_f64() * 1e3));
        println!("{:<18}{} | {} | {took:>7}", format!("{siege:?}"), milliseconds(&health), milliseconds(&quiet));
        let alone = *alone.get_or_insert_with(|| percentile(&quiet, 99));
        violated.extend(violations(&health, &quiet, ended, alone).into_iter().map(|what| format!("{siege:?}: {what}")));
        drop(besiegers);
        if let Some(server) = &server {
            server.thaw();
        }
    }
    if violated.is_empty() {
        return ExitCode::SUCCESS;
    }
    violated.iter().for_each(|what| eprintln!("too long in {what}"));
    ExitCode::FAILURE
}
