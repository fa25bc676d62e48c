//! What is on the wires of the model: commands, and what a server sends.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Command {
    Get(usize),
    Set(usize),
    Ping(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Reply(usize, Found),
    /// The key is on the other node.
    Moved(usize),
    /// The time of the ping, and whether the node has the key.
    Pong(u64, bool),
    Changed,
    AllChanged,
}

/// What a call finds or makes: the version of the key, and the remaining life of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Found {
    pub(super) version: usize,
    pub(super) has_value: bool,
    pub(super) life: Option<u64>,
}

/// One state of the key. They are numbered in order.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Version {
    pub(super) has_value: bool,
    pub(super) expires_at: Option<u64>,
    /// When the next version replaced it.
    pub(super) until: Option<u64>,
}
