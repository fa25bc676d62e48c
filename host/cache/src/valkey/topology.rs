//! The servers of one cache. A command names a key and a size; the topology finds the server, and routing the
//! connection.

pub(in crate::valkey) mod cluster;
pub(in crate::valkey) mod primary_watch;
pub(in crate::valkey) mod sentinel;
pub(in crate::valkey) mod single;
pub(in crate::valkey) mod slots;
pub(in crate::valkey) mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use crate::near::tier::Tier;
use crate::valkey::connection::connector::{Connector, Target};
use crate::valkey::connection::invalidation::Invalidations;
use crate::valkey::connection::managed::Exchange;
use crate::valkey::connection::pool::{ConnectionPool, Replies};
use crate::valkey::connection::routing::{BatchEntry, Route, Router};
use crate::valkey::options::{Deployment, ServerOptions};
use crate::valkey::server::info::ServerKind;
use crate::valkey::server::registry::Member;
use crate::valkey::topology::cluster::Cluster;
use crate::valkey::topology::single::Single;
use crate::{BackendStatus, CacheError, Health, Policy};

/// The servers of one cache.
#[derive(Debug)]
pub(in crate::valkey) struct Servers {
    topology: Topology,
    router: Router,
    invalidations: Arc<Invalidations>,
    kind: ServerKind,
    /// The most bytes of the values of a batch.
    max_batch: usize,
    /// The highest number of reconnects that was reported.
    max_reconnects: AtomicU64,
}

/// How the keys are spread over servers. [`Single`] and [`Cluster`] have the same methods.
#[derive(Debug)]
enum Topology {
    Single(Single),
    Cluster(Cluster),
}

/// Evaluates an expression with the topology of these servers. It has the only match on [`Topology`].
macro_rules! with_topology {
    ($servers:expr, $topology:ident => $call:expr) => {
        match &$servers.topology {
            Topology::Single($topology) => $call,
            Topology::Cluster($topology) => $call,
        }
    };
}

impl Servers {
    /// Connects to all servers that have keys.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] or [`CacheError::Overlap`] with the server and the reason.
    pub(in crate::valkey) async fn connect(
        options: ServerOptions,
        policy: &Policy,
        member: Member,
        near: Option<Arc<Tier>>,
    ) -> Result<Self, CacheError> {
        let (kind, router) = (options.kind, Router::new(options.connections));
        let (target, seeds) = match options.deployment.clone() {
            Deployment::Server(endpoint) => (Target::Server(endpoint), None),
            Deployment::Sentinel(sentinels) => (Target::Primary(sentinels), None),
            Deployment::Cluster(seeds) => match seeds.first() {
                Some(first) => (Target::Node(first.clone()), Some(seeds)),
                None => return Err(CacheError::Unavailable("no node of the cluster is configured".to_owned())),
            },
        };
        let connector = Connector::new(options, target, policy, member).with_near(near);
        let invalidations = Arc::clone(&connector.invalidations);
        let max_batch = usize::try_from(connector.limits.reply.reply).unwrap_or(usize::MAX);
        let topology = match seeds {
            None => Topology::Single(Single::connect(connector).await?),
            Some(seeds) => Topology::Cluster(Cluster::connect(connector, seeds).await?),
        };
        Ok(Self { topology, router, invalidations, kind, max_batch, max_reconnects: AtomicU64::new(0) })
    }

    /// Sends a command that sends a value of `size` bytes for a key, and waits for its reply, within the deadline.
    pub(in crate::valkey) async fn call<T: FromRedisValue>(
        &self,
        key: &str,
        size: usize,
        command: &Cmd,
    ) -> Result<T, CacheError> {
        let route = self.router.route(key.as_bytes(), size);
        with_topology!(self, topology => topology.call(key, route, command).await)
    }

    /// Sends a command whose reply is the value of the key, and waits for it, within the deadline. Routing learns the
    /// size of the value.
    pub(in crate::valkey) async fn read(&self, key: &str, command: &Cmd) -> Result<Option<Bytes>, CacheError> {
        let route = self.router.route(key.as_bytes(), 0);
        let value: Result<Option<Bytes>, CacheError> =
            with_topology!(self, topology => topology.call(key, route, command).await);
        match &value {
            Ok(value) => self.router.observe(key.as_bytes(), value.as_ref().map_or(0, Bytes::len), route),
            // The value crossed the network, although it was discarded.
            Err(CacheError::ValueTooLarge { len, .. }) => self.router.observe(key.as_bytes(), *len, route),
            Err(_) => {}
        }
        value
    }

    /// Sends commands for a key that depend on the connection, with `size` bytes of a value, and waits for their
    /// replies, within the deadline. They are sent again if another node of a cluster has the key.
    pub(in crate::valkey) async fn exchange<T: FromRedisValue>(
        &self,
        key: &str,
        size: usize,
        commands: impl Fn(&Exchange) -> Pipeline,
    ) -> Result<T, CacheError> {
        let route = self.router.route(key.as_bytes(), size);
        with_topology!(self, topology => topology.exchange(key, route, commands).await)
    }

    /// [`Servers::exchange`] for commands whose first reply is the value of the key. Routing learns the size of the value.
    pub(in crate::valkey) async fn read_with(
        &self,
        key: &str,
        commands: impl Fn(&Exchange) -> Pipeline,
    ) -> Result<Vec<Value>, CacheError> {
        let route = self.router.route(key.as_bytes(), 0);
        let replies: Result<Vec<Value>, CacheError> =
            with_topology!(self, topology => topology.exchange(key, route, commands).await);
        match &replies {
            Ok(replies) => self.router.observe(key.as_bytes(), replies.first().map_or(0, len), route),
            Err(CacheError::ValueTooLarge { len, .. }) => self.router.observe(key.as_bytes(), *len, route),
            Err(_) => {}
        }
        replies
    }

    /// [`Servers::batch`] for commands that read the keys. `read` makes what was read out of the replies for a group, and
    /// `len` is the length of a value. Routing learns the sizes.
    ///
    /// # Errors
    ///
    /// As [`Servers::batch`]; [`CacheError::ValueTooLarge`] if the values together exceed the reply limit.
    pub(in crate::valkey) async fn read_batch<E: BatchEntry + Sync, T>(
        &self,
        entries: &[E],
        commands: impl Fn(&Exchange, &[E]) -> Vec<Cmd> + Sync,
        read: impl Fn(&[E], Replies) -> Vec<Result<T, CacheError>>,
        len: impl Fn(&T) -> usize,
    ) -> Result<Vec<Result<T, CacheError>>, CacheError> {
        let route = self.router.route_batch(entries);
        let mut found = Vec::with_capacity(entries.len());
        let mut bytes = 0_usize;
        for part in entries.chunks(with_topology!(self, topology => topology.read_part())) {
            let groups = with_topology!(self, topology => topology.batch(part, route, &commands).await)?;
            let size = part.len().checked_div(groups.len()).unwrap_or(1).max(1);
            let of_part = part.chunks(size).zip(groups).flat_map(|(group, replies)| read(group, replies));
            for (entry, value) in part.iter().zip(of_part) {
                match &value {
                    Ok(value) => {
                        bytes = bytes.saturating_add(len(value));
                        self.router.observe(entry.key(), len(value), route);
                    }
                    // The value crossed the network, although it was discarded.
                    Err(CacheError::ValueTooLarge { len, .. }) => self.router.observe(entry.key(), *len, route),
                    Err(_) => {}
                }
                found.push(value);
            }
            if bytes > self.max_batch {
                return Err(CacheError::ValueTooLarge { len: bytes, max: self.max_batch });
            }
        }
        Ok(found)
    }

    /// Sends commands for many keys, in one round trip to each server. `commands` makes the commands for a group of
    /// entries: all of them on a single server, one in a cluster, where several keys may be on several nodes. Returns
    /// the replies for each group, in the order of the entries.
    pub(in crate::valkey) async fn batch<E: BatchEntry + Sync>(
        &self,
        entries: &[E],
        commands: impl Fn(&Exchange, &[E]) -> Vec<Cmd> + Sync,
    ) -> Result<Vec<Replies>, CacheError> {
        let route = self.router.route_batch(entries);
        with_topology!(self, topology => topology.batch(entries, route, commands).await)
    }

    /// [`Servers::batch`] over the bulk connections.
    pub(in crate::valkey) async fn bulk_batch<E: BatchEntry + Sync>(
        &self,
        entries: &[E],
        commands: impl Fn(&Exchange, &[E]) -> Vec<Cmd> + Sync,
    ) -> Result<Vec<Replies>, CacheError> {
        with_topology!(self, topology => topology.batch(entries, Route::Bulk, commands).await)
    }

    /// Runs `visit` on every server that has keys, such that it sees every key that is stored all the time. Returns the
    /// sum.
    pub(in crate::valkey) async fn sum_over_primaries<F: Future<Output = Result<u64, CacheError>>>(
        &self,
        visit: impl Fn(Arc<ConnectionPool>) -> F,
    ) -> Result<u64, CacheError> {
        with_topology!(self, topology => topology.sum_over_primaries(visit).await)
    }

    /// The servers that have keys, in an order that stays the same as long as the number beside it. A cursor of a listing
    /// names a server by its number in this order.
    pub(in crate::valkey) fn list_primaries(&self) -> Result<(Vec<Arc<ConnectionPool>>, u8), CacheError> {
        let (primaries, check) = with_topology!(self, topology => topology.list_primaries());
        if primaries.is_empty() {
            return Err(with_topology!(self, topology => topology.unreached()));
        }
        Ok((primaries, check))
    }

    /// Checks every server that has keys. Reports all versions, the capabilities that all have, and the longest round
    /// trip.
    pub(in crate::valkey) async fn check(&self) -> Result<Health, CacheError> {
        let primaries = self.primaries();
        let mut checks = try_join_all(primaries.iter().map(|pool| pool.check())).await?.into_iter();
        let mut all = checks.next().ok_or_else(|| with_topology!(self, topology => topology.unreached()))?;
        for Health { version, round_trip, supports, .. } in checks {
            all.round_trip = all.round_trip.max(round_trip);
            all.supports.retain(|feature| supports.contains(feature));
            if version != all.version && !all.version.contains(&version) {
                all.version = format!("{}, {version}", all.version);
            }
        }
        Ok(all)
    }

    /// A snapshot of the connections; performs no I/O.
    pub(in crate::valkey) fn status(&self) -> BackendStatus {
        let kind = self.kind.type_name();
        let primaries = self.primaries();
        let reconnects = primaries.iter().map(|pool| pool.reconnects()).fold(0, u64::saturating_add);
        // The connections to nodes that left a cluster are gone, but a counter must not decrease.
        let before = self.max_reconnects.fetch_max(reconnects, Ordering::Relaxed);
        // A cluster has no known primary until one of its nodes was reached.
        let is_up = !primaries.is_empty() && primaries.iter().all(|pool| pool.is_up());
        BackendStatus::Server { kind, is_up, reconnects: reconnects.max(before) }
    }

    /// The waiters for key changes.
    pub(in crate::valkey) fn invalidations(&self) -> &Arc<Invalidations> {
        &self.invalidations
    }

    /// The pools of all servers that have keys.
    fn primaries(&self) -> Vec<Arc<ConnectionPool>> {
        with_topology!(self, topology => topology.primaries())
    }
}

/// The length of a value; 0 for none.
fn len(value: &Value) -> usize {
    if let Value::BulkString(value) = value { value.len() } else { 0 }
}
