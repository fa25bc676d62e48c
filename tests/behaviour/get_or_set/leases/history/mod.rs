//! Random runs of several processes, whose history is checked against the guarantees in the guide.
//!
//! What each process is to do follows from a seed; how it comes out also depends on the scheduler. So a failure prints
//! the seed together with the history that it found. `LARDER_HISTORY_SEED` repeats that seed, and
//! `LARDER_HISTORY_ROUNDS` asks for more than one run on each server.

mod check;
mod record;
mod verdicts;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_tests::{Kind, Larder, LarderProcess, Server, TEST_TIMEOUT};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use check::Terms;
use record::{Answer, Call, Operation};

const PROCESSES: usize = 4;

/// The steps of each process in a run, which take about four seconds.
const STEPS: usize = 30;

const TERMS: Terms = Terms { lease: Duration::from_millis(400), wait: Duration::from_millis(600) };

/// The shortest computation after a wait that timed out.
const LATE: Duration = Duration::from_millis(300);

/// `b` is rarely cleared except by the process that computes it again, so its computations finish.
const KEYS: [&str; 3] = ["a1", "a2", "b"];

/// No process writes it: it is read to notice a process that computes.
const PULSE: &str = "pulse";

/// The pause between two reads of it; the checker takes a process for alive that is heard of every 100 ms.
const BEAT: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
enum Step {
    /// A set gets its value when it is made.
    Call(Call),
    /// The process is killed so long after the call was sent, answered or not.
    Crash(Call, Duration),
    /// The process is frozen for this time, so its computation may lose its lease.
    Freeze(Duration),
    Compute(Work),
}

/// A get-or-set.
#[derive(Debug, Clone)]
struct Work {
    key: &'static str,
    /// Whether a value that is there is refreshed.
    refreshes: bool,
    /// Whether a value that is there is cleared, and the key asked for again.
    is_anew: bool,
    takes: Duration,
    meanwhile: Option<Box<Step>>,
    end: End,
}

/// How a computation ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Fill,
    Drop,
    Trap,
    Kill,
    /// The process is killed so long after the fill was sent.
    KillWhileFilling(Duration),
}

fn milliseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn microseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_micros)
}

/// One of these; an entry that is listed twice is twice as frequent.
fn any_of(keys: &'static [&str]) -> impl Strategy<Value = String> {
    prop::sample::select(keys).prop_map(str::to_owned)
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => any_of(&KEYS).prop_map(Call::Get),
        2 => any_of(&["a1", "a1", "a2", "a2", "a2", "b"]).prop_map(|key| Call::Set(key, String::new())),
        3 => any_of(&["a1", "a2"]).prop_map(Call::Clear),
        1 => any_of(&["a", "a1"]).prop_map(Call::ClearPattern),
        1 => Just(Call::ClearAll),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        14 => Just(End::Fill),
        3 => Just(End::Drop),
        1 => Just(End::Trap),
        1 => Just(End::Kill),
        1 => microseconds(0..2000).prop_map(End::KillWhileFilling),
    ]
}

/// Some computations outlast the lease, some also the others' wait.
fn work(meanwhile: impl Strategy<Value = Option<Step>>) -> impl Strategy<Value = Step> {
    let takes = prop_oneof![3 => milliseconds(0..60), 1 => milliseconds(300..900)];
    let parts = (prop::sample::select(&KEYS[..]), any::<bool>(), any::<bool>(), takes, meanwhile, end());
    parts.prop_map(|(key, refreshes, is_anew, takes, meanwhile, end)| {
        Step::Compute(Work { key, refreshes, is_anew, takes, meanwhile: meanwhile.map(Box::new), end })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let within = prop_oneof![
        3 => call().prop_map(Step::Call),
        1 => milliseconds(300..700).prop_map(Step::Freeze),
        1 => work(Just(None)),
    ];
    prop_oneof![
        12 => work(prop::option::weighted(0.2, within)),
        7 => call().prop_map(Step::Call),
        1 => (call(), microseconds(0..2000)).prop_map(|(call, after)| Step::Crash(call, after)),
        1 => (any_of(&KEYS), milliseconds(1..500)).prop_map(|(key, after)| Step::Crash(Call::Take(key), after)),
    ]
}

/// What all processes of a run do.
fn plan(seed: u64) -> Vec<Vec<Step>> {
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(prop::collection::vec(step(), STEPS), PROCESSES);
    steps.new_tree(&mut TestRunner::new(config)).unwrap().current()
}

/// A run in progress.
struct Run {
    toml: String,
    began: Instant,
    history: Mutex<Vec<Operation>>,
    /// For each process, its id and since when it owes an answer.
    owing: Mutex<[Option<(u32, Instant)>; PROCESSES]>,
}

impl Run {
    fn new(server: &Server) -> Self {
        let (lease, wait) = (TERMS.lease.as_millis(), TERMS.wait.as_millis());
        // What is to be seen are leases and not outages: calls are patient, and an error is never taken for a miss.
        let toml = format!(
            "{}lease = \"{lease}ms\"\nwait = \"{wait}ms\"\ndefault_expire = \"1h\"\non_outage = \"error\"\n\
             timeout = \"10s\"\n[sandbox]\ntimeout = \"1h\"\n",
            server.cache("cache")
        );
        Self { toml, began: Instant::now(), history: Mutex::default(), owing: Mutex::default() }
    }

    /// Runs the steps of all processes concurrently, and returns the history in the order of sending.
    fn history(self, plan: Vec<Vec<Step>>) -> Vec<Operation> {
        std::thread::scope(|scope| {
            let play = |(process, steps): (usize, Vec<Step>)| {
                let run = &self;
                scope.spawn(move || {
                    let mut player = Player::new(run, process);
                    for step in steps {
                        player.carry_out(step);
                    }
                })
            };
            let players: Vec<_> = plan.into_iter().enumerate().map(play).collect();
            while !players.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                self.end_those_who_hang();
                std::thread::sleep(BEAT);
            }
        });
        let mut history = self.history.into_inner().unwrap();
        history.sort_by_key(|operation| operation.sent);
        history
    }

    /// Ends processes that owe an answer for too long, so that the run comes to its end and the checker sees it.
    fn end_those_who_hang(&self) {
        for (id, since) in self.owing.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
            if since.elapsed() > TEST_TIMEOUT {
                signal(*id, "-KILL");
            }
        }
    }
}

/// Runs the steps of one process, and restarts it when it has ended.
struct Player<'a> {
    run: &'a Run,
    process: usize,
    life: usize,
    larder: LarderProcess,
    held: HashSet<&'static str>,
    written: usize,
}

impl<'a> Player<'a> {
    fn new(run: &'a Run, process: usize) -> Self {
        let mut player = Self { run, process, life: 0, larder: start(run), held: HashSet::new(), written: 0 };
        player.wait_until_up();
        player
    }

    /// Waits until the process is up, so that its calls take no longer than calls do. That is no part of the history:
    /// the first of all compiles the plugin.
    fn wait_until_up(&mut self) {
        self.say(&Call::Get(PULSE.to_owned()));
        assert_ne!(self.hear(), Answer::Lost, "a process ended at its start");
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Call(call) => {
                let call = self.with_value(call);
                self.call(call);
            }
            Step::Crash(call, after) => {
                let call = self.with_value(call);
                self.crash(call, after);
            }
            Step::Freeze(time) => self.freeze(time),
            Step::Compute(work) => self.compute(work),
        }
    }

    fn compute(&mut self, Work { key, refreshes, is_anew, takes, meanwhile, end }: Work) {
        // The plugin would be refused a key that it holds.
        if self.held.contains(key) {
            return;
        }
        let mut asked = Instant::now();
        let first = if refreshes { Call::Refresh(key.to_owned()) } else { Call::Take(key.to_owned()) };
        let mut answer = self.call(first);
        if is_anew && matches!(answer, Answer::Hit(_)) {
            self.call(Call::Clear(key.to_owned()));
            asked = Instant::now();
            answer = self.call(Call::Take(key.to_owned()));
        }
        if !matches!(answer, Answer::Vacant | Answer::Stale(_)) {
            return;
        }
        self.held.insert(key);
        // A process that computes without the lease leaves its holder the time to be first.
        let takes = if asked.elapsed() < TERMS.wait { takes } else { takes.max(LATE) };
        let life = self.life;
        match meanwhile {
            Some(step) => {
                self.live_for(takes / 2);
                self.carry_out(*step);
                self.live_for(takes / 2);
            }
            None => self.live_for(takes),
        }
        if self.life != life {
            return;
        }
        self.held.remove(key);
        match end {
            End::Fill => {
                let value = self.new_value();
                self.call(Call::Fill(key.to_owned(), value));
            }
            End::Drop => {
                self.call(Call::Drop(key.to_owned()));
            }
            End::Trap => {
                self.call(Call::Trap);
            }
            End::Kill => {
                self.kill();
                self.restart();
            }
            End::KillWhileFilling(after) => {
                let value = self.new_value();
                self.crash(Call::Fill(key.to_owned(), value), after);
            }
        }
    }

    fn with_value(&mut self, call: Call) -> Call {
        match call {
            Call::Set(key, _) => Call::Set(key, self.new_value()),
            call => call,
        }
    }

    fn new_value(&mut self) -> String {
        self.written += 1;
        format!("{}-{}", self.process, self.written)
    }

    /// Lets time pass, and shows that the process is alive.
    fn live_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            self.call(Call::Get(PULSE.to_owned()));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(BEAT));
        }
    }

    fn call(&mut self, call: Call) -> Answer {
        let sent = self.say(&call);
        let answer = self.hear();
        self.record(call, sent, answer.clone());
        if answer == Answer::Lost {
            self.restart();
        }
        answer
    }

    /// Makes a call and kills the process while, or soon after, it is carried out.
    fn crash(&mut self, call: Call, after: Duration) {
        let sent = self.say(&call);
        std::thread::sleep(after);
        self.kill();
        let answer = self.hear();
        self.record(call, sent, answer);
        self.restart();
    }

    fn say(&mut self, call: &Call) -> Duration {
        let sent = self.run.began.elapsed();
        self.owe(Some((self.larder.id(), Instant::now())));
        self.larder.write_line(&call.to_string());
        sent
    }

    fn hear(&mut self) -> Answer {
        let answer = Answer::read(&self.larder.read_line());
        self.owe(None);
        answer
    }

    fn kill(&mut self) {
        let sent = self.run.began.elapsed();
        self.larder.kill();
        self.record(Call::Kill, sent, Answer::Done);
    }

    fn freeze(&mut self, time: Duration) {
        let sent = self.run.began.elapsed();
        signal(self.larder.id(), "-STOP");
        std::thread::sleep(time);
        signal(self.larder.id(), "-CONT");
        self.record(Call::Freeze, sent, Answer::Done);
    }

    fn restart(&mut self) {
        self.life += 1;
        self.held.clear();
        self.larder = start(self.run);
        self.wait_until_up();
    }

    fn owe(&self, owing: Option<(u32, Instant)>) {
        if let Some(own) = self.run.owing.lock().unwrap_or_else(PoisonError::into_inner).get_mut(self.process) {
            *own = owing;
        }
    }

    fn record(&self, call: Call, sent: Duration, answer: Answer) {
        let answered = self.run.began.elapsed();
        let operation = Operation { process: self.process, life: self.life, call, sent, answered, answer };
        self.run.history.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }
}

fn start(run: &Run) -> LarderProcess {
    Larder::run("session").config(&run.toml).start()
}

fn signal(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{name}` is not a number: `{text}`")))
}

fn assert_keeps_its_promises(kind: Kind) {
    let seed = setting("LARDER_HISTORY_SEED");
    for _round in 0..setting("LARDER_HISTORY_ROUNDS").unwrap_or(1) {
        let Some(server) = Server::start(kind) else { return };
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(kind.name()));
        // In case that something else fails.
        eprintln!("on {kind:?}: LARDER_HISTORY_SEED={seed}");
        let history = Run::new(&server).history(plan(seed));
        assert!(history.iter().any(|operation| operation.answer == Answer::Filled(true)), "nothing came of it");
        if let Err(violation) = check::check(&history, TERMS) {
            panic!("on {kind:?}, to repeat with LARDER_HISTORY_SEED={seed}: {violation}");
        }
    }
}

#[test]
fn valkey_keeps_its_promises_to_several_processes() {
    assert_keeps_its_promises(Kind::Valkey);
}

#[test]
fn new_valkey_keeps_its_promises_to_several_processes() {
    assert_keeps_its_promises(Kind::ValkeyWithIfeq);
}

#[test]
fn redis_keeps_its_promises_to_several_processes() {
    assert_keeps_its_promises(Kind::Redis);
}

#[test]
fn a_seed_determines_one_plan() {
    let shown = |seed| format!("{:?}", plan(seed));
    assert_eq!(shown(7), shown(7));
    assert_ne!(shown(7), shown(8));
}
