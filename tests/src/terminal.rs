//! `larder` on a pseudoterminal, which the program `script` of util-linux creates.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::{program, wait_for};

/// The size of the terminal, as arguments of `stty`.
const SIZE: &str = "rows 40 cols 200";

/// A terminal in which `larder` runs. Dropping this value kills `script`, and `larder` receives SIGHUP.
#[derive(Debug)]
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs `larder` with these arguments, which a shell splits. The terminal shows `pid N` before, and afterwards
    /// `status N` and the settings of the terminal (`stty -a`).
    pub fn run(arguments: &str) -> Self {
        Self::run_with(&[], arguments)
    }

    /// As [`Terminal::run`], with these environment variables, and without `NO_COLOR` if it is none of them.
    pub fn run_with(variables: &[(&str, &str)], arguments: &str) -> Self {
        let larder = program();
        let larder = larder.display();
        let line =
            format!("stty {SIZE}; (sh -c 'echo pid $PPID'; exec '{larder}' {arguments}); echo status $?; stty -a");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh").env_remove("LARDER_CONFIG");
        script.env_remove("NO_COLOR").envs(variables.iter().copied());
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let keys = script.stdin.take().expect("the stream is piped");
        let mut stdout = script.stdout.take().expect("the stream is piped");
        let output = Arc::new(Mutex::new(Vec::new()));
        let received = output.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                received.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        Self { script, keys, output }
    }

    /// Sends key presses.
    pub fn press_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).unwrap();
    }

    /// Sends a signal to `larder`, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        let output = self.wait_for_text("pid ");
        let id = output.split("pid ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a process id");
        assert!(Command::new("kill").args([signal, id]).status().unwrap().success());
    }

    /// Waits until the output contains a text, and returns the whole output with its control sequences. A redraw sends
    /// only the cells that have changed, so wait for a text in cells that were empty before.
    pub fn wait_for_text(&self, text: &str) -> String {
        let all = || String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned();
        wait_for(text, || Some(all()).filter(|all| all.contains(text)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _already_dead = self.script.kill();
        let _reaped = self.script.wait();
    }
}
