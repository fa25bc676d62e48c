//! A primary, its replica, and the sentinels that watch them.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::server::free_port;
use crate::{Kind, Server, wait_for};

/// A primary and a replica watched by three sentinels; all end with this value.
#[derive(Debug)]
pub struct Sentinels {
    /// The server that was the primary first, and its replica.
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
    /// The name of the primary.
    pub const MASTER: &str = "main";

    /// Starts them all, or none where the server is not installed.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[], &[])
    }

    /// [`Sentinels::start`] with more options of the servers, and more lines of the sentinels' configuration. Sentinels
    /// that are given a `tls-cert-file` speak nothing but TLS on their port.
    pub fn start_with(kind: Kind, options: &[&str], lines: &[&str]) -> Option<Self> {
        let primary = Server::start_with(kind, options)?;
        let follow = ["--replicaof", &format!("127.0.0.1 {}", primary.port())];
        let replica = Server::start_with(kind, &[options, &follow].concat())?;
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(kind, primary.port(), lines)).collect();
        let watched = Self { servers: [primary, replica], sentinels };
        wait_for("the sentinels to know each other and the replica", || {
            let knows = |sentinel: &Sentinel| {
                let about = sentinel.ask::<Vec<String>>(&["SENTINEL", "MASTER", Self::MASTER]).unwrap_or_default();
                let number = |name: &str| about.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
                number("num-slaves").as_deref() == Some("1") && number("num-other-sentinels").as_deref() == Some("2")
            };
            watched.sentinels.iter().all(knows).then_some(())
        });
        Some(watched)
    }

    /// A cache's table in TOML.
    pub fn cache(&self, name: &str) -> String {
        let nodes: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("\"127.0.0.1:{}\"", sentinel.port)).collect();
        let (kind, master, nodes) = (self.servers[0].kind().type_name(), Self::MASTER, nodes.join(", "));
        format!("[caches.{name}]\ntype = \"{kind}\"\nsentinel = {{ master = \"{master}\", nodes = [{nodes}] }}\n")
    }

    /// Kills the sentinel that is named first.
    pub fn kill_the_first_sentinel(&mut self) {
        self.sentinels[0].child.kill().unwrap();
        self.sentinels[0].child.wait().unwrap();
    }

    /// Asks the sentinels to make the replica the primary, which they may not be ready for.
    pub fn fail_over(&self) {
        let _refused: Option<()> = self.sentinels[1].ask(&["SENTINEL", "FAILOVER", Self::MASTER]);
    }

    /// Has the sentinels call a server down only after so long a silence that a busy machine does not cause it. They take
    /// an old primary back when it was up for 8 s without a break, and by what they start with half a second is one.
    pub fn be_patient(&self) {
        for sentinel in &self.sentinels {
            let patience = ["SENTINEL", "SET", Self::MASTER, "down-after-milliseconds", "10000"];
            let _dead: Option<()> = sentinel.ask(&patience);
        }
    }

    /// Waits until the sentinels that live name this server as the primary.
    pub fn wait_for_primary(&self, server: usize) {
        let port = self.servers[server].port().to_string();
        wait_for("the sentinels to agree on the new primary", || {
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

    /// Asks it through its socket, unless it is dead.
    fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> Option<T> {
        let url = format!("redis+unix://{}", self.folder.path().join("socket").display());
        let mut client = redis::Client::open(url).unwrap().get_connection().ok()?;
        if let Some(password) = &self.password {
            redis::cmd("AUTH").arg(password).exec(&mut client).ok()?;
        }
        redis::cmd(command[0]).arg(&command[1..]).query(&mut client).ok()
    }
}
