//! A Valkey or Redis server as a child process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::ports::free_port;
use crate::program::build_folder;
use crate::{skip, wait_for};

/// The environment variables that name another program for the tests on Valkey, and for those on Redis: a name in
/// `PATH`, or an absolute path.
const VALKEY: &str = "LARDER_TEST_VALKEY";
const REDIS: &str = "LARDER_TEST_REDIS";

/// The file in the working directory in which a server says why it ended.
const LOG: &str = "log";

/// The kind of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program that `LARDER_TEST_VALKEY` names, or else `valkey-server`.
    Valkey,
    /// The program that `LARDER_TEST_REDIS` names, or else `redis-server`.
    Redis,
    /// Valkey 8.1 or later, which has `SET … IFEQ`: the program that `LARDER_TEST_VALKEY` names, or else the server that
    /// `make servers` installs in the build directory, or else `valkey-server`.
    ValkeyWithIfeq,
    /// Valkey 9 or later, which moves slots in one step (`CLUSTER MIGRATESLOTS`): the program that `LARDER_TEST_VALKEY` names
    /// if it is one, or else the server that `make servers` installs in the build directory, or else `valkey-server`.
    Valkey9,
}

impl Kind {
    /// All kinds, for tests that must pass on every server. [`Kind::Valkey9`] is for tests about moving slots and announcements.
    pub const ALL: [Self; 3] = [Self::Valkey, Self::Redis, Self::ValkeyWithIfeq];

    /// The value of `type` in the configuration.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Valkey | Self::ValkeyWithIfeq | Self::Valkey9 => "valkey",
            Self::Redis => "redis",
        }
    }

    /// The name in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valkey | Self::ValkeyWithIfeq | Self::Valkey9 => "Valkey",
            Self::Redis => "Redis",
        }
    }

    /// The environment variable that names another program.
    fn variable(self) -> &'static str {
        match self {
            Self::Valkey | Self::ValkeyWithIfeq | Self::Valkey9 => VALKEY,
            Self::Redis => REDIS,
        }
    }

    /// The server's program.
    pub fn program(self) -> PathBuf {
        let named = std::env::var_os(self.variable()).map(PathBuf::from);
        let installed = |path: &str| {
            let servers = build_folder().parent().expect("the build directory is in `target`").join("servers");
            servers.join(path)
        };
        match self {
            Self::Valkey => named.unwrap_or_else(|| "valkey-server".into()),
            Self::Redis => named.unwrap_or_else(|| "redis-server".into()),
            Self::ValkeyWithIfeq => named.unwrap_or_else(|| {
                let own = installed("valkey-server");
                if own.exists() { own } else { "valkey-server".into() }
            }),
            Self::Valkey9 => {
                static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
                let own = || installed("valkey-9/valkey-server");
                let all = [named, Some(own()), Some("valkey-server".into())];
                let find = || all.into_iter().flatten().find(|program| is_valkey_9(program)).unwrap_or_else(own);
                PROGRAM.get_or_init(find).clone()
            }
        }
    }

    /// True if the program runs. If not, writes a note on standard error that the test is skipped; panics in CI, and if an
    /// environment variable names the program.
    pub fn is_installed(self) -> bool {
        let (program, variable) = (self.program(), self.variable());
        let version = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
        if let Some(named) = std::env::var_os(variable).filter(|named| program == *named) {
            let is_found = version.as_ref().is_ok_and(ExitStatus::success);
            assert!(is_found, "{variable} is `{}`, which does not run: {version:?}", named.display());
        }
        if version.is_err() {
            skip(&format!("`{}` is not installed; run `make servers`", program.display()));
        }
        version.is_ok()
    }
}

/// Whether a program runs and is Valkey 9 or later.
fn is_valkey_9(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let major = text.split(" v=").nth(1).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    text.starts_with("Valkey ") && major.is_some_and(|major| major >= 9)
}

/// A server process. Dropping this value kills it.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    /// The maximum size of a file that the server can write.
    file_kib: Option<u32>,
    port: u16,
    arguments: Vec<String>,
    child: Child,
    /// The working directory, with the server's files and socket.
    folder: TempDir,
}

impl Server {
    /// Starts a server on a free port, and waits until it answers.
    ///
    /// Returns `None`, with a note on standard error, if the program is not installed. Panics in CI.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[])
    }

    /// [`Server::start`] with additional options, such as `["--requirepass", "x"]`. With `--tls-cert-file`, the port
    /// accepts only TLS.
    pub fn start_with(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_limited(kind, None, arguments)
    }

    /// [`Server::start_with`] with a maximum size for the server's files in KiB. Writes beyond it fail, as on a full
    /// disk.
    pub fn start_with_file_limit(kind: Kind, file_kib: u32, arguments: &[&str]) -> Option<Self> {
        Self::start_limited(kind, Some(file_kib), arguments)
    }

    fn start_limited(kind: Kind, file_kib: Option<u32>, arguments: &[&str]) -> Option<Self> {
        if !kind.is_installed() {
            return None;
        }
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = TempDir::new().unwrap();
        // Another process may bind the free port before the server does. The server then exits, and another port is
        // tried.
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(kind, file_kib, port, &arguments, &folder);
            if is_up(&mut child, &folder) {
                return Some(Self { kind, file_kib, port, arguments, child, folder });
            }
        }
        panic!("cannot start `{}` with {arguments:?}", kind.program().display());
    }

    /// The kind of the server.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The working directory.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The TOML of a cache on this server.
    pub fn cache(&self, name: &str) -> String {
        self.cache_of_type(name, self.kind.type_name())
    }

    /// The TOML of a cache on this server, with another `type`.
    pub fn cache_of_type(&self, name: &str, type_name: &str) -> String {
        format!("[caches.{name}]\ntype = \"{type_name}\"\nhost = \"127.0.0.1\"\nport = {}\n", self.port)
    }

    /// Opens a client connection, to inspect and change the server's data.
    pub fn client(&self) -> redis::Connection {
        self.client_of_db(0)
    }

    /// Opens a client connection that selects a database.
    pub fn client_of_db(&self, db: u16) -> redis::Connection {
        self.open_client(db).unwrap()
    }

    /// [`Server::client`], or `None` if the server is not running.
    pub fn try_client(&self) -> Option<redis::Connection> {
        self.open_client(0).ok()
    }

    /// The value of an option that the server was started with, such as `--requirepass`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.arguments.iter().skip_while(|argument| *argument != name).nth(1).map(String::as_str)
    }

    /// Connects over the Unix socket, which needs no certificate.
    fn open_client(&self, db: u16) -> redis::RedisResult<redis::Connection> {
        let password = self.option("--requirepass").map(|password| format!("&pass={password}")).unwrap_or_default();
        let socket = socket(&self.folder);
        redis::Client::open(format!("redis+unix://{}?db={db}{password}", socket.display()))?.get_connection()
    }

    /// Kills the server (SIGKILL), as in a crash.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Suspends the process (SIGSTOP). Its connections stay open and get no replies, as when a machine hangs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// [`Server::freeze`] until the returned guard is dropped, also by a failed assertion.
    pub fn freeze_until_drop(&self) -> FrozenServer<'_> {
        self.freeze();
        FrozenServer(self)
    }

    /// Resumes a suspended process (SIGCONT).
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap().success());
    }

    /// Restarts a killed server on the same port, with the same working directory.
    pub fn restart(&mut self) {
        self.child = spawn(self.kind, self.file_kib, self.port, &self.arguments, &self.folder);
        if !is_up(&mut self.child, &self.folder) {
            let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
            panic!("the server does not restart:\n{log}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A suspended server. Dropping this value resumes it.
#[derive(Debug)]
#[must_use = "dropping this value resumes the server"]
pub struct FrozenServer<'a>(&'a Server);

impl Drop for FrozenServer<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

fn spawn(kind: Kind, file_kib: Option<u32>, port: u16, arguments: &[String], folder: &TempDir) -> Child {
    let port = port.to_string();
    let is_tls = arguments.iter().any(|argument| argument == "--tls-cert-file");
    let ports = if is_tls { ["--port", "0", "--tls-port", &port] } else { ["--port", &port, "--tls-port", "0"] };
    let mut command = match file_kib {
        None => Command::new(kind.program()),
        // The server inherits that SIGXFSZ is ignored, so a write beyond the limit fails with an error instead of a
        // signal. `ulimit -f` counts in units of 512 bytes.
        Some(kib) => {
            let mut shell = Command::new("sh");
            let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
            shell.arg("-c").arg(limit).arg(kind.program());
            shell
        }
    };
    command
        .args(ports)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder.path())
        .arg("--unixsocket")
        .arg(socket(folder))
        .arg("--logfile")
        .arg(folder.path().join(LOG))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The path of the server's Unix socket.
fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("socket")
}

/// Waits until the server answers, and returns true, or until it has exited, and returns false.
///
/// The request uses the Unix socket, which the server opens after its port. On the port, another server could answer
/// that bound it a moment earlier.
fn is_up(child: &mut Child, folder: &TempDir) -> bool {
    let client = redis::Client::open(format!("redis+unix://{}", socket(folder).display())).unwrap();
    wait_for("the server answers", || {
        if child.try_wait().unwrap().is_some() {
            return Some(false);
        }
        let reply =
            client.get_connection().and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
        match reply {
            Ok(_) => Some(true),
            // A server with a password.
            Err(error) if error.code() == Some("NOAUTH") => Some(true),
            Err(_) => None,
        }
    })
}
