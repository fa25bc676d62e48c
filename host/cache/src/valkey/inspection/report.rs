//! What an inspection found. Text of servers is one line and cut.

use std::time::Duration as StdDuration;

use crate::text::short_line;
use crate::valkey::options::Endpoint;
use crate::valkey::server::info::{ServerKind, field, reported_version};
use crate::valkey::server::registry::ServerId;
use crate::valkey::server::rights::ServerCommand;

/// What was found about the servers of a cache.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// The servers that have keys: one, or the primaries of a cluster. Empty if no sentinel names a primary.
    pub servers: Vec<ServerReport>,
    /// The sentinels; empty without Sentinel.
    pub sentinels: Vec<SentinelReport>,
}

/// What was found about one server. A field is `None` if the server did not report it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerReport {
    /// The address.
    pub address: Endpoint,
    /// Why there is no connection, or the login failed. Nothing else is then known.
    pub unreachable: Option<String>,
    /// The product.
    pub kind: Option<ServerKind>,
    /// The version.
    pub version: Option<String>,
    /// How it runs: `standalone`, `cluster` or `sentinel`.
    pub mode: Option<String>,
    /// Whether it takes writes.
    pub role: Option<Role>,
    /// Which server it is.
    pub id: ServerId,
    /// The duration of one exchange.
    pub round_trip: Option<StdDuration>,
    /// The memory that it uses and may use.
    pub memory: Option<Memory>,
    /// What it keeps on disk.
    pub persistence: Option<Persistence>,
    /// Whether it has `SET … IFEQ`, so that scripts are needed only while it is full.
    pub has_ifeq: bool,
    /// Why it cannot serve now, in its own words: it is full, loads its data, or cannot save.
    pub cannot_serve: Option<String>,
    /// The commands that a cache of this deployment sends, in the order of [`COMMANDS`](crate::valkey::COMMANDS).
    pub commands: Vec<CommandReport>,
}

/// Whether the user may call a command.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CommandReport {
    /// The command.
    pub command: ServerCommand,
    /// Why not, in the words of the server. `None` if it may.
    pub refusal: Option<String>,
}

/// The part of a server in replication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Takes no writes.
    Replica {
        /// The address of its primary.
        primary: String,
        /// Whether the link to the primary is up.
        is_connected: bool,
    },
}

/// The memory of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The bytes in use.
    pub used: u64,
    /// `maxmemory` in bytes; `None` for no limit.
    pub max: Option<u64>,
    /// `maxmemory-policy`: what is evicted when the memory is full.
    pub policy: String,
}

/// What a server keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Persistence {
    /// Whether it takes snapshots (RDB) by itself. `None` if the user may not ask, by `CONFIG GET save`.
    pub snapshots: Option<bool>,
    /// Whether it logs each write (AOF).
    pub append_only: bool,
    /// Whether the last snapshot and the last write of the log succeeded.
    pub last_write_succeeded: bool,
}

/// What was found about one sentinel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SentinelReport {
    /// The address.
    pub address: Endpoint,
    /// The primary that it names.
    pub primary: Option<Endpoint>,
    /// Why it names none.
    pub problem: Option<String>,
}

impl ServerReport {
    /// A report without findings.
    pub(in crate::valkey) fn new(address: Endpoint) -> Self {
        Self {
            address,
            unreachable: None,
            kind: None,
            version: None,
            mode: None,
            role: None,
            id: ServerId::default(),
            round_trip: None,
            memory: None,
            persistence: None,
            has_ifeq: false,
            cannot_serve: None,
            commands: Vec::new(),
        }
    }

    /// Reads the reply to `INFO server replication memory persistence`.
    pub(in crate::valkey) fn read_info(&mut self, info: &str) {
        let number = |name: &str| field(info, name).and_then(|number| number.parse::<u64>().ok());
        let text = |name: &str| field(info, name).map(short_line);
        if let Some((kind, version)) = reported_version(info) {
            self.kind = Some(kind);
            self.version = Some(short_line(version));
        }
        self.mode = text("server_mode").or_else(|| text("redis_mode"));
        self.id = ServerId::from_info(info);
        self.role = match field(info, "role") {
            Some("master") => Some(Role::Primary),
            Some(_) => Some(Role::Replica {
                primary: [text("master_host"), text("master_port")].map(Option::unwrap_or_default).join(":"),
                is_connected: field(info, "master_link_status") == Some("up"),
            }),
            None => None,
        };
        self.memory = number("used_memory").map(|used| Memory {
            used,
            max: number("maxmemory").filter(|max| *max > 0),
            policy: text("maxmemory_policy").unwrap_or_default(),
        });
        let is_good = |name: &str| field(info, name) != Some("err");
        self.persistence = number("aof_enabled").map(|enabled| Persistence {
            snapshots: None,
            append_only: enabled > 0,
            last_write_succeeded: is_good("rdb_last_bgsave_status") && is_good("aof_last_write_status"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: &str = "# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.0.1\r\nserver_mode:standalone\r\nrun_id:ab12\r\n\r\n\
        # Memory\r\nused_memory:1024\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\r\n\
        # Persistence\r\naof_enabled:1\r\nrdb_last_bgsave_status:ok\r\naof_last_write_status:err\r\n\r\n\
        # Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:down\r\n\
        master_replid:cd34\r\n";

    fn report(info: &str) -> ServerReport {
        let mut report = ServerReport::new(Endpoint { host: "a".to_owned(), port: 1 });
        report.read_info(info);
        report
    }

    #[test]
    fn what_a_server_reports_is_read() {
        let found = report(REPLICA);
        assert_eq!((found.kind, found.version.as_deref()), (Some(ServerKind::Valkey), Some("8.0.1")));
        assert_eq!(found.mode.as_deref(), Some("standalone"));
        assert_eq!((found.id.run_id.as_deref(), found.id.replication_id.as_deref()), (Some("ab12"), Some("cd34")));
        assert_eq!(found.role, Some(Role::Replica { primary: "10.0.0.1:6379".to_owned(), is_connected: false }));
        assert_eq!(found.memory, Some(Memory { used: 1024, max: None, policy: "noeviction".to_owned() }));
        let persistence = Persistence { snapshots: None, append_only: true, last_write_succeeded: false };
        assert_eq!(found.persistence, Some(persistence));
        let primary = report(&REPLICA.replace("slave", "master").replace("maxmemory:0", "maxmemory:4096"));
        assert_eq!((primary.role, primary.memory.unwrap().max), (Some(Role::Primary), Some(4096)));
    }

    #[test]
    fn what_a_server_does_not_report_is_unknown() {
        for info in ["", "run_id:\r\n", "used_memory:many\r\naof_enabled:\r\n"] {
            let found = report(info);
            assert!(found.kind.is_none() && found.version.is_none() && found.role.is_none(), "{info}");
            assert!(found.memory.is_none() && found.persistence.is_none() && found.id.is_unknown(), "{info}");
        }
    }
}
