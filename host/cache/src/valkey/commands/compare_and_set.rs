//! Compare-and-set on the server: one command that acts only while a key holds a given lease.

use redis::Cmd;

use crate::Lease;

/// Sets the key to ARGV[2], with the options after it, if it holds ARGV[1]. A key of another type holds no lease.
/// The first line makes a server that cannot store refuse the script as it refuses `SET`, whether the lease is there or
/// not.
const REPLACE: &str = "#!lua\n\
     if redis.pcall('GET', KEYS[1]) == ARGV[1] \
     then return redis.call('SET', KEYS[1], unpack(ARGV, 2)) else return false end";

/// Removes the key if it holds ARGV[1]. It also runs on a server that is full.
const REMOVE: &str = "#!lua flags=allow-oom\n\
     if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) else return 0 end";

// Decision: docs/decisions/0004-one-primitive-on-the-server-set-if-the-key-holds-this-lease.md
/// How a server compares and sets in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) enum CompareAndSet {
    /// `SET … IFEQ`, of Valkey 8.1.
    Ifeq,
    /// A script.
    Script,
}

/// When the stored value expires.
#[derive(Debug, Clone, Copy)]
pub(in crate::valkey) enum Expiry {
    /// After this number of milliseconds.
    In(u64),
    /// In the past: the server removes the key instead of storing the value.
    Past,
}

impl CompareAndSet {
    /// The command that stores `value` if the key holds `lease`. The server replies with nil if it does not.
    pub(in crate::valkey) fn replace(self, key: &str, lease: &Lease, value: &[u8], expiry: Option<Expiry>) -> Cmd {
        let mut command = match self {
            Self::Ifeq => redis::cmd("SET"),
            Self::Script => redis::cmd("EVAL"),
        };
        match self {
            Self::Ifeq => command.arg(key).arg(value).arg("IFEQ").arg(lease.as_bytes()),
            Self::Script => command.arg(REPLACE).arg(1).arg(key).arg(lease.as_bytes()).arg(value),
        };
        match expiry {
            Some(Expiry::In(milliseconds)) => command.arg("PX").arg(milliseconds),
            Some(Expiry::Past) => command.arg("PXAT").arg(1),
            None => &mut command,
        };
        command
    }
}

/// The script that removes the key if it holds `lease`, also on a server that is full.
pub(in crate::valkey) fn remove_by_script(key: &str, lease: &Lease) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(REMOVE).arg(1).arg(key).arg(lease.as_bytes());
    command
}
