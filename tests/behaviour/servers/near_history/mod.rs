//! Random runs of several hosts with near tiers, whose history is checked against the promises P1 to P4 of `docs/near.md`.
//!
//! The hosts are processes of `larder serve`, with several callers each. Another program changes the same keys, and scene
//! by scene the network, the servers and the hosts fail. Scenes and calls follow from a seed; how they come out also
//! depends on the scheduler. So a failure prints the seed together with the history that it found.
//! `LARDER_NEAR_HISTORY_SEED` repeats that seed, and `LARDER_NEAR_HISTORY_ROUNDS` asks for more than one run on each server.

// Decision: docs/decisions/0085-broken-variants-of-the-near-tier-are-patches.md

mod check;
mod hosts;
mod other;
mod place;
mod plan;
mod record;
mod stage;
mod verdicts;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use larder_tests::Kind;

use hosts::{HOSTS, Host};
use other::Other;
use place::{Place, lock};
use plan::{Dice, Scene, plan};
use record::{Answer, By, Call, Clock, Operation};

/// The configuration of the near tiers.
const MAX_STALENESS: Duration = Duration::from_millis(300);

/// A run that has not ended after this time waits for something that does not come. Alone it takes 15 s.
const LONGEST_RUN: Duration = Duration::from_secs(600);

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// What the callers of the hosts do. The first caller of each always reads the last key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// All operations.
    Mixed,
    /// The others ask the server for keys without a value, and write nothing.
    Quiet,
    /// One writes and reads the last key, and the other one reads it over the bulk connection.
    TwoConnections,
}

/// A run in progress.
struct Run {
    clock: Clock,
    history: Mutex<Vec<Operation>>,
    /// The number of the scene.
    scene: AtomicUsize,
    mood: Mutex<Mood>,
    is_over: AtomicBool,
    /// What the scenes and the other program do at the moment, for a run that does not end.
    step: Mutex<String>,
    change: Mutex<String>,
}

impl Run {
    fn new() -> Self {
        Self {
            clock: Clock::start(),
            history: Mutex::default(),
            scene: AtomicUsize::new(0),
            mood: Mutex::new(Mood::Mixed),
            is_over: AtomicBool::new(false),
            step: Mutex::default(),
            change: Mutex::default(),
        }
    }

    fn step(&self, step: String) {
        *lock(&self.step) = step;
    }

    fn scene(&self) -> usize {
        self.scene.load(Ordering::SeqCst)
    }

    fn mood(&self) -> Mood {
        *lock(&self.mood)
    }

    fn set_mood(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn record(&self, by: By, call: Call, sent: Duration, answered: Duration, answer: Answer, scene: usize) {
        lock(&self.history).push(Operation { by, call, sent, answered, answer, scene });
    }
}

/// Ends the callers and the other program when it is dropped, also by a failure.
struct End(Arc<Run>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// What a thread returns. Panics with what the run does if it takes too long.
async fn end_of<T>(name: &str, thread: JoinHandle<T>, run: &Run) -> T {
    let limit = LONGEST_RUN.saturating_sub(run.clock.now());
    let has_ended = async {
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let is_late = tokio::time::timeout(limit, has_ended).await.is_err();
    assert!(!is_late, "{name}: not ended after {LONGEST_RUN:?}; {}; {}", lock(&run.step), lock(&run.change));
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Plays the scenes, and returns the history and the number of near hits.
async fn play(place: Place, scenes: Vec<Scene>, mut dice: Dice) -> (Vec<Operation>, u64) {
    let (place, run) = (Arc::new(place), Arc::new(Run::new()));
    let end = End(Arc::clone(&run));
    let hosts: Vec<Host> = (0..HOSTS)
        .map(|_| {
            let (cache, relay) = place.cache();
            Host::start(&cache, relay)
        })
        .collect();
    let mut callers = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        callers.extend(hosts::call(&run, number, host.process.address(), &mut dice));
    }
    let other = Arc::new(Mutex::new(Other::new(&run, &place, dice.branch())));
    let writer = {
        let (run, other) = (Arc::clone(&run), Arc::clone(&other));
        std::thread::spawn(move || {
            while !run.is_over() {
                let pause = lock(&other).play();
                std::thread::sleep(pause);
            }
        })
    };
    let stage = stage::Stage { run: Arc::clone(&run), place, other, hosts, dice: dice.branch() };
    // A thread: the runtime would wait for a blocking task also after a failure.
    let scenes = std::thread::spawn(move || stage.play(&scenes));
    let hosts = end_of("the scenes", scenes, &run).await;
    drop(end);
    for caller in callers {
        caller.await.unwrap();
    }
    end_of("the other program", writer, &run).await;
    let mut near_hits = 0;
    for host in &hosts {
        near_hits += host.near_hits().await;
    }
    let history = std::mem::take(&mut *lock(&run.history));
    (history, near_hits)
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{name}` is not a number: `{text}`")))
}

async fn assert_keeps_its_promises(name: &str, start: impl Fn() -> Option<Place>, scenes: &[(Scene, u64)]) {
    let seed = setting("LARDER_NEAR_HISTORY_SEED");
    for _round in 0..setting("LARDER_NEAR_HISTORY_ROUNDS").unwrap_or(1) {
        let Some(place) = start() else { return };
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(name));
        // In case that something else fails.
        eprintln!("on {name}: LARDER_NEAR_HISTORY_SEED={seed}");
        let scenes = plan(scenes, seed);
        let (history, near_hits) = play(place, scenes.clone(), Dice::new(seed)).await;
        let findings = match check::check(&history, MAX_STALENESS) {
            Ok(findings) => findings,
            Err(violation) => {
                panic!("on {name}, to repeat with LARDER_NEAR_HISTORY_SEED={seed}: {violation}\n{scenes:?}")
            }
        };
        // The scenes end by the clock, and a busy machine does a thirtieth meanwhile of what an idle one does.
        assert!(near_hits > 10 && findings.reads > 50, "nothing came of it: {near_hits} near hits, {findings:?}");
        let mut staleness: BTreeMap<Scene, Duration> = BTreeMap::new();
        for (scene, longest) in findings.staleness {
            let known = staleness.entry(scenes[scene]).or_default();
            *known = longest.max(*known);
        }
        let longest = staleness.values().max().copied().unwrap_or_default();
        println!(
            "on {name}: {} operations, {} reads of a value, {near_hits} near hits; the longest staleness is {longest:.1?} of \
             {MAX_STALENESS:?}: {staleness:.1?}",
            history.len(),
            findings.reads
        );
    }
}

#[tokio::test]
async fn valkey_keeps_the_promises_of_the_near_tier() {
    assert_keeps_its_promises("Valkey", || Place::single(Kind::Valkey), &Scene::SINGLE).await;
}

#[tokio::test]
async fn new_valkey_keeps_the_promises_of_the_near_tier() {
    assert_keeps_its_promises("a newer Valkey", || Place::single(Kind::ValkeyWithIfeq), &Scene::SINGLE).await;
}

#[tokio::test]
async fn redis_keeps_the_promises_of_the_near_tier() {
    assert_keeps_its_promises("Redis", || Place::single(Kind::Redis), &Scene::SINGLE).await;
}

#[tokio::test]
async fn a_failover_keeps_the_promises_of_the_near_tier() {
    assert_keeps_its_promises("Sentinel", || Place::sentinels(Kind::Valkey), &Scene::SENTINEL).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_promises_of_the_near_tier() {
    assert_keeps_its_promises("a cluster", || Place::cluster(Kind::Valkey), &Scene::CLUSTER).await;
}

#[tokio::test]
async fn a_cluster_of_valkey_9_keeps_the_promises_of_the_near_tier() {
    assert_keeps_its_promises("a cluster of Valkey 9", || Place::cluster(Kind::Valkey9), &Scene::CLUSTER_9).await;
}

#[test]
fn a_seed_determines_one_plan() {
    let plan = |seed| plan(&Scene::SINGLE, seed);
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}
