//! Another program, which writes, clears, expires, flushes, renames and looks at the keys of the cache.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Connection, Value};

use super::place::{Place, lock};
use super::plan::Dice;
use super::record::{Answer, By, Call};
use super::{KEYS, Run};

/// The prefix of all keys of the cache.
pub(super) const PREFIX: &str = "cache:";

/// Renames a key that has a value, and returns the value.
const RENAME: &str = "local v = redis.call('GET', KEYS[1])
    if v then redis.call('RENAME', KEYS[1], KEYS[2]) end
    return v";

/// Shortens the life of a value, and returns the value.
const EXPIRE: &str = "local v = redis.call('GET', KEYS[1])
    if v then redis.call('PEXPIRE', KEYS[1], ARGV[1], 'LT') end
    return v";

pub(super) struct Other {
    run: Arc<Run>,
    place: Arc<Place>,
    connection: Option<Connection>,
    dice: Dice,
    written: usize,
}

impl Other {
    pub(super) fn new(run: &Arc<Run>, place: &Arc<Place>, dice: Dice) -> Self {
        Self { run: Arc::clone(run), place: Arc::clone(place), connection: None, dice, written: 0 }
    }

    /// Makes some operations, and returns for how long to pause.
    pub(super) fn play(&mut self) -> Duration {
        let key = self.dice.one_of(&KEYS);
        match self.dice.below(100) {
            0..58 => self.set(key, None, &[]),
            58..66 => {
                let life = self.dice.milliseconds(30, 200);
                self.set(key, Some(life), &[]);
            }
            66..72 => self.execute(vec![(command("UNLINK", &[key]), Call::Clear(key.to_owned()))], &[]),
            72..76 => {
                let life = self.dice.milliseconds(20, 150);
                let mut expire = script(EXPIRE, &[key]);
                expire.arg(u64::try_from(life.as_millis()).unwrap());
                self.execute(vec![(expire, Call::Expire(key.to_owned(), life))], &[]);
            }
            76..82 => {
                let to = self.dice.one_of(&KEYS);
                if to != key && self.place.has_all_keys() {
                    self.execute(vec![(script(RENAME, &[key, to]), Call::Rename(key.to_owned(), to.to_owned()))], &[]);
                }
            }
            82..92 => self.execute(vec![(command("GET", &[key]), Call::Get(key.to_owned()))], &[]),
            92..98 => {
                let sets = (0..5).map(|_| self.set_command(key, None)).collect();
                self.execute(sets, &[]);
            }
            98 if self.place.has_all_keys() => {
                self.execute(vec![(redis::cmd("FLUSHALL"), Call::ClearAll)], &[]);
            }
            _ => {}
        }
        self.dice.milliseconds(1, 8)
    }

    /// Sets a key to a new value, and executes more commands in the same turn of the server.
    pub(super) fn set(&mut self, key: &str, life: Option<Duration>, more: &[Cmd]) {
        let set = self.set_command(key, life);
        self.execute(vec![set], more);
    }

    /// Removes keys, one after the other.
    pub(super) fn clear(&mut self, keys: &[&str]) {
        let clears = keys.iter().map(|key| (command("UNLINK", &[key]), Call::Clear((*key).to_owned()))).collect();
        self.execute(clears, &[]);
    }

    fn set_command(&mut self, key: &str, life: Option<Duration>) -> (Cmd, Call) {
        self.written += 1;
        let value = format!("o-{}", self.written);
        let mut set = command("SET", &[key]);
        set.arg(&value);
        if let Some(life) = life {
            set.arg("PX").arg(u64::try_from(life.as_millis()).unwrap());
        }
        (set, Call::Set(key.to_owned(), value, life))
    }

    /// Executes commands in one turn of the server, and records them with the server's times before and after each.
    fn execute(&mut self, calls: Vec<(Cmd, Call)>, more: &[Cmd]) {
        let scene = self.run.scene();
        let mut pipeline = redis::pipe();
        for (command, _) in &calls {
            pipeline.cmd("TIME").add_command(command.clone());
        }
        pipeline.cmd("TIME");
        more.iter().for_each(|command| _ = pipeline.add_command(command.clone()));
        let made: Vec<&Call> = calls.iter().map(|(_, call)| call).collect();
        *lock(&self.run.change) = format!("the other program makes {made:?}");
        if self.connection.is_none() {
            let key = calls.first().and_then(|(_, call)| key_of(call));
            self.connection = self.place.client(key);
        }
        // Without a connection nothing was sent.
        let Some(connection) = &mut self.connection else { return };
        let sent = self.run.clock.now();
        let replies: Result<Vec<Value>, _> = pipeline.query(connection);
        let answered = self.run.clock.now();
        if replies.is_err() || !self.place.has_all_keys() {
            self.connection = None;
        }
        for (nth, (_, call)) in calls.into_iter().enumerate() {
            let (sent, answered, answer) = match &replies {
                Err(error) => (sent, answered, Answer::Error(error.to_string())),
                Ok(replies) => {
                    let (before, after) = (time(&replies[nth * 2]), time(&replies[nth * 2 + 2]));
                    let (sent, answered) = self.run.clock.narrow(before, after, sent, answered);
                    (sent, answered, answer(&call, &replies[nth * 2 + 1]))
                }
            };
            self.run.record(By::Other, call, sent, answered, answer, scene);
        }
    }
}

fn key_of(call: &Call) -> Option<&str> {
    match call {
        Call::Get(key) | Call::Set(key, ..) | Call::Clear(key) | Call::Expire(key, _) => Some(key),
        _ => None,
    }
}

fn command(name: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    keys.iter().for_each(|key| _ = command.arg(format!("{PREFIX}{key}")));
    command
}

fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut script = redis::cmd("EVAL");
    script.arg(text).arg(keys.len());
    keys.iter().for_each(|key| _ = script.arg(format!("{PREFIX}{key}")));
    script
}

/// The time of day that a server replies.
fn time(reply: &Value) -> Duration {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(reply).unwrap();
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

fn answer(call: &Call, reply: &Value) -> Answer {
    if !matches!(call, Call::Get(_) | Call::Expire(..) | Call::Rename(..)) {
        return Answer::Done;
    }
    let value: Option<Vec<u8>> = redis::from_redis_value_ref(reply).unwrap();
    let Some(value) = value else { return Answer::Miss };
    // Large values are padded.
    let value = String::from_utf8_lossy(&value).trim_end_matches('.').to_owned();
    let is_ours = value.split_once('-').is_some_and(|(_, number)| number.parse::<u64>().is_ok());
    match call {
        Call::Get(_) if !is_ours => Answer::Done,
        _ if !is_ours => Answer::HitUnknown,
        _ => Answer::Hit(value),
    }
}
