//! The `larder` program as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

use crate::{TEST_TIMEOUT, skip, wait_for};

/// The build directory of this profile. The test executable is in its subdirectory `deps`.
pub(crate) fn build_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).expect("the test is in `target/<profile>/deps`").to_owned()
}

/// The path of the `larder` program: the one that `LARDER_PROGRAM` names, or else the one in the build directory. Panics if
/// it is not built.
pub fn program() -> PathBuf {
    let program = std::env::var_os("LARDER_PROGRAM").map_or_else(|| build_folder().join("larder"), Into::into);
    assert!(program.exists(), "`{}` is missing: run `make test`, or `cargo build` first", program.display());
    program
}

/// The path of a plugin built by `make guests`, by the name of its binary or library. Panics if it is not built.
pub fn guest(name: &str) -> PathBuf {
    let folder = build_folder().parent().expect("the build directory is in `target`").join("wasm32-wasip2/release");
    let guest = folder.join(format!("{name}.wasm"));
    assert!(guest.exists(), "`{}` is missing: run `make guests` first", guest.display());
    guest
}

/// The path of a plugin of `examples/python` or `examples/javascript`, built by `make languages`: `python`,
/// `python-served`, `javascript` or `javascript-served`; or of `tests/guests/languages`: `python-keyvalue` or
/// `javascript-keyvalue`.
///
/// Returns `None`, with a note on standard error, if it is not built because its tools are unavailable. Panics in CI.
pub fn language_plugin(name: &str) -> Option<PathBuf> {
    built("languages", name)
}

/// The path of a plugin that `larder new` creates and `make templates` builds, such as `rust` or `rust-http`, or `None` as
/// in [`language_plugin`].
pub fn template_plugin(name: &str) -> Option<PathBuf> {
    built("templates", name)
}

/// A plugin in the directory of the Makefile's target that builds it.
fn built(target: &str, name: &str) -> Option<PathBuf> {
    let folder = build_folder().parent().expect("the build directory is in `target`").join(target);
    let plugin = folder.join(format!("{name}.wasm"));
    if !plugin.exists() {
        skip(&format!("`{}` is missing; `make {target}` builds it, or prints why it cannot", plugin.display()));
        return None;
    }
    compile_once(&plugin);
    Some(plugin)
}

/// Compiles a plugin before the first test uses it. An interpreter takes minutes beside other tests, so that they are compiled
/// one after the other, and each by one test for all. A plugin that is compiled waits for no other.
fn compile_once(plugin: &Path) {
    static COMPILED: Mutex<BTreeMap<PathBuf, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());
    static COMPILER: Mutex<()> = Mutex::new(());
    let compiled =
        COMPILED.lock().unwrap_or_else(PoisonError::into_inner).entry(plugin.to_owned()).or_default().clone();
    compiled.get_or_init(|| {
        let _alone = COMPILER.lock().unwrap_or_else(PoisonError::into_inner);
        let config = "[sandbox]\ncompile_timeout = \"10m\"\n";
        let (mut command, _folder) = Larder::new(["plugin", "inspect"]).config(config).arg(plugin).into_command();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}: {output:#?}", plugin.display());
    });
}

/// A `larder` command that runs in an empty directory, without the environment variables that `larder` reads.
#[derive(Debug)]
pub struct Larder {
    command: Command,
    folder: TempDir,
}

impl Larder {
    /// Creates the command `larder` with these arguments.
    pub fn new<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(program());
        command.args(arguments).current_dir(folder.path());
        let is_read =
            |name: &str| ["LARDER_", "VALKEY_", "REDIS_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_read)) {
            command.env_remove(variable);
        }
        // All tests share the compilation cache, so that each plugin is compiled once.
        command.env("LARDER_COMPILED", build_folder().join("larder-compiled"));
        Self { command, folder }
    }

    /// Creates the command `larder run` for a plugin.
    pub fn run(name: &str) -> Self {
        Self::new(["run".as_ref(), guest(name).as_os_str()])
    }

    /// Creates the command `larder serve` on a free port of loopback.
    pub fn serve() -> Self {
        Self::new(["serve", "--addr", "127.0.0.1:0"])
    }

    /// Creates the command `larder run` for a plugin, with options such as `["--name", "shop"]`.
    pub fn run_with(options: &[&str], name: &str) -> Self {
        let plugin = guest(name);
        let run = std::iter::once("run").chain(options.iter().copied()).map(AsRef::as_ref);
        Self::new(run.chain(std::iter::once(plugin.as_os_str())))
    }

    /// Writes `larder.toml` into the working directory.
    #[must_use]
    pub fn config(self, toml: &str) -> Self {
        std::fs::write(self.folder.path().join("larder.toml"), toml).unwrap();
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets an environment variable of the `larder` process.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The working directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command, for a test that does with its streams what no other does, and the working directory.
    pub fn into_command(self) -> (Command, TempDir) {
        (self.command, self.folder)
    }

    /// Starts the process.
    pub fn start(mut self) -> LarderProcess {
        LarderProcess::start(&mut self.command, self.folder)
    }

    /// Runs the command to its end with empty standard input.
    pub fn finish(self) -> LarderOutput {
        self.start().finish()
    }

    /// Runs the command to its end. Panics with its output if it fails.
    pub fn succeed(self) -> LarderOutput {
        self.start().succeed()
    }

    /// Runs the command to its end. Panics with its output unless it fails with this exit status.
    pub fn fail(self, status: i32) -> LarderOutput {
        let finished = self.finish();
        assert_eq!(finished.status, Some(status), "{finished:#?}");
        finished
    }
}

/// A `larder` process. Dropping this value kills it.
#[derive(Debug)]
pub struct LarderProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The lines of standard output, with their line breaks.
    stdout: Receiver<Vec<u8>>,
    stderr: Option<std::thread::JoinHandle<String>>,
    _folder: TempDir,
}

impl LarderProcess {
    /// Starts a command, of `larder` or of a program that runs it. The folder is removed with this value.
    pub fn start(command: &mut Command, folder: TempDir) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        // Threads read both streams, so that neither a full pipe nor a silent plugin blocks the other side.
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
        Self { child, stdin, stdout: lines, stderr: Some(stderr), _folder: folder }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The peak resident memory in bytes (`VmHWM`).
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
        peak.parse::<u64>().unwrap() << 10
    }

    /// Writes a line to standard input.
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap();
    }

    /// Waits for the next line of standard output, and returns it without its line break. Returns an empty string at
    /// the end of the output. Panics after [`TEST_TIMEOUT`].
    pub fn read_line(&mut self) -> String {
        match self.stdout.recv_timeout(TEST_TIMEOUT) {
            Ok(line) => text(&line),
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => panic!("timed out after {TEST_TIMEOUT:?}: no line on standard output"),
        }
    }

    /// Returns the next line of standard output, or `None` if there is none yet.
    pub fn try_read_line(&mut self) -> Option<String> {
        match self.stdout.try_recv() {
            Ok(line) => Some(text(&line)),
            Err(TryRecvError::Disconnected) => Some(String::new()),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Kills the process (SIGKILL), as in a crash.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM, as a service manager does.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends a signal, such as `-HUP`. Panics if this process ignores it: `larder` then does so too, and would not end.
    pub fn signal(&self, signal: &str) {
        assert!(
            !is_ignored(signal),
            "larder ignores {signal} because these tests do: start them without nohup, and not in the background of a script"
        );
        assert!(Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap().success());
    }

    /// Closes standard input and waits until the process has exited.
    pub fn finish(mut self) -> LarderOutput {
        drop(self.stdin.take());
        let stdout = self.stdout.iter().flatten().collect::<Vec<u8>>();
        let status = wait_for("larder has exited", || self.child.try_wait().unwrap());
        let stderr = self.stderr.take().expect("standard error is read once").join().unwrap();
        LarderOutput { status: status.code(), stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr }
    }

    /// Waits until the process has exited, with its standard input open.
    pub fn wait(mut self) -> LarderOutput {
        let _open = self.stdin.take();
        self.finish()
    }

    /// [`LarderProcess::finish`]. Panics with the process's output if it failed.
    pub fn succeed(self) -> LarderOutput {
        let finished = self.finish();
        assert_eq!(finished.status, Some(0), "{finished:#?}");
        finished
    }
}

/// True if this process ignores a signal that a shell may ignore. Its children inherit that.
fn is_ignored(signal: &str) -> bool {
    let bit: u64 = match signal {
        "-HUP" => 1,
        "-INT" => 1 << 1,
        _ => return false,
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & bit != 0)
}

/// The process that this process has started. Waits until there is one.
pub fn child_of(parent: u32) -> u32 {
    let parent = format!("PPid:\t{parent}");
    let is_child = |status: &str| status.lines().any(|line| line == parent);
    wait_for("the process has a child", || {
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find(
            |process: &u32| {
                std::fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|text| is_child(&text))
            },
        )
    })
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

impl Drop for LarderProcess {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The output and exit status of a `larder` process.
#[derive(Debug)]
pub struct LarderOutput {
    /// The exit status, or `None` if a signal ended the process.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl LarderOutput {
    /// The only line on standard error. Panics if there is not exactly one line.
    pub fn error_line(&self) -> &str {
        let mut lines = self.stderr.lines();
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            _ => panic!("expected one line on standard error: {self:#?}"),
        }
    }
}
