//! What grows with the number of worker threads of one host. Counted rather than timed: the threads are more than the
//! cores.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_tests::{Kind, Server, wait_for};

use crate::cores::Cores;
use crate::hosts::{self, Host};
use crate::keys::{self, Order};
use crate::load::{Load, Round, Stop};
use crate::table::{self, quantile};
use crate::usage::Usage;

const WORKERS: [usize; 4] = [1, 2, 4, 8];
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(800);

/// The requests that miss the same key at once, of which one computes for 200 ms. Below `max_concurrent_requests`.
const STAMPEDE: usize = 240;

/// The keys that they miss, one after the other.
const STAMPEDES: usize = 3;

const COLUMNS: [&str; 9] = [
    "requests/s",
    "processor time",
    "of it kernel",
    "waits",
    "preemptions",
    "futex calls",
    "TLB shootdowns",
    "page faults",
    "ratio of the time",
];

/// The values that were computed.
static COMPUTED: AtomicUsize = AtomicUsize::new(0);

/// What the requests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    Hello,
    Hit,
    /// All requests miss the same key, and then the next one.
    Stampede,
}

impl Workload {
    fn plugin(self) -> &'static str {
        match self {
            Self::Hello => "http_hello",
            Self::Hit | Self::Stampede => "http",
        }
    }

    /// Runs a round. `host` distinguishes the keys of the hosts that share a server.
    fn run(self, address: std::net::SocketAddr, cores: &Cores, host: &str) -> Round {
        let (path, check): (_, fn(&[u8])) = match self {
            Self::Hello => ("/".to_owned(), |body| assert_eq!(body, b"hello\n")),
            Self::Hit => ("/compute/key".to_owned(), is_computed),
            Self::Stampede => (format!("/compute/{host}-{{n}}"), is_computed),
        };
        let (connections, stop) = match self {
            Self::Hello | Self::Hit => (CONNECTIONS, Stop::After(ROUND)),
            Self::Stampede => (STAMPEDE, Stop::Requests(STAMPEDES)),
        };
        let before = COMPUTED.load(Ordering::Relaxed);
        let addresses = &[address];
        let round = Load { addresses, path: &path, connections, stop, cores: &cores.generator, check }.run();
        if self == Self::Stampede {
            assert_eq!(COMPUTED.load(Ordering::Relaxed) - before, STAMPEDES, "each value is computed once");
        }
        round
    }
}

fn is_computed(body: &[u8]) {
    match body.rsplit(|byte| *byte == b' ').next() {
        Some(b"true") => _ = COMPUTED.fetch_add(1, Ordering::Relaxed),
        Some(b"false") => {}
        _ => panic!("{}", String::from_utf8_lossy(body)),
    }
}

/// The measurements of one host, by round.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    times: Vec<f64>,
    usage: Vec<Usage>,
    requests: f64,
    /// A count for each request, if `perf` can count.
    futex_calls: Option<f64>,
}

pub(crate) fn workers() {
    let cores = Cores::all();
    table::heading(&format!("A request by worker threads, on {}: what one process uses for it", cores.name()));
    table::columns(&COLUMNS);
    let expire = "default_expire = \"1h\"\n";
    let ram = format!("[caches.c]\ntype = \"ram\"\n{expire}");
    measure("hello", Workload::Hello, "", &cores);
    measure("hit in RAM", Workload::Hit, &ram, &cores);
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let valkey = format!("{}{expire}", server.cache("c"));
    measure("hit on Valkey", Workload::Hit, &valkey, &cores);
    measure("stampede on Valkey", Workload::Stampede, &valkey, &cores);
}

/// Look-ups in RAM by threads, without a host.
pub(crate) async fn threads() {
    let cores = Cores::all().count;
    table::heading(&format!(
        "Look-ups in RAM by up to 8 threads on {cores} cores, 100 bytes among 100,000 keys: time / all hits"
    ));
    keys::threads(&[(Order::Zipf, "Zipf")], &WORKERS, 3).await;
}

fn measure(name: &str, workload: Workload, config: &str, cores: &Cores) {
    let hosts = WORKERS.map(|workers| Host::larder(hosts::larder(), config, workload.plugin(), cores, Some(workers)));
    let mut measured = WORKERS.map(|_| Measured::default());
    for round in 0..=ROUNDS {
        for nth in 0..hosts.len() {
            let nth = if round % 2 == 0 { nth } else { hosts.len() - 1 - nth };
            let (host, one) = (&hosts[nth], &mut measured[nth]);
            let before = Usage::of(host.id());
            let done = workload.run(host.address(), cores, &format!("{nth}-{round}"));
            let usage = Usage::of(host.id()) - before;
            // The first round is a warm-up.
            if round > 0 {
                let requests = done.requests() as f64;
                one.rates.push(done.rate());
                one.times.push(usage.time() / requests);
                one.usage.push(usage);
                one.requests += requests;
            }
        }
    }
    for (host, one) in hosts.iter().zip(&mut measured) {
        let Some(counter) = FutexCalls::count(host.id()) else { break };
        let requests = workload.run(host.address(), cores, &format!("futex-{}", host.id())).requests() as f64;
        one.futex_calls = Some(counter.end() / requests);
    }
    for (nth, (workers, one)) in WORKERS.iter().zip(&measured).enumerate() {
        let all: Usage = one.usage.iter().copied().sum();
        let each = |count: f64| format!("{:.2}", count / one.requests);
        let micros = |seconds: f64| format!("{:.1} µs", seconds / one.requests * 1e6);
        let rate = quantile(&one.rates, 0.5);
        let numbers = [
            format!("{rate:.0}"),
            micros(all.time()),
            micros(all.kernel),
            each(all.waits),
            each(all.preemptions),
            one.futex_calls.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.2}")),
            each(all.shootdowns),
            each(all.faults),
        ];
        let ratios: Vec<f64> = one.times.iter().zip(&measured[0].times).map(|(one, first)| one / first).collect();
        let what = format!("{workers} worker{}", if *workers == 1 { "" } else { "s" });
        let place = if nth == 0 { name } else { "" };
        table::measured(place, &what, &numbers, quantile(&ratios, 0.5), &micros(all.time()));
    }
}

/// A `perf` that counts the calls of `futex` of a process: each is a thread that waits for another, or wakes one.
struct FutexCalls {
    perf: Child,
    report: tempfile::NamedTempFile,
}

impl FutexCalls {
    /// Returns `None` if there is no `perf`, or it has no access to the tracepoints of system calls.
    fn count(process: u32) -> Option<Self> {
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut perf = Command::new("perf")
            .args(["stat", "-x,", "-e", "syscalls:sys_enter_futex", "-p", &process.to_string(), "-o"])
            .arg(report.path())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let is_event =
            |file: &Path| std::fs::read_link(file).is_ok_and(|to| to.to_string_lossy().ends_with("[perf_event]"));
        let has_events = |perf: &Child| {
            let files = std::fs::read_dir(format!("/proc/{}/fd", perf.id()));
            files.is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| is_event(&file.path()))))
        };
        let counts = wait_for("perf counts, or fails", || {
            perf.try_wait().unwrap().map(|_| false).or_else(|| has_events(&perf).then_some(true))
        });
        if !counts {
            println!("futex calls are not counted: `perf` cannot (tracefs must be mounted, and readable)");
        }
        counts.then_some(Self { perf, report })
    }

    /// Ends the count, and returns it.
    fn end(mut self) -> f64 {
        assert!(Command::new("kill").args(["-INT", &self.perf.id().to_string()]).status().unwrap().success());
        self.perf.wait().unwrap();
        let report = std::fs::read_to_string(self.report.path()).unwrap();
        let line = report.lines().find(|line| line.contains("sys_enter_futex")).unwrap_or_else(|| panic!("{report}"));
        line.split(',').next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{report}"))
    }
}
