//! A primary and a replica, monitored by three sentinels.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ports::free_port;
use crate::{Kind, Server, wait_for};

/// A primary, a replica and three sentinels. Dropping this value kills all of them.
#[derive(Debug)]
pub struct Sentinels {
    /// The initial primary, and its replica.
    pub servers: [Server; 2],
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    password: Option<String>,
    child: Child,
    folder: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Sentinels {
    /// The name under which the sentinels monitor the primary.
    pub const MASTER: &str = "main";

    /// Starts all processes, and waits until the sentinels know each other and the replica. Returns `None` if the
    /// server is not installed, as [`Server::start`] does.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[], &[])
    }

    /// [`Sentinels::start`] with additional options for the servers, and additional lines for the configuration of the
    /// sentinels. With a `tls-cert-file`, the port of a sentinel accepts only TLS.
    pub fn start_with(kind: Kind, options: &[&str], lines: &[&str]) -> Option<Self> {
        let primary = Server::start_with(kind, options)?;
        let follow = ["--replicaof", &format!("127.0.0.1 {}", primary.port())];
        let replica = Server::start_with(kind, &[options, &follow].concat())?;
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(kind, primary.port(), lines)).collect();
        let deployment = Self { servers: [primary, replica], sentinels };
        wait_for("the sentinels know each other and the replica", || {
            let knows = |sentinel: &Sentinel| {
                let fields = sentinel.ask::<Vec<String>>(&["SENTINEL", "MASTER", Self::MASTER]).unwrap_or_default();
                let number = |name: &str| fields.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
                number("num-slaves").as_deref() == Some("1") && number("num-other-sentinels").as_deref() == Some("2")
            };
            deployment.sentinels.iter().all(knows).then_some(())
        });
        Some(deployment)
    }

    /// The TOML of a cache on this deployment.
    pub fn cache(&self, name: &str) -> String {
        let nodes: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("\"127.0.0.1:{}\"", sentinel.port)).collect();
        let (kind, master, nodes) = (self.servers[0].kind().type_name(), Self::MASTER, nodes.join(", "));
        format!("[caches.{name}]\ntype = \"{kind}\"\nsentinel = {{ master = \"{master}\", nodes = [{nodes}] }}\n")
    }

    /// Kills the sentinel that the TOML lists first.
    pub fn kill_the_first_sentinel(&mut self) {
        self.sentinels[0].child.kill().unwrap();
        self.sentinels[0].child.wait().unwrap();
    }

    /// Requests a failover to the replica. The sentinels may refuse it.
    pub fn fail_over(&self) {
        let _refused: Option<()> = self.sentinels[1].ask(&["SENTINEL", "FAILOVER", Self::MASTER]);
    }

    /// Raises `down-after-milliseconds` to 10 s, so that a pause on a busy machine does not count as down. The
    /// sentinels reconfigure an old primary as a replica only after it has been up for 8 s without interruption; with
    /// the initial 500 ms, short pauses would restart that time.
    pub fn raise_down_after(&self) {
        for sentinel in &self.sentinels {
            let command = ["SENTINEL", "SET", Self::MASTER, "down-after-milliseconds", "10000"];
            let _killed: Option<()> = sentinel.ask(&command);
        }
    }

    /// Sends a command to all sentinels, as their user `default`. Panics if one refuses it.
    pub fn ask_all(&self, command: &[&str]) {
        for sentinel in &self.sentinels {
            sentinel.ask::<()>(command).expect("the sentinel executes the command");
        }
    }

    /// Waits until all running sentinels report this server as the primary.
    pub fn wait_for_primary(&self, server: usize) {
        let port = self.servers[server].port().to_string();
        wait_for("the sentinels agree on the new primary", || {
            let agrees = |sentinel: &Sentinel| {
                let address = sentinel.ask::<Vec<String>>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER]);
                address.is_none_or(|address| address[1] == port)
            };
            self.sentinels.iter().all(agrees).then_some(())
        });
    }
}

impl Sentinel {
    fn start(kind: Kind, primary: u16, lines: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("sentinel.conf");
        let (port, name, socket) = (free_port(), Sentinels::MASTER, folder.path().join("socket"));
        let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let ports = if value("tls-cert-file ").is_some() { ["tls-port", "port"] } else { ["port", "tls-port"] };
        let config = format!(
            "{} {port}\n{} 0\nbind 127.0.0.1\nunixsocket {}\nsentinel monitor {name} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 1000\n{}\n",
            ports[0],
            ports[1],
            socket.display(),
            lines.join("\n"),
        );
        std::fs::write(&file, config).unwrap();
        let child = Command::new(kind.program())
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, password: value("requirepass "), child, folder }
    }

    /// Sends a command over the Unix socket. Returns `None` if the sentinel is not running or refuses the command.
    fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> Option<T> {
        let url = format!("redis+unix://{}", self.folder.path().join("socket").display());
        let mut client = redis::Client::open(url).unwrap().get_connection().ok()?;
        if let Some(password) = &self.password {
            redis::cmd("AUTH").arg(password).exec(&mut client).ok()?;
        }
        redis::cmd(command[0]).arg(&command[1..]).query(&mut client).ok()
    }
}
