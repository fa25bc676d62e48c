//! A Valkey or Redis server as a child process.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::program::build_folder;
use crate::wait_for;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `valkey-server`.
    Valkey,
    /// `redis-server`.
    Redis,
    /// A Valkey of 8.1 or later, which compares and sets in one command: the one that `make servers` puts into the
    /// build's folder, or `valkey-server` where that is new enough.
    NewValkey,
}

impl Kind {
    /// All, for tests that hold for any.
    pub const ALL: [Self; 3] = [Self::Valkey, Self::Redis, Self::NewValkey];

    /// Its word in a configuration's `type`.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Valkey | Self::NewValkey => "valkey",
            Self::Redis => "redis",
        }
    }

    /// Its name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valkey | Self::NewValkey => "Valkey",
            Self::Redis => "Redis",
        }
    }

    pub(crate) fn program(self) -> PathBuf {
        match self {
            Self::Valkey => "valkey-server".into(),
            Self::Redis => "redis-server".into(),
            Self::NewValkey => {
                let own = build_folder().parent().expect("a profile stands in `target`").join("servers/valkey-server");
                if own.exists() { own } else { "valkey-server".into() }
            }
        }
    }
}

/// A server that ends with this value.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    /// The longest that a file of its may be.
    file_kib: Option<u32>,
    port: u16,
    arguments: Vec<String>,
    child: Child,
    /// Its working folder, where it keeps what it keeps.
    folder: TempDir,
}

impl Server {
    /// Starts a server, or answers `None` with a word on standard error where the program is not installed; in CI that
    /// is a failure.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[])
    }

    /// [`Server::start`] with more of the server's options, such as `["--requirepass", "x"]`. One that is given a
    /// `--tls-cert-file` speaks nothing but TLS on its port.
    pub fn start_with(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_limited(kind, None, arguments)
    }

    /// [`Server::start_with`], where no file may be longer than so many KiB: to the server its disk is full.
    pub fn start_within(kind: Kind, file_kib: u32, arguments: &[&str]) -> Option<Self> {
        Self::start_limited(kind, Some(file_kib), arguments)
    }

    fn start_limited(kind: Kind, file_kib: Option<u32>, arguments: &[&str]) -> Option<Self> {
        let program = kind.program();
        if Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_err() {
            let missing = format!("`{}` is not installed", program.display());
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            eprintln!("skipped: {missing}; `make servers` installs it");
            return None;
        }
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = TempDir::new().unwrap();
        // Between our letting go of a free port and the server's taking it somebody else may; then it ends, and we try
        // another.
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(kind, file_kib, port, &arguments, &folder);
            if is_up(&mut child, &folder) {
                return Some(Self { kind, file_kib, port, arguments, child, folder });
            }
        }
        panic!("`{}` does not start", program.display());
    }

    /// Which server it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process's id, for signals.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A cache's table in TOML, with the server's own type.
    pub fn cache(&self, name: &str) -> String {
        self.cache_of_type(name, self.kind.type_name())
    }

    /// A cache's table in TOML.
    pub fn cache_of_type(&self, name: &str, type_name: &str) -> String {
        format!("[caches.{name}]\ntype = \"{type_name}\"\nhost = \"127.0.0.1\"\nport = {}\n", self.port)
    }

    /// A client of its own, to look at what the server holds.
    pub fn client(&self) -> redis::Connection {
        self.client_of_db(0)
    }

    /// A client for one of the databases.
    pub fn client_of_db(&self, db: u16) -> redis::Connection {
        self.open_client(db).unwrap()
    }

    /// [`Server::client`], unless the server is down.
    pub fn try_client(&self) -> Option<redis::Connection> {
        self.open_client(0).ok()
    }

    /// What it was started with for an option, such as `--requirepass`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.arguments.iter().skip_while(|argument| *argument != name).nth(1).map(String::as_str)
    }

    /// Through the socket, where no certificate is asked for.
    fn open_client(&self, db: u16) -> redis::RedisResult<redis::Connection> {
        let password = self.option("--requirepass").map(|password| format!("&pass={password}")).unwrap_or_default();
        let socket = socket(&self.folder);
        redis::Client::open(format!("redis+unix://{}?db={db}{password}", socket.display()))?.get_connection()
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Holds the server's process: its connections stay open and nobody answers, as when a machine hangs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a held server go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap().success());
    }

    /// Starts a killed server again, on the same port and folder.
    pub fn restart(&mut self) {
        self.child = spawn(self.kind, self.file_kib, self.port, &self.arguments, &self.folder);
        assert!(is_up(&mut self.child, &self.folder), "the server does not start again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A port that was free a moment ago, and is not given again soon.
///
/// It is below those that the system gives to clients. Else a client that calls a server which is down would sooner or
/// later be given the very port it calls, and reach itself; and a server could not come back on a port that a client
/// has.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes that run at the same time begin at different places.
        let nth = std::process::id().wrapping_mul(997).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = FIRST.saturating_add(u16::try_from(nth % COUNT).unwrap());
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn spawn(kind: Kind, file_kib: Option<u32>, port: u16, arguments: &[String], folder: &TempDir) -> Child {
    let port = port.to_string();
    // A server that is given a certificate is one that speaks nothing but TLS.
    let is_tls = arguments.iter().any(|argument| argument == "--tls-cert-file");
    let ports = if is_tls { ["--port", "0", "--tls-port", &port] } else { ["--port", &port, "--tls-port", "0"] };
    let mut command = match file_kib {
        None => Command::new(kind.program()),
        // A signal that is ignored here is ignored by the server, to which the write then fails. `sh` counts in 512 bytes.
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
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The server's socket in its folder.
fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("socket")
}

/// Waits until the server answers, even if only to ask for a password, or has ended.
///
/// It is asked through its socket, which nobody else has and which it opens after its port: on the port another server
/// may answer that was given it a moment earlier, while ours is about to end.
fn is_up(child: &mut Child, folder: &TempDir) -> bool {
    let client = redis::Client::open(format!("redis+unix://{}", socket(folder).display())).unwrap();
    wait_for("the server to answer", || {
        if child.try_wait().unwrap().is_some() {
            return Some(false);
        }
        let answer =
            client.get_connection().and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
        match answer {
            Ok(_) => Some(true),
            Err(error) if error.code() == Some("NOAUTH") => Some(true),
            Err(_) => None,
        }
    })
}
