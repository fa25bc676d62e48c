//! The host's side: starts the process, exchanges the bytes, and ends the process at the deadline.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use super::outcome::{Ended, judge};
use crate::engine::EngineKind;
use crate::loading::{CompiledForm, Refusal};

/// The limits of one compilation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The memory of the process, in bytes.
    pub(crate) memory: u64,
    /// The time of the clock, and of the processors together.
    pub(crate) time: Duration,
    /// The compiled form, in bytes.
    pub(crate) compiled: u64,
}

/// Precedes the component, so that a program that does not expect one fails at once.
pub(super) const MAGIC: [u8; 8] = *b"larder\x00\x02";

/// Flags for the kind of engine that the component needs.
const CONCURRENT: u64 = 1;
const LARGE: u64 = 2;

/// How much of the process's messages is read, in bytes.
const MAX_MESSAGE: u64 = 4096;

/// The maximum number of threads of the process: each needs memory for its stack and its allocations.
const MAX_THREADS: usize = 8;

/// How often the host looks whether the process has ended after its output has.
const EXIT_POLL: Duration = Duration::from_millis(1);

/// Compiles a component in a new process.
pub(super) fn compile(
    program: &Path,
    args: &[OsString],
    component: &[u8],
    kind: EngineKind,
    bounds: Bounds,
) -> Result<CompiledForm, Refusal> {
    let failed = |error: io::Error| {
        Refusal::new("crashed", &format!("cannot run the compiler `{}`: {error}", program.display()))
    };
    let deadline = Instant::now().checked_add(bounds.time);
    let mut child = start(program, args).map_err(failed)?;
    let outcome = exchange(&mut child, &head(kind, bounds), component, bounds, deadline);
    if outcome.is_err() {
        // It may have ended already. What matters is that it has ended when its place is given to another one.
        let _ended = child.kill();
        let _reaped = child.wait();
    }
    let (compiled, ended) = outcome.map_err(failed)?;
    judge(compiled, &ended, bounds)
}

fn start(program: &Path, args: &[OsString]) -> io::Result<Child> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).to_string();
    let mut command = Command::new(program);
    command.args(args).env_clear().env("RAYON_NUM_THREADS", &threads).env("MALLOC_ARENA_MAX", &threads);
    // The limit counts what is writable: of a program with mimalloc, else a GiB from the beginning.
    command.env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // Ctrl-C in a terminal is for the host, which may go on until its requests have ended.
        command.process_group(0).arg0("larder");
    }
    command.spawn()
}

/// Writes the component while threads read the outputs. Kills the process at the deadline or if it writes too much.
fn exchange(
    child: &mut Child,
    head: &[u8],
    component: &[u8],
    bounds: Bounds,
    deadline: Option<Instant>,
) -> io::Result<(CompiledForm, Ended)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let exchanging = (|| {
            spawn(scope, move || {
                // A process that ends early says why in another way.
                let _result = stdin.map(|mut stdin| stdin.write_all(head).and_then(|()| stdin.write_all(component)));
            })?;
            let messages = read_in_thread(scope, move || {
                let mut message = Vec::new();
                // What was read before an error is a message too.
                let _result = stderr.map(|stderr| stderr.take(MAX_MESSAGE).read_to_end(&mut message));
                message
            })?;
            let max = bounds.compiled.saturating_add(1);
            let compiled = read_in_thread(scope, move || match stdout {
                Some(stdout) => CompiledForm::read(stdout, max),
                None => Ok(Vec::new().into()),
            })?;
            let left = || deadline.map_or(bounds.time, |deadline| deadline.saturating_duration_since(Instant::now()));
            let Ok(compiled) = compiled.recv_timeout(left()) else {
                child.kill()?;
                return Ok((Vec::new().into(), Ended { status: child.wait()?, is_late: true, message: String::new() }));
            };
            let compiled = compiled?;
            if compiled.len() > bounds.compiled {
                child.kill()?;
            }
            let (status, is_late) = wait(child, left)?;
            let message = messages.recv().unwrap_or_default();
            let message = String::from_utf8_lossy(&message).into_owned();
            Ok((compiled, Ended { status, is_late, message }))
        })();
        if exchanging.is_err() {
            // Its threads end when the process's side of the pipes is closed.
            let _ended = child.kill();
        }
        exchanging
    })
}

/// The magic, the kind of the engine, and the limits that the process sets itself.
fn head(kind: EngineKind, bounds: Bounds) -> Vec<u8> {
    let seconds = bounds.time.as_secs().saturating_add(1);
    let EngineKind { is_concurrent, is_small } = kind;
    let flags = if is_concurrent { CONCURRENT } else { 0 } | if is_small { 0 } else { LARGE };
    [MAGIC, flags.to_le_bytes(), bounds.memory.to_le_bytes(), seconds.to_le_bytes()].concat()
}

/// The kind of the engine that the process reads.
pub(super) fn kind_of(kind: [u8; 8]) -> EngineKind {
    let flags = u64::from_le_bytes(kind);
    EngineKind { is_concurrent: flags & CONCURRENT != 0, is_small: flags & LARGE == 0 }
}

/// Waits for the end of a process whose output has ended. True if it had to be killed.
fn wait(child: &mut Child, left: impl Fn() -> Duration) -> io::Result<(ExitStatus, bool)> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if left().is_zero() {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        std::thread::sleep(EXIT_POLL);
    }
}

/// Starts a thread. Unlike [`Scope::spawn`], it does not panic if the system has no more threads.
fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, job: impl FnOnce() + Send + 'scope) -> io::Result<()> {
    Builder::new().name("larder-compiler".to_owned()).spawn_scoped(scope, job).map(drop)
}

/// Reads a stream in a thread, and closes it.
fn read_in_thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    read: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<Receiver<T>> {
    let (sender, receiver) = channel();
    spawn(scope, move || {
        // The receiver is gone if the process was killed.
        let _received = sender.send(read());
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_reads_the_kind_that_the_host_writes() {
        let bounds = Bounds { memory: 1, time: Duration::ZERO, compiled: 1 };
        for (is_concurrent, is_small) in [(false, false), (false, true), (true, false), (true, true)] {
            let kind = EngineKind { is_concurrent, is_small };
            let head = head(kind, bounds);
            assert_eq!(kind_of(*head[8..].first_chunk().unwrap()), kind);
        }
    }
}
