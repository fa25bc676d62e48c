//! The host processes, and the callers of their plugins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use larder_tests::{Client, Larder, Relay, ServeProcess, guest};

use super::plan::Dice;
use super::record::{Answer, By, Call};
use super::{KEYS, Mood, Run};

pub(super) const HOSTS: usize = 3;

/// The callers of each host. The first one only reads the last key.
const CALLERS: usize = 3;

/// The pause of a caller between two calls.
const PAUSE: Duration = Duration::from_millis(2);

/// A process of `larder serve` with a near tier, and the network between it and its server, if that is a relay.
pub(super) struct Host {
    pub(super) process: ServeProcess,
    pub(super) relay: Option<Relay>,
}

impl Host {
    pub(super) fn start(cache: &str, relay: Option<Relay>) -> Self {
        let (near, leases) = (super::MAX_STALENESS.as_millis(), "lease = \"400ms\"\nwait = \"600ms\"");
        let toml = format!(
            "{cache}near = {{ max_staleness = \"{near}ms\" }}\n{leases}\ndefault_expire = \"unlimited\"\n\
             on_outage = \"error\"\ntimeout = \"500ms\"\n[sandbox]\ntimeout = \"1h\"\nmax_cpu_time = \"1h\"\n"
        );
        let larder = Larder::serve().config(&toml).arg(guest("operations"));
        Self { process: ServeProcess::start_with_metrics_of(larder), relay }
    }

    /// The keys that were looked up and found near.
    pub(super) async fn near_hits(&self) -> u64 {
        let metrics = self.process.get_from_metrics_port("/metrics").await.body;
        let is_hits = |line: &&str| line.starts_with("larder_near_lookups_total") && line.contains("outcome=\"hit\"");
        let hits = metrics.lines().filter(is_hits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        hits.sum::<f64>() as u64
    }
}

/// Starts the callers of a host. They end with the run.
pub(super) fn call(
    run: &Arc<Run>,
    host: usize,
    address: SocketAddr,
    dice: &mut Dice,
) -> Vec<tokio::task::JoinHandle<()>> {
    let caller = |number| {
        let caller = Caller { run: Arc::clone(run), host, number, dice: dice.branch(), written: 0 };
        tokio::spawn(caller.play(address))
    };
    (0..CALLERS).map(caller).collect()
}

struct Caller {
    run: Arc<Run>,
    host: usize,
    number: usize,
    dice: Dice,
    written: usize,
}

impl Caller {
    async fn play(mut self, address: SocketAddr) {
        let client = Client::connect(address).await;
        while !self.run.is_over() {
            let (path, calls) = self.next();
            let (sent, scene) = (self.run.clock.now(), self.run.scene());
            let response = client.get(&path).await.unwrap();
            let answered = self.run.clock.now();
            assert_eq!(response.status, 200, "{path}: {}", response.body);
            for (call, answer) in calls.into_iter().zip(read(&response.body)) {
                self.run.record(By::Host(self.host), call, sent, answered, answer, scene);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The path of the next request, and the operations that it makes.
    fn next(&mut self) -> (String, Vec<Call>) {
        let own = |call: Call| (format!("/{}", call.to_string().replace(' ', "/")), vec![call]);
        let get = |key: &str| own(Call::Get(key.to_owned()));
        if self.number == 0 {
            return get(KEYS[3]);
        }
        match self.run.mood() {
            Mood::Mixed => {}
            Mood::Quiet => return (format!("/get/none{}", self.number), Vec::new()),
            Mood::TwoConnections => {
                let key = KEYS[3].to_owned();
                return match (self.number, self.dice.below(100)) {
                    (1, 0..40) => own(Call::Set(key, self.value(), None)),
                    (1, 40..60) => own(Call::Clear(key)),
                    (2, 15..) => over_the_bulk_connection(key),
                    _ => own(Call::Get(key)),
                };
            }
        }
        let key = self.dice.one_of(&KEYS).to_owned();
        // Mostly the last one is written by the other program only, and so stays near until that is announced.
        let written = self.dice.one_of(&[KEYS[0], KEYS[0], KEYS[0], KEYS[1], KEYS[1], KEYS[2]]).to_owned();
        match self.dice.below(100) {
            0..55 => get(&key),
            55..63 => {
                let keys = [key, self.dice.one_of(&KEYS).to_owned()];
                (format!("/get-many/{}", keys.join("/")), keys.map(Call::Get).into())
            }
            63..70 => over_the_bulk_connection(key),
            70..78 => own(Call::GetOrSet(key, self.value())),
            78..88 => own(Call::Set(written, self.value(), None)),
            88..91 => own(Call::Set(written, self.value(), Some(self.dice.milliseconds(30, 200)))),
            91..94 => {
                let value = self.value();
                (format!("/set-large/{written}/{value}"), vec![Call::Set(written, value, None)])
            }
            94..98 => own(Call::Clear(written)),
            98 => own(Call::ClearPattern(written)),
            _ => own(Call::ClearAll),
        }
    }

    fn value(&mut self) -> String {
        self.written += 1;
        format!("h{}c{}-{}", self.host, self.number, self.written)
    }
}

/// Reads a key in a batch of so many that the bulk connection is used.
fn over_the_bulk_connection(key: String) -> (String, Vec<Call>) {
    let others: Vec<String> = (0..20).map(|n| format!("none{n}")).collect();
    (format!("/get-many/{key}/{}", others.join("/")), vec![Call::Get(key)])
}

/// The answers in a response: one for each key of a batch.
fn read(body: &str) -> Vec<Answer> {
    let mut words = body.split(' ');
    let mut answers = Vec::new();
    while let Some(word) = words.next() {
        answers.push(match word {
            "hit" => Answer::Hit(words.next().unwrap_or_default().to_owned()),
            "miss" => Answer::Miss,
            "filled" => Answer::Filled(words.next() == Some("true")),
            "ok" | "true" | "false" => Answer::Done,
            number if number.parse::<u64>().is_ok() => Answer::Done,
            _ => {
                let is_outage = ["error Timeout", "error Unavailable", "error Lost"].contains(&body);
                assert!(is_outage, "{body}");
                // All operations of the request have failed.
                return vec![Answer::Error(body.to_owned()); 2];
            }
        });
    }
    answers
}
