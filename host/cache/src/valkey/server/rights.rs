//! The list of the commands that Larder sends to servers: who needs each, what for, and a call of it that changes
//! nothing.

use redis::Cmd;

use crate::valkey::commands::compare_and_set::{CompareAndSet, Expiry};
use crate::{Issuer, Lease};

/// Makes the arguments of a call.
type Arguments = fn(&Probe) -> Vec<Vec<u8>>;

/// A command that Larder sends.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServerCommand {
    /// The name in capitals, with the subcommand: `CLIENT TRACKING`.
    pub name: &'static str,
    /// Which caches need it.
    pub need: Need,
    /// What it is used for.
    pub purpose: &'static str,
    /// The arguments of a call that changes nothing, after the name. `None` if the login makes the call.
    arguments: Option<Arguments>,
}

/// Which caches need a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Every cache. A server lets every user log in with it.
    Login,
    /// Every cache.
    Always,
    /// A cache with a `db` other than 0.
    Database,
    /// A cache on a single server.
    Single,
    /// A cache on a cluster.
    Cluster,
    /// A cache that plugins write to; get-or-set writes. A near tier may need it too.
    Writes,
    /// A cache that plugins write to, if its server has no `SET … IFEQ`. Others use it while they are full, to store
    /// refreshes, and for `increment` and compare-and-swap of `wasi:keyvalue`.
    Scripts,
    /// A cache whose plugins increment numbers, which `wasi:keyvalue` offers.
    Increment,
    /// A cache with a near tier. In others, waiting callers poll without it.
    Tracking,
    /// No cache: nothing depends on it.
    Information,
    /// A cache with sentinels, on the sentinels.
    Sentinel,
}

impl Need {
    /// The name in the output of programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Always => "always",
            Self::Database => "db",
            Self::Single => "single-server",
            Self::Cluster => "cluster",
            Self::Writes => "writes",
            Self::Scripts => "scripts",
            Self::Increment => "increment",
            Self::Tracking => "tracking",
            Self::Information => "information",
            Self::Sentinel => "sentinel",
        }
    }
}

/// An argument that `INCRBY` refuses, after it has checked the rights.
const NO_NUMBER: &str = "none";

/// The arguments of the calls.
#[derive(Debug)]
pub(in crate::valkey) struct Probe {
    /// A key under the prefix that does not exist, and that no plugin can name.
    key: String,
    lease: Lease,
    db: u16,
}

impl Probe {
    /// The arguments for a cache with this prefix and database.
    pub(in crate::valkey) fn new(prefix: &str, db: u16) -> Self {
        // The number is random, so that the calls change nothing although another program has a key of that name.
        let key = format!("{}-{:016x}", probe_key(prefix), rand::random::<u64>());
        Self { key, lease: Issuer::new().issue(), db }
    }
}

/// A key under the prefix that no plugin can name: none can write the separator.
pub(in crate::valkey) fn probe_key(prefix: &str) -> String {
    format!("{prefix}\u{1f}probe")
}

const fn command(name: &'static str, need: Need, purpose: &'static str, arguments: Arguments) -> ServerCommand {
    ServerCommand { name, need, purpose, arguments: Some(arguments) }
}

const fn login(name: &'static str, need: Need, purpose: &'static str) -> ServerCommand {
    ServerCommand { name, need, purpose, arguments: None }
}

/// All commands that Larder sends. A test compares them with those that servers receive, and with the documentation.
pub const COMMANDS: [ServerCommand; 22] = [
    login("HELLO", Need::Login, "connecting"),
    login("AUTH", Need::Login, "connecting"),
    login("CLIENT SETINFO", Need::Information, "the name of the client in `CLIENT LIST`"),
    command("INFO", Need::Always, "connecting: the version, the role and which server it is", |_| words(&["server"])),
    command("PING", Need::Always, "health checks, and the order of calls after a timeout", |_| Vec::new()),
    command("SELECT", Need::Database, "connecting", |probe| words(&[&probe.db.to_string()])),
    command("GET", Need::Always, "every read", |probe| words(&[&probe.key])),
    command("MGET", Need::Single, "get-many", |probe| words(&[&probe.key])),
    // Stores nothing, because the key does not exist. `GET` needs the right to read the key, as in a claim.
    command("SET", Need::Writes, "set, set-many, get-or-set and fill", |probe| {
        [words(&[&probe.key]), vec![probe.lease.as_bytes().to_vec()], words(&["XX", "GET", "PX", "1"])].concat()
    }),
    command("GETRANGE", Need::Writes, "clears, lists of keys, and callers of get-or-set that wait", |probe| {
        words(&[&probe.key, "0", "0"])
    }),
    command("PTTL", Need::Writes, "callers of get-or-set that wait, get-or-refresh, and the near tier", |probe| {
        words(&[&probe.key])
    }),
    command("PEXPIRETIME", Need::Writes, "get-or-refresh", |probe| words(&[&probe.key])),
    command("UNLINK", Need::Writes, "clear, clear-pattern and clear-all", |probe| words(&[&probe.key])),
    command("SCAN", Need::Writes, "clear-pattern, clear-all and lists of keys", |probe| {
        words(&["0", "MATCH", &probe.key, "COUNT", "1"])
    }),
    command("EVAL", Need::Scripts, "fill, refreshes, counters, and the release and renewal of leases", |probe| {
        arguments(&CompareAndSet::Script.replace(&probe.key, &probe.lease, b"", Some(Expiry::Past)))
    }),
    // Adds nothing, because the argument is no number.
    command("INCRBY", Need::Increment, "increment of wasi:keyvalue", |probe| words(&[&probe.key, NO_NUMBER])),
    command(
        "CLIENT TRACKING",
        Need::Tracking,
        "waking callers that wait as soon as there is a value, and the near tier",
        |_| words(&["ON", "OPTIN"]),
    ),
    command(
        "CLIENT CACHING",
        Need::Tracking,
        "waking callers that wait as soon as there is a value, and the near tier",
        |_| words(&["YES"]),
    ),
    command("CLUSTER SLOTS", Need::Cluster, "finding the node of a key, and the near tier", |_| Vec::new()),
    command("CLUSTER NODES", Need::Cluster, "which node is right about a slot, and clears while slots move", |_| {
        Vec::new()
    }),
    command("ASKING", Need::Cluster, "keys in a slot that moves", |_| Vec::new()),
    login("SENTINEL GET-MASTER-ADDR-BY-NAME", Need::Sentinel, "finding the primary"),
];

impl ServerCommand {
    /// True if a near tier needs the command, also where no plugin writes.
    pub fn is_for_near(&self) -> bool {
        matches!(self.name, "PTTL" | "CLIENT TRACKING" | "CLIENT CACHING")
    }

    /// The rule of an access list that allows the command: `+client|tracking`.
    pub fn rule(&self) -> String {
        format!("+{}", self.name.to_lowercase().replace(' ', "|"))
    }

    /// A call that changes nothing. `None` if the login makes it.
    pub(in crate::valkey) fn call(&self, probe: &Probe) -> Option<Cmd> {
        let arguments = self.arguments?(probe);
        let mut call = Cmd::new();
        self.name.split(' ').for_each(|word| {
            call.arg(word);
        });
        call.arg(arguments);
        Some(call)
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// The arguments of a command, without its name.
fn arguments(command: &Cmd) -> Vec<Vec<u8>> {
    let arguments = command.args_iter().skip(1);
    arguments
        .map(|argument| if let redis::Arg::Simple(bytes) = argument { bytes.to_vec() } else { Vec::new() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_name_the_key_and_no_argument_of_another_command() {
        let probe = Probe::new("app:", 3);
        let packed = |name: &str| {
            let command = COMMANDS.iter().find(|command| command.name == name).unwrap();
            String::from_utf8_lossy(&command.call(&probe).unwrap().get_packed_command()).replace("\r\n", " ")
        };
        assert_eq!(packed("PING"), "*1 $4 PING ");
        assert_eq!(packed("SELECT"), "*2 $6 SELECT $1 3 ");
        assert!(packed("GET").starts_with("*2 $3 GET $27 app:\u{1f}probe-"));
        assert_eq!(packed("CLIENT CACHING"), "*3 $6 CLIENT $7 CACHING $3 YES ");
        assert!(packed("EVAL").starts_with("*8 $4 EVAL ") && packed("EVAL").contains("app:\u{1f}probe"));
    }
}
