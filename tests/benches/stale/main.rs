//! Stale values in several processes, in the release build: how long calls take while one caller refreshes, how often a
//! value is computed, and how old the oldest one is that was served.
//!
//! Four hosts on one Valkey have 64 callers each, who ask for one key five times a second. A value takes 500 ms to compute, is
//! fresh for one second, and stale for 30. The age of a value counts from the begin of its computation. `LARDER_STALE_SECONDS`
//! is the length of a part, 60 by default. `LARDER_RESULTS` names the results file.

#![allow(missing_docs, reason = "a benchmark is not a library")]

#[path = "../speed/results_file.rs"]
mod results_file;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../speed/table.rs"]
mod table;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use larder_tests::{Client, Kind, Larder, ServeProcess, Server, guest};
use tokio::task::JoinSet;

const HOSTS: usize = 4;
const CALLERS: usize = 64;
const INTERVAL: Duration = Duration::from_millis(200);

/// What callers saw.
#[derive(Debug, Default)]
struct Seen {
    /// The times of calls that computed nothing: the call within the plugin, and the whole request.
    calls: Vec<Duration>,
    requests: Vec<Duration>,
    /// The times of requests that computed.
    computing: Vec<Duration>,
    /// When the values were made that were served, in milliseconds since 1970.
    values: BTreeSet<u64>,
    /// The age of the oldest value that was served, and of the youngest that was missed, in milliseconds.
    oldest: u64,
    traps: usize,
    without_value: usize,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.requests.extend(other.requests);
        self.computing.extend(other.computing);
        self.values.extend(other.values);
        self.oldest = self.oldest.max(other.oldest);
        self.traps += other.traps;
        self.without_value += other.without_value;
    }
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Asks at intervals until the end. `path` gets the number of the request.
async fn ask(address: std::net::SocketAddr, nth: usize, length: Duration, path: impl Fn(usize) -> String) -> Seen {
    let mut seen = Seen::default();
    let callers = u32::try_from(HOSTS * CALLERS).unwrap();
    tokio::time::sleep(INTERVAL * u32::try_from(nth).unwrap() / callers).await;
    let mut interval = tokio::time::interval(INTERVAL);
    let began = Instant::now();
    let mut client = Client::connect(address).await;
    for number in nth.. {
        if began.elapsed() > length {
            break;
        }
        interval.tick().await;
        let sent = Instant::now();
        let answer = match client.get(&path(number)).await {
            Ok(answer) if answer.status == 200 => answer,
            _ => {
                seen.traps += 1;
                client = Client::connect(address).await;
                continue;
            }
        };
        let (took, arrived) = (sent.elapsed(), now());
        let [computed, made, microseconds] = answer.body.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{}", answer.body)
        };
        let call = Duration::from_micros(microseconds.parse().unwrap());
        if computed == "0" {
            seen.calls.push(call);
            seen.requests.push(took);
        } else {
            seen.computing.push(took);
        }
        match made.parse::<u64>() {
            Ok(made) => {
                seen.values.insert(made);
                // By the time of the answer it may be older than when it was read.
                let age = arrived.saturating_sub(made).saturating_sub(u64::try_from(took.as_millis()).unwrap());
                seen.oldest = seen.oldest.max(age);
            }
            Err(_) => seen.without_value += 1,
        }
    }
    seen
}

async fn part(
    name: &str,
    hosts: &[ServeProcess],
    length: Duration,
    path: impl Fn(usize) -> String + Copy + Send + 'static,
) {
    // So that no caller of the part waits for the first value.
    for host in hosts {
        Client::connect(host.address()).await.get(&path(1)).await.unwrap();
    }
    let mut callers = JoinSet::new();
    for nth in 0..HOSTS * CALLERS {
        callers.spawn(ask(hosts[nth % HOSTS].address(), nth, length, path));
    }
    let mut seen = Seen::default();
    while let Some(caller) = callers.join_next().await {
        seen.add(caller.unwrap());
    }
    let quantiles = |times: &mut Vec<Duration>, parts: &[usize]| -> Vec<String> {
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part / 1000).min(times.len().saturating_sub(1)));
        let text =
            |part: &usize| at(*part).map_or("-".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        parts.iter().map(text).collect()
    };
    let counts =
        [seen.values.len(), seen.computing.len(), seen.traps, seen.without_value].map(|count| count.to_string());
    let numbers = [
        counts.to_vec(),
        vec![format!("{} ms", seen.oldest)],
        quantiles(&mut seen.calls, &[500, 990, 999, 1000]),
        quantiles(&mut seen.requests, &[990, 1000]),
        quantiles(&mut seen.computing, &[500, 990]),
    ];
    table::row("", name, &numbers.concat());
}

const COLUMNS: [&str; 13] = [
    "values",
    "computed",
    "traps",
    "without a value",
    "oldest",
    "p50",
    "p99",
    "p99.9",
    "longest",
    "request p99",
    "request longest",
    "computing p50",
    "computing p99",
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let seconds = std::env::var("LARDER_STALE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let length = Duration::from_secs(seconds);
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    let start = || ServeProcess::start_with(Larder::serve().config(&config).arg(guest("stale")));
    let hosts: Vec<ServeProcess> = (0..HOSTS).map(|_| start()).collect();
    table::heading("A value of one second, stale for 30, of 256 callers in four processes");
    table::columns(&COLUMNS);
    // What the same requests take without a refresh: four hosts, their server and their clients share the cores.
    part("no value becomes stale", &hosts, length, |_| "/do/fresh/30".to_owned()).await;
    part("each refresh succeeds", &hosts, length, |_| "/do/refresh/30".to_owned()).await;
    part("each refresh succeeds, after the answer", &hosts, length, |_| "/do/answer-first/30".to_owned()).await;
    let killed = |number: usize| format!("/do/{}/30", if number.is_multiple_of(2) { "trap" } else { "refresh" });
    part("half of the refreshes trap", &hosts, length, killed).await;
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
    part("one value, which is then not refreshed", &hosts, Duration::from_secs(2), |_| "/do/refresh/10".to_owned())
        .await;
    part("each refresh fails, the value lives 11 s", &hosts, Duration::from_secs(15), |_| "/do/fail/10".to_owned())
        .await;
    let valkey = results_file::output_of(Kind::Valkey.program(), &["--version"]);
    let valkey = valkey.split_whitespace().take_while(|word| !word.starts_with("sha=")).collect::<Vec<_>>().join(" ");
    results_file::write(table::results(), vec![valkey]);
}
