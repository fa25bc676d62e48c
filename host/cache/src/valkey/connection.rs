//! Connections to one server, from the socket to the pool.

pub(in crate::valkey) mod client;
pub(in crate::valkey) mod connector;
pub(in crate::valkey) mod driver;
pub(in crate::valkey) mod greeting;
pub(in crate::valkey) mod handshake;
pub(in crate::valkey) mod invalidation;
pub(in crate::valkey) mod lent;
pub(in crate::valkey) mod managed;
pub(in crate::valkey) mod pings;
pub(in crate::valkey) mod pool;
pub(in crate::valkey) mod queue;
pub(in crate::valkey) mod replies;
pub(in crate::valkey) mod reply_limit;
pub(in crate::valkey) mod routing;
pub(in crate::valkey) mod stream;
pub(in crate::valkey) mod warning;
