//! The processes under load: `larder serve` and `wasmtime serve`.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use larder_tests::{Larder, guest, program};
use tempfile::TempDir;

use crate::cores::Cores;

/// A host that serves one component. Dropping this value kills the process.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    address: SocketAddr,
    _folder: Option<TempDir>,
}

/// The program `larder` that is measured, or the one of this environment variable.
pub(crate) fn larder() -> PathBuf {
    std::env::var_os("LARDER_PROGRAM").map_or_else(program, Into::into)
}

/// True if this `larder` takes the configuration. Panics if it refuses it for a reason other than an unknown key.
pub(crate) fn knows(config: &str) -> bool {
    let (command, folder) = Larder::new(["check"]).config(config).into_command();
    let output = like(&command, Command::new(larder())).current_dir(folder.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || error.contains("unknown key"), "{error}");
    output.status.success()
}

impl Host {
    /// Starts a `larder serve` of this plugin. With `workers`, it has that many worker threads instead of one for each
    /// core.
    pub(crate) fn larder(
        program: impl AsRef<std::ffi::OsStr>,
        config: &str,
        plugin: &str,
        cores: &Cores,
        workers: Option<usize>,
    ) -> Self {
        // `wasmtime serve` writes no access log.
        let larder = Larder::serve().config(config).env("LARDER_LOG", "warn").arg(guest(plugin));
        let (command, folder) = larder.into_command();
        let mut command = like(&command, cores.on_host(program));
        command.current_dir(folder.path());
        if let Some(workers) = workers {
            command.env("TOKIO_WORKER_THREADS", workers.to_string());
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("`taskset` of util-linux runs");
        let address = address(child.stdout.take().unwrap());
        Self { child, address, _folder: Some(folder) }
    }

    /// Starts a `wasmtime serve` of this plugin.
    pub(crate) fn wasmtime(program: &str, options: &[&str], plugin: &str, cores: &Cores) -> Self {
        let mut command = cores.on_host(program);
        command.args(["serve", "-Scli", "--addr", "127.0.0.1:0"]).args(options).arg(guest(plugin));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("`taskset` of util-linux runs");
        let address = address(child.stderr.take().unwrap());
        Self { child, address, _folder: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Gives a command the arguments and the environment of another.
fn like(other: &Command, mut command: Command) -> Command {
    command.args(other.get_args());
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Reads the address from the first line that a host prints, and copies the other lines to standard error.
fn address(output: impl Read + Send + 'static) -> SocketAddr {
    let (mut output, mut line) = (BufReader::new(output), String::new());
    output.read_line(&mut line).unwrap();
    let address = line.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let address = address.parse().unwrap_or_else(|_| panic!("no address in `{line}`"));
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::stderr()));
    address
}
