//! The `larder` program as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};

use tempfile::TempDir;

use crate::{PATIENCE, wait_for};

/// The build's folder for this profile: this test stands in its `deps`.
pub(crate) fn build_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).expect("a test stands in `target/<profile>/deps`").to_owned()
}

/// The `larder` program.
pub fn program() -> PathBuf {
    let program = build_folder().join("larder");
    assert!(program.exists(), "`{}` is missing: run `make test`, or `cargo build` first", program.display());
    program
}

/// A plugin by the name of its binary or library, as `make guests` builds it.
pub fn guest(name: &str) -> PathBuf {
    let folder = build_folder().parent().expect("a profile stands in `target`").join("wasm32-wasip2/release");
    let guest = folder.join(format!("{name}.wasm"));
    assert!(guest.exists(), "`{}` is missing: run `make guests` first", guest.display());
    guest
}

/// The plugin of `examples/python` or `examples/javascript`, as `make languages` builds it, or `None` with a word on
/// standard error where its tools cannot be had; in CI that is a failure.
pub fn language(name: &str) -> Option<PathBuf> {
    built("languages", name)
}

/// The plugin of a language as `larder new` writes it and `make templates` builds it, or `None` as in [`language`].
pub fn template(name: &str) -> Option<PathBuf> {
    built("templates", name)
}

/// A plugin that a target of the Makefile builds into the folder of its own name.
fn built(target: &str, name: &str) -> Option<PathBuf> {
    let folder = build_folder().parent().expect("a profile stands in `target`").join(target);
    let plugin = folder.join(format!("{name}.wasm"));
    if !plugin.exists() {
        let missing = format!("`{}` is missing", plugin.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("skipped: {missing}; `make {target}` builds it, or says why not");
        return None;
    }
    Some(plugin)
}

/// A `larder` command in an empty folder, with nothing of the surrounding environment that it reads.
#[derive(Debug)]
pub struct Larder {
    command: Command,
    folder: TempDir,
}

impl Larder {
    /// `larder` with these arguments.
    pub fn new<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(program());
        command.args(arguments).current_dir(folder.path());
        let is_read =
            |name: &str| ["LARDER_", "VALKEY_", "REDIS_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_read)) {
            command.env_remove(variable);
        }
        // Shared by all tests, so that each plugin is compiled once.
        command.env("LARDER_COMPILED", build_folder().join("larder-compiled"));
        Self { command, folder }
    }

    /// `larder run` of a plugin.
    pub fn run(name: &str) -> Self {
        Self::new(["run".as_ref(), guest(name).as_os_str()])
    }

    /// `larder serve` on a free port of loopback.
    pub fn serve() -> Self {
        Self::new(["serve", "--addr", "127.0.0.1:0"])
    }

    /// `larder run` of a plugin, with options of `run` in front of it, such as `["--name", "shop"]`.
    pub fn run_with(options: &[&str], name: &str) -> Self {
        let plugin = guest(name);
        let run = std::iter::once("run").chain(options.iter().copied()).map(AsRef::as_ref);
        Self::new(run.chain(std::iter::once(plugin.as_os_str())))
    }

    /// Writes `larder.toml` into the working folder.
    #[must_use]
    pub fn config(self, toml: &str) -> Self {
        std::fs::write(self.folder.path().join("larder.toml"), toml).unwrap();
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// An environment variable for `larder` itself.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The working folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and leaves it running.
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let stdin = child.stdin.take();
        // Both are read at once, so that a talkative plugin never waits for us, and we never for a silent one.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).unwrap() > 0 && sender.send(std::mem::take(&mut line)).is_ok() {}
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Running { child, stdin, stdout: lines, stderr: Some(stderr), _folder: self.folder }
    }

    /// Runs it to its end with nothing on standard input.
    pub fn finish(self) -> Finished {
        self.start().finish()
    }

    /// Runs it to its end, and panics with all it said unless it succeeds.
    pub fn succeed(self) -> Finished {
        self.start().succeed()
    }

    /// Runs it to its end, and panics unless it fails with this status.
    pub fn fail(self, status: i32) -> Finished {
        let finished = self.finish();
        assert_eq!(finished.status, Some(status), "{finished:#?}");
        finished
    }
}

/// A `larder` that runs; ends with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The lines of its standard output, with their ends.
    stdout: Receiver<Vec<u8>>,
    stderr: Option<std::thread::JoinHandle<String>>,
    _folder: TempDir,
}

impl Running {
    /// The process's id, for signals and `/proc`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has had so far, in bytes, as the system counts it.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
        peak.parse::<u64>().unwrap() << 10
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap();
    }

    /// The next line of its standard output; empty at the end. Panics when [`PATIENCE`] runs out.
    pub fn line(&mut self) -> String {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => text(&line),
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => panic!("waited {PATIENCE:?} in vain for a line"),
        }
    }

    /// [`Running::line`], or `None` where there is none yet.
    pub fn line_so_far(&mut self) -> Option<String> {
        match self.stdout.try_recv() {
            Ok(line) => Some(text(&line)),
            Err(TryRecvError::Disconnected) => Some(String::new()),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, as a service manager does.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap().success());
    }

    /// Closes its standard input and waits for its end.
    pub fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let stdout = self.stdout.iter().flatten().collect::<Vec<u8>>();
        let status = wait_for("larder to end", || self.child.try_wait().unwrap());
        let stderr = self.stderr.take().expect("read once").join().unwrap();
        Finished { status: status.code(), stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr }
    }

    /// [`Running::finish`], and panics with all it said unless it succeeded.
    pub fn succeed(self) -> Finished {
        let finished = self.finish();
        assert_eq!(finished.status, Some(0), "{finished:#?}");
        finished
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a `larder` said, and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status; none after a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The one line on standard error; panics when it is not one.
    pub fn complaint(&self) -> &str {
        let mut lines = self.stderr.lines();
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            _ => panic!("not one line on standard error: {self:#?}"),
        }
    }
}
