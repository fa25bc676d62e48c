//! What can happen in the model and how often, and the mistakes that it must find.

/// How many steps of each kind there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) reads: u8,
    /// Reads over a connection that announces nothing, such as the bulk connection.
    pub(super) plain_reads: u8,
    pub(super) own_writes: u8,
    /// Whether the process writes over the connection that announces nothing, as it does large values.
    pub(super) writes_apart: bool,
    pub(super) foreign_writes: u8,
    pub(super) flushes: u8,
    pub(super) pings: u8,
    pub(super) breaks: u8,
    pub(super) ticks: u8,
    /// Takeovers of the key by another node of a cluster.
    pub(super) takeovers: u8,
    /// Whether the node was known to have the key from the start. Otherwise the first answer to a ping says so.
    pub(super) is_known: bool,
    /// The tick at which the first value expires. The server does not announce it.
    pub(super) expires_at: Option<u64>,
    pub(super) announce: Announce,
}

impl Bounds {
    pub(super) const NONE: Self = Self {
        reads: 0,
        plain_reads: 0,
        own_writes: 0,
        writes_apart: false,
        foreign_writes: 0,
        flushes: 0,
        pings: 0,
        breaks: 0,
        ticks: 0,
        takeovers: 0,
        is_known: false,
        expires_at: None,
        announce: Announce::AtOnce,
    };
}

/// When the server sends an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    /// In the order of the commands, to the connections that have read the key: tracking by key.
    AtOnce,
    /// After the replies to all commands of the turn, to all connections: broadcast.
    EndOfTurn,
}

/// A mistake that an implementation could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A fetch is noted when its reply is there.
    NoPoison,
    /// Hits are served however old the last answer is.
    NoHorizon,
    /// The answer to a ping confirms the time at which that ping was sent.
    OnePing,
    /// A write stores its value near.
    StoreAfterWrite,
    /// A new connection takes over the entries of the lost one.
    NoFlushOnReconnect,
    /// A call joins a fetch that was poisoned.
    JoinPoisoned,
    /// A write invalidates before it is sent only.
    InvalidateBeforeOnly,
    /// A read over another connection does not invalidate.
    NoObserve,
    /// The remaining life of a value is ignored.
    NoExpiry,
    /// The announcement that all keys were removed is ignored.
    NoFlush,
    /// A node is not asked whether it still has the key.
    PingOnly,
    /// What a node serves is kept before it is known to have the key.
    KeepUnknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Read,
    PlainRead,
    OwnWrite,
    /// Another program writes.
    ForeignWrite,
    /// Another program removes all keys.
    Flush,
    Ping,
    /// The server executes the next command of a connection.
    Execute(Link),
    /// The server sends the replies and announcements of its turn.
    EndTurn,
    /// The driver of a connection reads the next message.
    Deliver(Link),
    /// The task of a call takes its reply.
    Finish(usize),
    /// The tracked connection is lost, and the host does not notice.
    Break,
    /// The loss is noticed, and there is a new connection.
    Reconnect,
    Tick,
    /// Another node takes the key over. The node that had it does not know, and answers as before.
    TakeOver,
    /// The node learns that another one has the key.
    Learn,
    /// The process learns which node has the key.
    NewMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Link {
    Tracked,
    Plain,
}
