//! Plays the scenes: the network, the servers and the hosts fail, one after the other.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_tests::{Cluster, Fault, Relay, Side};
use redis::Value;

use super::hosts::Host;
use super::other::Other;
use super::place::{Place, Watched, lock};
use super::plan::{Dice, Scene};
use super::record::{Answer, By, Call};
use super::{KEYS, MAX_STALENESS, Mood, Run};

/// How an announcement begins.
const ANNOUNCEMENT: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// The time between two scenes, in which hosts find the server again.
const INTERVAL: Duration = Duration::from_millis(80);

pub(super) struct Stage {
    pub(super) run: Arc<Run>,
    pub(super) place: Arc<Place>,
    pub(super) other: Arc<Mutex<Other>>,
    pub(super) hosts: Vec<Host>,
    pub(super) dice: Dice,
}

impl Stage {
    /// Plays all scenes, and returns the hosts.
    pub(super) fn play(mut self, scenes: &[Scene]) -> Vec<Host> {
        self.pause(300, 301);
        for (number, scene) in scenes.iter().enumerate() {
            self.run.scene.store(number, Ordering::SeqCst);
            self.run.step(format!("scene {number}, {scene:?}"));
            self.scene(*scene);
            self.run.set_mood(Mood::Mixed);
            self.all(Relay::set_fault, Fault::None);
            std::thread::sleep(INTERVAL);
        }
        self.pause(300, 301);
        self.hosts
    }

    fn scene(&mut self, scene: Scene) {
        match scene {
            Scene::Calm => self.pause(600, 601),
            Scene::Delay => {
                let delay = self.dice.milliseconds(1, 25);
                self.all(Relay::set_fault, Fault::Delay(delay));
                self.pause(600, 601);
            }
            Scene::Silence => {
                self.some(Fault::Blackhole);
                self.pause(400, 900);
            }
            Scene::HalfSilence => {
                let side = self.dice.one_of(&[Side::Client, Side::Server]);
                self.some(Fault::Mute(side));
                self.pause(400, 700);
            }
            Scene::OneSilent => {
                self.run.set_mood(Mood::TwoConnections);
                for _ in 0..5 {
                    // A host has one regular connection and the bulk connection.
                    let nth = usize::try_from(self.dice.below(2)).unwrap();
                    self.all(|relay, fault| relay.set_fault_of_one(fault, nth), Fault::Mute(Side::Server));
                    self.pause(60, 250);
                    self.all(Relay::set_fault, Fault::None);
                    self.pause(30, 31);
                }
            }
            Scene::HeldAnnouncements => {
                self.some(Fault::MuteFrom(ANNOUNCEMENT));
                self.pause(350, 700);
            }
            Scene::Cut => {
                for _ in 0..4 {
                    self.all(|relay, _| relay.reset(), Fault::None);
                    self.pause(40, 120);
                }
            }
            Scene::StoppedServer => {
                let Place::Single(server) = &*self.place else { return };
                // Without the lock, which the other program may hold until the server answers.
                let _stopped = Stopped::new(lock(server).id());
                self.pause(100, 600);
            }
            Scene::StoppedHost => {
                let host = self.dice.one_of(&[0, 1, 2]);
                let _stopped = Stopped::new(self.hosts[host].process.process().id());
                self.pause(100, 700);
            }
            Scene::Eviction => self.evict(),
            Scene::Crash => self.crash(),
            Scene::LongTurn => self.long_turn(),
            Scene::FailOver => match &*Arc::clone(&self.place) {
                Place::Sentinels(watched) => {
                    self.fail_over(&mut lock(watched));
                    self.pause(1500, 1501);
                }
                Place::Cluster(cluster) => self.take_over(cluster),
                Place::Single(_) => unreachable!("a server without a replica fails over to none"),
            },
            Scene::MovedSlot | Scene::MovedAtOnce => self.move_slot(scene),
        }
    }

    fn pause(&mut self, from: u64, until: u64) {
        std::thread::sleep(self.dice.milliseconds(from, until));
    }

    fn all(&self, act: impl Fn(&Relay, Fault), fault: Fault) {
        self.hosts.iter().filter_map(|host| host.relay.as_ref()).for_each(|relay| act(relay, fault));
    }

    /// A fault between the server and one host, or all of them.
    fn some(&mut self, fault: Fault) {
        match self.dice.one_of(&[0, 1, 2, self.hosts.len()]) {
            host if host < self.hosts.len() => self.hosts[host].relay.iter().for_each(|relay| relay.set_fault(fault)),
            _ => self.all(Relay::set_fault, fault),
        }
    }

    fn evict(&mut self) {
        let Some(mut client) = self.place.client(None) else { return };
        let info: String = redis::cmd("INFO").arg("memory").query(&mut client).unwrap();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let limit = used.trim().parse::<u64>().unwrap() + (200 << 10);
        let mut set = |name: &str, value: &str| {
            redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut client).unwrap();
        };
        set("maxmemory-policy", "allkeys-random");
        set("maxmemory", &limit.to_string());
        let mut client = self.place.client(None).unwrap();
        for n in 0..60 {
            let mut filler = redis::pipe();
            (0..20).for_each(|m| _ = filler.cmd("SET").arg(format!("filler:{n}:{m}")).arg("x".repeat(1000)));
            let _out_of_memory = filler.exec(&mut client);
            std::thread::sleep(Duration::from_millis(8));
        }
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut client).unwrap();
    }

    fn crash(&mut self) {
        let Place::Single(server) = &*self.place else { return };
        {
            let _pause = lock(&self.other);
            let (mut server, sent, scene) = (lock(server), self.run.clock.now(), self.run.scene());
            server.kill();
            server.restart();
            self.run.record(By::Other, Call::Crash, sent, self.run.clock.now(), Answer::Done, scene);
        }
        self.pause(500, 501);
    }

    /// The server has two clients at once when it comes back from a short turn: the write, and a read by a host. While it
    /// is busy with the write's turn, the host sends a ping, which is executed in the same turn. The announcement does not
    /// arrive, and all that the server has sent before it does.
    ///
    /// The short turn is long enough for a read by each host to arrive behind the write, and far shorter than the interval
    /// between pings: a ping that is sent before the write proves nothing.
    fn long_turn(&mut self) {
        self.run.set_mood(Mood::Quiet);
        let sleep = |seconds: &str| {
            let mut sleep = redis::cmd("DEBUG");
            sleep.arg("SLEEP").arg(seconds);
            sleep
        };
        let other = Arc::clone(&self.other);
        let mut other = lock(&other);
        self.pause(60, 61);
        // An announcement of their expiry would be held in place of the one of the write.
        other.clear(&KEYS[..3]);
        other.set(KEYS[3], None, &[]);
        self.pause(60, 135);
        self.all(Relay::set_fault, Fault::MuteFrom(ANNOUNCEMENT));
        if let Some(mut short) = self.place.client(None) {
            short.send_packed_command(&sleep("0.01").get_packed_command()).unwrap();
            other.set(KEYS[3], None, &[sleep("0.12")]);
            let _slept: Value = short.recv_response().unwrap();
        }
        std::thread::sleep(MAX_STALENESS);
    }

    /// A replica takes over from a primary of the cluster by agreement, and gives back later. No write is lost, so nothing is
    /// allowed for.
    fn take_over(&mut self, cluster: &Mutex<Cluster>) {
        let primary = self.dice.one_of(&[0, 1, 2]);
        lock(cluster).fail_over(primary);
        self.pause(400, 401);
        lock(cluster).fail_back(primary);
        self.pause(400, 401);
    }

    fn fail_over(&mut self, watched: &mut Watched) {
        let scene = self.run.scene();
        let old = watched.primary;
        // What was written until now, the successor has received.
        let sent = self.run.clock.now();
        let mut wait = redis::pipe();
        // The wait is for the client's own last write, and so for all before.
        wait.cmd("SET").arg("last").arg("").ignore().cmd("WAIT").arg(1).arg(10_000);
        let (received,): (u64,) = wait.query(&mut watched.sentinels.servers[old].client()).unwrap();
        assert_eq!(received, 1, "the replica is connected");
        watched.sentinels.servers[old].kill();
        watched.primary = 1 - old;
        watched.sentinels.wait_for_primary(watched.primary);
        self.run.record(By::Other, Call::FailOver, sent, self.run.clock.now(), Answer::Done, scene);
    }

    fn move_slot(&mut self, scene: Scene) {
        let Place::Cluster(cluster) = &*self.place else { return };
        let cluster = lock(cluster);
        let key = self.dice.one_of(&KEYS);
        let slot = cluster.slot(&format!("{}{key}", super::other::PREFIX));
        let from = cluster.initial_owner(slot);
        let to = (from + 1) % 3;
        for (from, to) in [(from, to), (to, from)] {
            if scene == Scene::MovedAtOnce {
                cluster.move_at_once(slot, from, to);
            } else {
                cluster.start_migration(slot, from, to);
                std::thread::sleep(Duration::from_millis(40));
                cluster.migrate_keys(from, to, &cluster.keys_in_slot(from, slot));
                cluster.finish_migration(slot, from, to);
            }
            std::thread::sleep(Duration::from_millis(400));
        }
    }
}

/// A process that is stopped. It goes on when this value is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(process: u32) -> Self {
        assert!(signal(process, "-STOP"), "process {process} cannot be stopped");
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that stays stopped is killed with the run.
        let _goes_on = signal(self.0, "-CONT");
    }
}

fn signal(process: u32, signal: &str) -> bool {
    Command::new("kill").args([signal, &process.to_string()]).status().is_ok_and(|status| status.success())
}
