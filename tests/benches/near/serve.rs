//! `larder serve` with keys from a Zipf distribution, with and without a near tier.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use larder_host::cache::ram::ENTRY_OVERHEAD;
use larder_tests::{Kind, Server, free_port};

use crate::cores::Cores;
use crate::hosts::{self, Host};
use crate::keys::{KEYS, Order, draws};
use crate::load::{Load, Round, Stop};
use crate::table;
use crate::usage::Usage;

const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(6);
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// A host, and what was measured of it.
struct Candidate {
    name: String,
    host: Host,
    metrics: SocketAddr,
    rounds: Vec<Measured>,
}

struct Measured {
    round: Round,
    /// The processor time of a request in seconds, of the host and of the server.
    host: f64,
    server: f64,
    /// The share of look-ups that were answered near.
    near: Option<f64>,
}

pub(crate) fn zipf() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    fill(&server);
    let entry = 5 + VALUE_LEN as u64 + ENTRY_OVERHEAD;
    let cores = Cores::all();
    let near = |share: u64| {
        let bytes = KEYS as u64 * entry * share / 100;
        format!("near = {{ max_bytes = {bytes}, max_value_bytes = \"1KiB\" }}\n")
    };
    let hosts = [("without", String::new()), ("near of 10 %", near(10)), ("near of 100 %", near(100))];
    for (plugin, name) in
        [("", "An instance for each request"), ("[plugins.http]\nreuse = {}\n", "Instances that are used again")]
    {
        let mut candidates: Vec<Candidate> =
            hosts.iter().map(|(name, near)| start(&server, name, near, plugin, &cores)).collect();
        let first = draws(Order::Zipf, 0);
        candidates.iter().for_each(|candidate| _ = candidate.run(&first, WARM_UP, &cores));
        // Every other round in reverse order, so that the order favours no candidate.
        for round in 0..ROUNDS {
            // Others in each round: a sequence that is repeated has fewer keys.
            let draws = draws(Order::Zipf, round as u64 + 1);
            for nth in 0..candidates.len() {
                let nth = if round % 2 == 0 { nth } else { candidates.len() - 1 - nth };
                let measured = candidates[nth].measure(&draws, &server, &cores);
                candidates[nth].rounds.push(measured);
            }
        }
        table::heading(&format!(
            "{name}: hits of get-or-set on Valkey, {KEYS} keys by Zipf, {CONNECTIONS} connections"
        ));
        table::columns(&["requests/s", "p50", "p99", "processor time", "of the server", "near hits", "ratio"]);
        let rate = |candidate: &Candidate, round: usize| candidate.rounds[round].round.rate();
        for candidate in &candidates {
            let median = |of: &dyn Fn(&Measured) -> f64| {
                table::quantile(&candidate.rounds.iter().map(of).collect::<Vec<_>>(), 0.5)
            };
            let ratios: Vec<f64> = (0..ROUNDS).map(|nth| rate(candidate, nth) / rate(&candidates[0], nth)).collect();
            let near = candidate.rounds[0].near.is_some();
            let numbers = [
                format!("{:.0}", median(&|measured| measured.round.rate())),
                format!("{:.2} ms", median(&|measured| measured.round.percentile(50))),
                format!("{:.2} ms", median(&|measured| measured.round.percentile(99))),
                table::time(median(&|measured| measured.host)),
                table::time(median(&|measured| measured.server)),
                if near {
                    format!("{:.1} %", 100.0 * median(&|measured| measured.near.unwrap()))
                } else {
                    "-".to_owned()
                },
            ];
            let (ratio, rate) = (table::quantile(&ratios, 0.5), numbers[0].clone());
            table::measured(&cores.name(), &candidate.name, &numbers, ratio, &rate);
        }
    }
}

/// The length of a value: a JSON string.
const VALUE_LEN: usize = 100;

fn fill(server: &Server) {
    let value = format!("\"{}\"", "v".repeat(VALUE_LEN - 2));
    let mut client = server.client();
    for first in (0..KEYS).step_by(1000) {
        let mut batch = redis::pipe();
        for nth in first..first + 1000 {
            batch.cmd("SET").arg(format!("cache:{nth}")).arg(&value).ignore();
        }
        batch.exec(&mut client).unwrap();
    }
}

fn start(server: &Server, name: &str, near: &str, plugin: &str, cores: &Cores) -> Candidate {
    let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let serve = format!("[serve]\nmetrics_addr = \"{metrics}\"\n");
    let config = format!("{}timeout = \"20s\"\n{near}{serve}{plugin}", server.cache("c"));
    let host = Host::larder(hosts::larder(), &config, "http", cores, None);
    Candidate { name: name.to_owned(), host, metrics, rounds: Vec::new() }
}

impl Candidate {
    fn run(&self, draws: &[usize], duration: Duration, cores: &Cores) -> Round {
        let check = |body: &[u8]| assert!(body.ends_with(b"v false"), "{}", String::from_utf8_lossy(body));
        let (addresses, stop) = (&[self.host.address()], Stop::After(duration));
        let load =
            Load { addresses, path: "/compute/{n}", connections: CONNECTIONS, stop, cores: &cores.generator, check };
        load.run_over(draws)
    }

    fn measure(&self, draws: &[usize], server: &Server, cores: &Cores) -> Measured {
        let times = || [self.host.id(), server.id()].map(|process| Usage::of(process).time());
        let (before, lookups) = (times(), self.lookups());
        let round = self.run(draws, ROUND, cores);
        let [host, server] = [0, 1].map(|nth| (times()[nth] - before[nth]) / round.requests() as f64);
        let [hits, misses] = [0, 1].map(|nth| self.lookups()[nth] - lookups[nth]);
        let near = (hits + misses > 0.0).then(|| hits / (hits + misses));
        Measured { round, host, server, near }
    }

    /// The hits and misses of the near tier so far.
    fn lookups(&self) -> [f64; 2] {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: host.example\r\nconnection: close\r\n\r\n").unwrap();
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).unwrap();
        ["hit", "miss"].map(|outcome| {
            let name = format!("larder_near_lookups_total{{cache=\"c\",outcome=\"{outcome}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |count| count.parse().unwrap())
        })
    }
}
