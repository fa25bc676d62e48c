//! `larder serve` and `wasmtime serve` in turns, with the same component.

// Decision: docs/decisions/0079-larder-serve-is-measured-in-turns-beside-wasmtime-serve.md

use std::time::Duration;

use crate::cores::Cores;
use crate::hosts::{self, Host};
use crate::load::{Load, Round, Stop};
use crate::table::{self, quantile};
use crate::usage::{Usage, resident};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(2_000);
const WARM_UP: Duration = Duration::from_millis(500);

/// Instances that are used again, with the defaults.
const REUSE: &str = "reuse = {}";

/// The switches with which `wasmtime serve` is fastest, with an instance for each request: no page of an instance is given
/// back, so that the next one has no page faults. More of a memory, other sizes of the pool, batches of decommits and what
/// is kept of a stack, which it does not clear, make no difference.
const BEST_POOL: &[&str] = &[
    "-Opooling-allocator=y",
    "-Opooling-memory-keep-resident=262144",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-pagemap-scan=y",
];

/// The switches with which it uses instances again, as often as Larder does by default.
const THEIR_REUSE: &[&str] = &["--max-instance-reuse-count=1000", "--idle-instance-timeout=30s"];

const COLUMNS: [&str; 8] =
    ["requests/s", "p50", "p99", "processor time", "of it kernel", "memory", "load generator", "ratio"];

/// One of the compared programs.
struct Candidate {
    name: &'static str,
    is_ours: bool,
    start: Box<dyn Fn(&Cores) -> Host>,
}

/// The measurements of a candidate, by round.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    /// In milliseconds.
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Processor time of a request, in seconds.
    time: Vec<f64>,
    kernel: Vec<f64>,
    /// The part of one core that the load generator used.
    generator: Vec<f64>,
    resident: f64,
}

impl Measured {
    fn add(&mut self, round: &Round, usage: Usage) {
        let requests = round.requests() as f64;
        self.rates.push(round.rate());
        self.p50.push(round.percentile(50));
        self.p99.push(round.percentile(99));
        self.time.push(usage.time() / requests);
        self.kernel.push(usage.kernel / requests);
        self.generator.push(round.generator.as_secs_f64() / round.elapsed.as_secs_f64());
    }

    fn ratio(&self, to: &Self) -> f64 {
        let ratios: Vec<f64> = self.rates.iter().zip(&to.rates).map(|(one, other)| one / other).collect();
        median(&ratios)
    }
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Compares all programs with a component that every host can run.
pub(crate) fn hello() {
    let plugin = "http_hello";
    let mut candidates = theirs(
        plugin,
        [
            ("wasmtime serve", vec![]),
            ("wasmtime serve, pool switches", BEST_POOL.to_vec()),
            ("wasmtime serve, pool switches, reuse", [BEST_POOL, THEIR_REUSE].concat()),
        ],
    );
    candidates.extend(ours(plugin, ""));
    beside("A hello component", "Requests/s", &candidates);
}

/// The same of WASI 0.3, whose instances answer many requests by default in both programs.
pub(crate) fn concurrent() {
    let plugin = "http_hello_concurrent";
    let mut candidates =
        theirs(plugin, [("wasmtime serve", vec![]), ("wasmtime serve, pool switches", BEST_POOL.to_vec())]);
    candidates.extend(ours(plugin, ""));
    beside("A hello component of WASI 0.3", "Requests/s of WASI 0.3", &candidates);
}

/// `wasmtime serve` with each of these options, if there is one.
fn theirs<const N: usize>(plugin: &'static str, options: [(&'static str, Vec<&'static str>); N]) -> Vec<Candidate> {
    let Some(program) = std::env::var("WASMTIME").ok().filter(|program| !program.is_empty()) else {
        println!("`wasmtime serve` is not measured: `WASMTIME` does not name its program");
        return Vec::new();
    };
    let candidate = |(name, options): (&'static str, Vec<&'static str>)| {
        let program = program.clone();
        let start = move |cores: &Cores| Host::wasmtime(&program, &options, plugin, cores);
        Candidate { name, is_ours: false, start: Box::new(start) }
    };
    options.into_iter().map(candidate).collect()
}

/// Measures the candidates with a hello component, and prints what each of ours is to each of theirs.
fn beside(component: &str, rates: &str, candidates: &[Candidate]) {
    table::heading(&format!("{component} under {CONNECTIONS} connections, by the host's cores"));
    table::columns(&COLUMNS);
    let places = [Cores::one(), Cores::all()].map(|cores| {
        let measured = in_turns(candidates, &cores, "/", |body| assert_eq!(body, b"hello\n"));
        print(candidates, &measured, &cores);
        (cores.name(), measured)
    });
    let theirs: Vec<_> =
        candidates.iter().filter(|candidate| !candidate.is_ours).map(|candidate| candidate.name).collect();
    if theirs.is_empty() {
        return;
    }
    table::heading(&format!("{rates} of larder serve to those of each wasmtime serve"));
    table::columns(&theirs);
    for (place, measured) in &places {
        let of = |is_ours: bool| candidates.iter().zip(measured).filter(move |(one, _)| one.is_ours == is_ours);
        for (nth, (candidate, ours)) in of(true).enumerate() {
            let ratios: Vec<_> = of(false).map(|(_, theirs)| format!("{:.2}", ours.ratio(theirs))).collect();
            table::row(if nth == 0 { place } else { "" }, candidate.name, &ratios);
        }
    }
}

/// Measures hits of get-or-set in RAM, each in a request of its own.
pub(crate) fn hit() {
    let candidates = ours("http", "[caches.c]\ntype = \"ram\"\ndefault_expire = \"1h\"\n");
    table::heading(&format!("A request that hits in RAM under {CONNECTIONS} connections, by the host's cores"));
    table::columns(&COLUMNS);
    for cores in [Cores::one(), Cores::all()] {
        let measured = in_turns(&candidates, &cores, "/compute/key", |body| {
            assert!(body.starts_with(b"key "), "{}", String::from_utf8_lossy(body));
        });
        print(&candidates, &measured, &cores);
    }
}

/// Larder without and with reuse of instances. With `LARDER_BEFORE`, also an earlier build.
fn ours(plugin: &'static str, config: &'static str) -> Vec<Candidate> {
    let candidate = |name, program: std::path::PathBuf, config: String| {
        let start = move |cores: &Cores| Host::larder(&program, &config, plugin, cores, None);
        Candidate { name, is_ours: true, start: Box::new(start) }
    };
    let mut candidates = Vec::new();
    if let Some(before) = std::env::var_os("LARDER_BEFORE") {
        candidates.push(candidate("LARDER_BEFORE", before.into(), config.to_owned()));
    }
    candidates.push(candidate("larder serve", hosts::larder(), config.to_owned()));
    let reuse = format!("{config}[plugins.{plugin}]\n{REUSE}\n");
    if hosts::knows(&reuse) {
        candidates.push(candidate("larder serve, reuse", hosts::larder(), reuse));
    } else {
        println!("`{REUSE}` is not measured: this `larder` does not have the key");
    }
    candidates
}

/// Measures each candidate in each round. Every other round is in reverse order.
fn in_turns(candidates: &[Candidate], cores: &Cores, path: &str, check: fn(&[u8])) -> Vec<Measured> {
    let hosts: Vec<Host> = candidates.iter().map(|candidate| (candidate.start)(cores)).collect();
    let mut measured: Vec<Measured> = hosts.iter().map(|_| Measured::default()).collect();
    let run = |host: &Host, duration| {
        let stop = Stop::After(duration);
        let addresses = &[host.address()];
        Load { addresses, path, connections: CONNECTIONS, stop, cores: &cores.generator, check }.run()
    };
    for host in &hosts {
        run(host, WARM_UP);
    }
    for round in 0..ROUNDS {
        for nth in 0..hosts.len() {
            let nth = if round % 2 == 0 { nth } else { hosts.len() - 1 - nth };
            let before = Usage::of(hosts[nth].id());
            let round = run(&hosts[nth], ROUND);
            measured[nth].add(&round, Usage::of(hosts[nth].id()) - before);
        }
    }
    for (host, measured) in hosts.iter().zip(&mut measured) {
        measured.resident = resident(host.id());
    }
    measured
}

fn print(candidates: &[Candidate], measured: &[Measured], cores: &Cores) {
    for (nth, (candidate, one)) in candidates.iter().zip(measured).enumerate() {
        let micros = |values: &[f64]| format!("{:.1} µs", median(values) * 1e6);
        let rate = format!("{} /s", median(&one.rates).round());
        let numbers = [
            format!("{:.0}", median(&one.rates)),
            format!("{:.2} ms", median(&one.p50)),
            format!("{:.2} ms", median(&one.p99)),
            micros(&one.time),
            micros(&one.kernel),
            format!("{:.1} MB", one.resident / 1e6),
            format!("{:.0} %", median(&one.generator) * 100.0),
        ];
        let place = cores.name();
        table::measured(if nth == 0 { &place } else { "" }, candidate.name, &numbers, one.ratio(&measured[0]), &rate);
    }
}
