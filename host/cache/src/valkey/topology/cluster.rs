//! A cluster: finds the node of a key, follows redirects when slots move or a primary fails, and splits batches.
//!
//! The slot map says which node has which slot. A node without the slot of a key replies with a redirect, which the
//! call follows immediately. A background task then refreshes the map. It also does so when a connection is lost, and
//! repeats until every primary is reachable.

// Decision: docs/decisions/0014-our-own-cluster-connections-and-slot-map.md

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration as StdDuration;

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::CacheError;
use crate::valkey::backoff::Backoff;
use crate::valkey::connection::connector::{ConnectFailure, Connector, Target};
use crate::valkey::connection::managed::{Exchange, ManagedConnection};
use crate::valkey::connection::pool::{ConnectionPool, Replies};
use crate::valkey::connection::routing::{BatchEntry, Route};
use crate::valkey::error::{ExchangeError, Redirect};
use crate::valkey::options::Endpoint;
use crate::valkey::topology::slots::{self, SLOTS, SlotRange};
use crate::valkey::topology::view::{self, View};

/// A call follows this number of redirects without a pause, and further ones with a pause until its deadline. Two are
/// needed while slots move; more only while the nodes disagree.
const REDIRECTS_WITHOUT_PAUSE: u32 = 3;
const REDIRECT_PAUSE: StdDuration = StdDuration::from_millis(20);

/// The maximum number of passes over a cluster whose slots keep moving.
const MAX_PASSES: u32 = 5;

/// The route of the commands that ask for the slot map.
const MAP_ROUTE: Route = Route::Regular(0);

/// The connections to the nodes of a cluster. Its methods are those of [`Single`](super::single::Single).
#[derive(Debug)]
pub(in crate::valkey) struct Cluster {
    nodes: Arc<Nodes>,
}

/// The slot map and what refreshes it.
#[derive(Debug)]
struct Nodes {
    connector: Connector,
    seeds: Vec<Endpoint>,
    map: RwLock<Arc<SlotMap>>,
    /// Why no node has been reached, while the map is empty.
    unreached: Mutex<CacheError>,
    /// Notified when the map may be outdated.
    outdated: Arc<Notify>,
}

/// Which node has which slot.
#[derive(Debug, Default)]
struct SlotMap {
    ranges: Vec<SlotRange>,
    /// For each slot the index of its primary in `primaries`, or [`NO_OWNER`].
    owners: Vec<u16>,
    primaries: Vec<Arc<ConnectionPool>>,
}

const NO_OWNER: u16 = u16::MAX;

impl SlotMap {
    /// The map for these ranges. It takes over the pools of `old` for the nodes that are in both.
    fn new(ranges: Vec<SlotRange>, old: &Self, connector: &Connector) -> Self {
        let mut owners = vec![NO_OWNER; usize::from(SLOTS)];
        let mut primaries: Vec<Arc<ConnectionPool>> = Vec::new();
        for range in &ranges {
            let owner = primaries.iter().position(|pool| leads_to(pool, &range.primary)).unwrap_or_else(|| {
                primaries.push(old.pool_of(&range.primary).unwrap_or_else(|| start(connector, &range.primary)));
                primaries.len().saturating_sub(1)
            });
            let owner = u16::try_from(owner).unwrap_or(NO_OWNER);
            let slots = usize::from(range.first)..=usize::from(range.last);
            owners.get_mut(slots).into_iter().flatten().for_each(|slot| *slot = owner);
        }
        Self { ranges, owners, primaries }
    }

    fn owner(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).filter(|owner| **owner != NO_OWNER).map(|owner| usize::from(*owner))
    }

    fn pool_of_slot(&self, slot: u16) -> Option<Arc<ConnectionPool>> {
        self.owner(slot).and_then(|owner| self.primaries.get(owner)).cloned()
    }

    fn pool_of(&self, node: &Endpoint) -> Option<Arc<ConnectionPool>> {
        self.primaries.iter().find(|pool| leads_to(pool, node)).cloned()
    }

    /// The pools whose node has lost a slot to another node in the new map.
    fn losers(&self, new: &Self) -> impl Iterator<Item = &Arc<ConnectionPool>> {
        self.primaries.iter().enumerate().filter_map(|(owner, pool)| {
            let is_kept = |slot| new.pool_of_slot(slot).is_some_and(|new| Arc::ptr_eq(&new, pool));
            (0..SLOTS).any(|slot| self.owner(slot) == Some(owner) && !is_kept(slot)).then_some(pool)
        })
    }

    fn is_complete(&self) -> bool {
        self.owners.len() == usize::from(SLOTS) && !self.owners.contains(&NO_OWNER)
    }
}

fn endpoint_of(pool: &ConnectionPool) -> Option<&Endpoint> {
    match pool.target() {
        Target::Node(node) => Some(node),
        Target::Server(_) | Target::Primary(_) => None,
    }
}

fn leads_to(pool: &ConnectionPool, node: &Endpoint) -> bool {
    endpoint_of(pool) == Some(node)
}

fn start(connector: &Connector, node: &Endpoint) -> Arc<ConnectionPool> {
    Arc::new(ConnectionPool::start(connector.to(Target::Node(node.clone()))))
}

/// Which node has which slot, and which slots are moving.
#[derive(Debug, PartialEq, Eq)]
struct SlotAssignment {
    owners: Vec<(u16, u16, Endpoint)>,
    moving: BTreeSet<String>,
}

impl Cluster {
    /// Reads the slot map from the first seed that replies, and connects to all primaries. A failure is an outage to
    /// begin with, if the options say so.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] if no seed or one of the primaries cannot be used, or if slots have no node.
    pub(in crate::valkey) async fn connect(connector: Connector, seeds: Vec<Endpoint>) -> Result<Self, CacheError> {
        let outdated = Arc::clone(&connector.on_loss);
        let unreached = Mutex::new(CacheError::Unavailable("no node of the cluster is configured".to_owned()));
        let nodes = Arc::new(Nodes { connector, seeds, map: RwLock::default(), unreached, outdated });
        if let Err(failure) = nodes.reach().await {
            nodes.set_unreached(failure.degraded(nodes.connector.options.start)?);
            nodes.connector.unreachable.postpone();
            nodes.outdated.notify_one();
        }
        tokio::spawn(refresh_task(Arc::downgrade(&nodes), Arc::clone(&nodes.outdated)));
        Ok(Self { nodes })
    }

    pub(in crate::valkey) async fn call<T: FromRedisValue>(
        &self,
        key: &str,
        route: Route,
        command: &Cmd,
    ) -> Result<T, CacheError> {
        let reply = self.exchange(key, route, |exchange| exchange.single(command.clone())).await;
        reply.map(|(reply,)| reply)
    }

    pub(in crate::valkey) async fn exchange<T: FromRedisValue>(
        &self,
        key: &str,
        route: Route,
        commands: impl Fn(&Exchange) -> Pipeline,
    ) -> Result<T, CacheError> {
        // Boxed, so that the future of a call to a single server, which has the same type, is small.
        let reply = Box::pin(self.follow(key.as_bytes(), route, commands, |_| None)).await;
        reply.map(|(reply, _pool)| reply)
    }

    /// Runs an exchange with the node that has the key, within one deadline. Returns the reply and the node that sent
    /// it. `redirect` finds a redirect within a reply.
    async fn follow<T: FromRedisValue>(
        &self,
        key: &[u8],
        route: Route,
        commands: impl Fn(&Exchange) -> Pipeline,
        redirect: impl Fn(&T) -> Option<Redirect>,
    ) -> Result<(T, Arc<ConnectionPool>), CacheError> {
        let slot = slots::slot_of(key);
        let map = self.nodes.map();
        let mut pool = map.pool_of_slot(slot).ok_or_else(|| self.nodes.no_node(&map, slot))?;
        let deadline = pool.deadline();
        let mut is_asking = false;
        let mut redirects = 0_u32;
        while Instant::now() < deadline {
            let redirect = match pool.exchange(route, deadline, is_asking, &commands).await {
                Ok(reply) => match redirect(&reply) {
                    None => return Ok((reply, pool)),
                    Some(redirect) => redirect,
                },
                Err(ExchangeError { redirect: Some(redirect), .. }) => redirect,
                Err(ExchangeError { error, redirect: None }) => {
                    if error.is_outage() {
                        self.nodes.outdated.notify_one();
                    }
                    return Err(error);
                }
            };
            is_asking = redirect.is_asking;
            pool = self.nodes.redirected(&pool, &redirect)?;
            redirects = redirects.saturating_add(1);
            if redirects >= REDIRECTS_WITHOUT_PAUSE {
                tokio::time::sleep(REDIRECT_PAUSE).await;
            }
        }
        Err(CacheError::Unavailable("the nodes of the cluster disagree about which of them has a key".to_owned()))
    }

    /// Sends the commands of each entry, in one round trip to each node.
    pub(in crate::valkey) async fn batch<E: BatchEntry + Sync>(
        &self,
        entries: &[E],
        route: Route,
        commands: impl Fn(&Exchange, &[E]) -> Vec<Cmd> + Sync,
    ) -> Result<Vec<Replies>, CacheError> {
        let map = self.nodes.map();
        let mut by_node: Vec<Vec<(usize, &E)>> = map.primaries.iter().map(|_| Vec::new()).collect();
        for indexed in entries.iter().enumerate() {
            let slot = slots::slot_of(indexed.1.key());
            match map.owner(slot).and_then(|owner| by_node.get_mut(owner)) {
                Some(of_node) => of_node.push(indexed),
                None => return Err(self.nodes.no_node(&map, slot)),
            }
        }
        let of_nodes = map.primaries.iter().zip(&by_node).filter(|(_, entries)| !entries.is_empty());
        let sent = of_nodes.map(|(pool, entries)| self.batch_on_node(pool, entries, route, &commands));
        let mut replies: Vec<Replies> = entries.iter().map(|_| Vec::new()).collect();
        for (index, of_entry) in try_join_all(sent).await?.into_iter().flatten() {
            if let Some(replies) = replies.get_mut(index) {
                *replies = of_entry;
            }
        }
        Ok(replies)
    }

    /// The part of [`Cluster::batch`] for one node. Entries that the node redirects are sent to the right node.
    async fn batch_on_node<E: BatchEntry + Sync>(
        &self,
        pool: &ConnectionPool,
        entries: &[(usize, &E)],
        route: Route,
        commands: &(impl Fn(&Exchange, &[E]) -> Vec<Cmd> + Sync),
    ) -> Result<Vec<(usize, Replies)>, CacheError> {
        let mut lens = Vec::with_capacity(entries.len());
        let all = |exchange: &Exchange| {
            let mut all = Pipeline::with_capacity(entries.len());
            for (_, entry) in entries {
                let commands = commands(exchange, std::slice::from_ref(*entry));
                lens.push(commands.len());
                commands.into_iter().for_each(|command| exchange.add(&mut all, command));
            }
            all
        };
        let sent = pool.batch(route, all).await;
        let mut replies = sent.inspect_err(|_| self.nodes.outdated.notify_one())?.into_iter();
        let mut done = Vec::with_capacity(entries.len());
        let mut redirected = Vec::new();
        for (&(index, entry), len) in entries.iter().zip(lens) {
            let of_entry: Vec<RedisResult<Value>> = replies.by_ref().take(len).collect();
            if find_redirect(&of_entry).is_some() {
                redirected.push((index, entry));
            } else {
                let replies = pool.read_batch(of_entry);
                if replies.iter().any(|reply| reply.as_ref().is_err_and(CacheError::is_outage)) {
                    self.nodes.outdated.notify_one();
                }
                done.push((index, replies));
            }
        }
        let followed = redirected.into_iter().map(|(index, entry)| async move {
            let commands = |exchange: &Exchange| {
                let mut pipeline = exchange.pipeline(commands(exchange, std::slice::from_ref(entry)));
                pipeline.ignore_errors();
                pipeline
            };
            let redirect = |replies: &Vec<RedisResult<Value>>| find_redirect(replies);
            let (replies, pool) = self.follow(entry.key(), route, commands, redirect).await?;
            Ok::<_, CacheError>((index, pool.read_batch(replies)))
        });
        done.extend(try_join_all(followed).await?);
        Ok(done)
    }

    /// The most keys that are read at once. Each value is a reply of its own, and the reply limit applies to single replies.
    /// So the keys are read in parts that cannot exceed the limit of a batch, until the values do.
    pub(in crate::valkey) fn read_part(&self) -> usize {
        let limits = self.nodes.connector.limits.reply;
        let part = limits.reply.checked_div(limits.string).and_then(|keys| usize::try_from(keys).ok());
        part.unwrap_or(1).max(1)
    }

    /// Visits all primaries, and visits them again if slots were moving.
    ///
    /// # Errors
    ///
    /// The first error of a visit, or [`CacheError::Unavailable`] if slots still move after [`MAX_PASSES`] passes.
    pub(in crate::valkey) async fn sum_over_primaries<F: Future<Output = Result<u64, CacheError>>>(
        &self,
        visit: impl Fn(Arc<ConnectionPool>) -> F,
    ) -> Result<u64, CacheError> {
        let mut sum = 0_u64;
        let mut before = self.slot_assignment().await?;
        for pass in 1..=MAX_PASSES {
            sum = try_join_all(self.primaries().into_iter().map(&visit))
                .await?
                .into_iter()
                .fold(sum, u64::saturating_add);
            let after = self.slot_assignment().await?;
            // Decision: docs/decisions/0024-a-clear-by-pattern-visits-a-cluster-twice-while-slots-move.md
            // A key that moved from a node that was not visited yet to a node that was visited is missed. So all nodes
            // are visited again while slots move: a key that moved during the first pass stays during the second.
            if before == after && (after.moving.is_empty() || pass > 1) {
                return Ok(sum);
            }
            before = after;
        }
        Err(CacheError::Unavailable("the slots of the cluster kept moving, so some keys may remain".to_owned()))
    }

    /// The pools of the primaries, as far as they are known.
    pub(in crate::valkey) fn primaries(&self) -> Vec<Arc<ConnectionPool>> {
        self.nodes.map().primaries.clone()
    }

    /// The primaries in the order of their slots, and a check of which slots each of them has.
    pub(in crate::valkey) fn list_primaries(&self) -> (Vec<Arc<ConnectionPool>>, u8) {
        let map = self.nodes.map();
        (map.primaries.clone(), slots::check(&map.ranges))
    }

    /// Why there is no primary.
    pub(in crate::valkey) fn unreached(&self) -> CacheError {
        self.nodes.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refreshes the slot map, and asks all primaries which slots are moving.
    async fn slot_assignment(&self) -> Result<SlotAssignment, CacheError> {
        let map = self.nodes.refresh().await?;
        let mut question = redis::cmd("CLUSTER");
        question.arg("NODES");
        let replies = try_join_all(map.primaries.iter().map(|pool| pool.call::<String>(MAP_ROUTE, &question))).await?;
        let moving = replies.iter().flat_map(|nodes| slots::read_moving(nodes)).collect();
        // Without the replicas, about which nodes may disagree.
        let owners = map.ranges.iter().map(|SlotRange { first, last, primary, .. }| (*first, *last, primary.clone()));
        Ok(SlotAssignment { owners: owners.collect(), moving })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Wakes the refresh task, which then ends.
        self.nodes.outdated.notify_one();
    }
}

fn find_redirect(replies: &[RedisResult<Value>]) -> Option<Redirect> {
    replies.iter().find_map(|reply| reply.as_ref().err().and_then(Redirect::read))
}

impl Nodes {
    fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the map from the first seed that replies, and connects to all primaries.
    async fn reach(&self) -> Result<(), ConnectFailure> {
        let mut failed: Option<ConnectFailure> = None;
        for seed in &self.seeds {
            match self.ask(seed).await {
                Ok(view) => {
                    let map = self.adopt(view::newest(vec![view]));
                    if !map.is_complete() {
                        let text = format!("cannot use the cluster of `{seed}`: some slots have no node");
                        return Err(CacheError::Unavailable(text).into());
                    }
                    try_join_all(map.primaries.iter().map(|pool| async { pool.reached().await })).await?;
                    return Ok(());
                }
                Err(failure) => {
                    tracing::debug!("{}", failure.error);
                    // A refusal says more than that another seed is away.
                    failed = failed.filter(|failed| failed.is_final).or(Some(failure));
                }
            }
        }
        Err(failed.unwrap_or_else(|| CacheError::Unavailable("no node of the cluster is configured".to_owned()).into()))
    }

    fn set_unreached(&self, reason: CacheError) {
        *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The error for a slot without a node on the map, which is then refreshed.
    fn no_node(&self, map: &SlotMap, slot: u16) -> CacheError {
        self.outdated.notify_one();
        if map.primaries.is_empty() {
            return self.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        CacheError::Unavailable(format!("the cluster has no node for slot {slot}"))
    }

    /// Replaces the map by that of these ranges, if they differ.
    fn adopt(&self, ranges: Vec<SlotRange>) -> Arc<SlotMap> {
        let (old, new) = {
            let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
            if map.ranges == ranges {
                return Arc::clone(&map);
            }
            let new = Arc::new(SlotMap::new(ranges, &map, &self.connector));
            (std::mem::replace(&mut *map, Arc::clone(&new)), new)
        };
        // The node itself may not know yet.
        let losers: Vec<_> = old.losers(&new).collect();
        losers.iter().for_each(|pool| pool.flush_feeds());
        if !losers.is_empty() {
            self.connector.keys_moved();
        }
        new
    }

    /// The pool of the node that a redirect names.
    fn redirected(&self, from: &ConnectionPool, redirect: &Redirect) -> Result<Arc<ConnectionPool>, CacheError> {
        self.outdated.notify_one();
        let asked = endpoint_of(from).map_or("", |node| &node.host);
        let Some(node) = slots::read_redirect(&redirect.to, asked) else {
            let text = format!("a node of the cluster redirects to `{}`, which has no port", redirect.to);
            return Err(CacheError::Unavailable(text));
        };
        // A node without slots is not on the map, and a single connection to it is enough, which ends after the call.
        let start_single = || Arc::new(ConnectionPool::start_single(self.temporary(&node)));
        Ok(self.map().pool_of(&node).unwrap_or_else(start_single))
    }

    /// A connector for a connection over which nothing is read that the near tier keeps.
    fn temporary(&self, node: &Endpoint) -> Connector {
        self.connector.to(Target::Node(node.clone())).with_near(None)
    }

    /// Asks a node for its view, over a temporary connection.
    async fn ask(&self, node: &Endpoint) -> Result<View, ConnectFailure> {
        let connection = ManagedConnection::connect(self.temporary(node)).await?;
        let replies = connection.batch(connection.deadline(), |exchange| exchange.pipeline(view::questions())).await?;
        let replies = replies.into_iter().map(|reply| connection.read(Some(reply.and_then(Value::extract_error))));
        Ok(view::read(replies.collect(), &node.host)?)
    }

    /// Refreshes the map: asks the primaries that are up, or else all nodes and the seeds.
    async fn refresh(&self) -> Result<Arc<SlotMap>, CacheError> {
        let map = self.map();
        let up = map.primaries.iter().filter(|pool| pool.is_up()).map(|pool| ask_pool(pool));
        let views = match view::gather(up).await {
            Ok(views) => views,
            Err(_none_is_up) => {
                let nodes = map.ranges.iter().flat_map(|range| range.replicas.iter().chain([&range.primary]));
                let others: BTreeSet<&Endpoint> = nodes.chain(&self.seeds).collect();
                view::gather(others.into_iter().map(|node| async move { Ok(self.ask(node).await?) })).await?
            }
        };
        Ok(self.adopt(view::newest(views)))
    }
}

/// Asks a node for its view, over its pool.
async fn ask_pool(pool: &ConnectionPool) -> Result<View, CacheError> {
    let host = endpoint_of(pool).map_or("", |node| &node.host);
    let replies = pool.batch(MAP_ROUTE, |exchange| exchange.pipeline(view::questions())).await?;
    view::read(pool.read_batch(replies), host)
}

/// Refreshes the map each time it may be outdated, until the cluster is dropped.
async fn refresh_task(nodes: Weak<Nodes>, outdated: Arc<Notify>) {
    loop {
        outdated.notified().await;
        let mut backoff = Backoff::reconnect();
        loop {
            let Some(nodes) = nodes.upgrade() else { return };
            let is_current = match nodes.refresh().await {
                Ok(map) => map.is_complete() && map.primaries.iter().all(|pool| pool.is_up()),
                Err(error) => {
                    // Without a node on the map, no connection reports the outage.
                    nodes.connector.unreachable.report(&error, nodes.map().primaries.is_empty());
                    nodes.set_unreached(error);
                    false
                }
            };
            drop(nodes);
            tokio::time::sleep(backoff.next_with_jitter()).await;
            if is_current {
                break;
            }
        }
    }
}
