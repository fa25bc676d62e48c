//! A `larder` on a terminal, which `script` of util-linux makes.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::{program, wait_for};

/// How large it is.
const SIZE: &str = "rows 40 cols 200";

/// A terminal with a `larder` on it; both end with this value.
#[derive(Debug)]
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs `larder` with these words of a shell. Its process's id is written before, and afterwards its exit status and
    /// how the terminal is set.
    pub fn run(words: &str) -> Self {
        let larder = program();
        let larder = larder.display();
        let line = format!("stty {SIZE}; (sh -c 'echo pid $PPID'; exec '{larder}' {words}); echo status $?; stty -a");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh").env_remove("LARDER_CONFIG");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let keys = script.stdin.take().expect("it is piped");
        let mut stdout = script.stdout.take().expect("it is piped");
        let written = Arc::new(Mutex::new(Vec::new()));
        let taken = written.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut part) {
                taken.lock().unwrap().extend_from_slice(&part[..count]);
            }
        });
        Self { script, keys, written }
    }

    /// Types keys.
    pub fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).unwrap();
    }

    /// Sends `larder` a signal, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        let written = self.shows("pid ");
        let id =
            written.split("pid ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("it is written whole");
        assert!(Command::new("kill").args([signal, id]).status().unwrap().success());
    }

    /// Waits until it has been written, and gives all that has been, control sequences included. What stood in its place
    /// is not written again where it is the same: so ask for a word in a place that was empty.
    pub fn shows(&self, word: &str) -> String {
        let all = || String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
        wait_for(word, || Some(all()).filter(|all| all.contains(word)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What runs on it is hung up on.
        let _already_dead = self.script.kill();
        let _reaped = self.script.wait();
    }
}
