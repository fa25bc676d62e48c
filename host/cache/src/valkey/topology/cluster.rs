//! The nodes of a cluster: which one has a key, who follows when slots move or a primary fails, and commands for many
//! keys.
//!
//! A map says which node has which slot. A node that is asked for a key it does not have says who has it, and the call
//! goes there at once; the map is asked for anew in the background, as it is when a connection is lost, again and
//! again until every primary can be reached.

// Decision: docs/decisions/0014-our-own-cluster-connections-and-slot-map.md

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration as StdDuration;

use bytes::Bytes;
use futures_util::future::{select_ok, try_join_all};
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::CacheError;
use crate::valkey::connection::connector::{Opener, Target};
use crate::valkey::connection::managed::{Failure, Link, Redirect, Wire};
use crate::valkey::connection::pool::Links;
use crate::valkey::connection::routing::Way;
use crate::valkey::options::Endpoint;
use crate::valkey::topology::slots::{self, Range, SLOTS};

/// So often a call follows at once where a node says that a key is, and then with a pause until its deadline. Two are
/// needed when slots move; more only while the nodes disagree.
const REDIRECTS_AT_ONCE: u32 = 3;
const REDIRECT_PAUSE: StdDuration = StdDuration::from_millis(20);

/// The pause after the map was asked for, and the longest while some primary is out of reach.
const FIRST_PAUSE: StdDuration = StdDuration::from_millis(50);
const LONGEST_PAUSE: StdDuration = StdDuration::from_millis(800);

/// What a node answers to each of several commands.
pub(in crate::valkey) type Answers = Vec<Result<Value, CacheError>>;

/// The nodes that a cache is on.
#[derive(Debug)]
pub(in crate::valkey) struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    opener: Opener,
    seeds: Vec<Endpoint>,
    map: RwLock<Arc<Map>>,
    /// Is told when the map may be wrong.
    stale: Arc<Notify>,
}

/// Which node has which slot.
#[derive(Debug, Default)]
struct Map {
    ranges: Vec<Range>,
    /// For each slot the place of its primary in `primaries`; [`NOBODY`] where it has none.
    owners: Vec<u16>,
    primaries: Vec<Arc<Links>>,
}

const NOBODY: u16 = u16::MAX;

impl Map {
    /// The map for these ranges, with the links of `old` where it has them.
    fn new(ranges: Vec<Range>, old: &Self, opener: &Opener) -> Self {
        let mut owners = vec![NOBODY; usize::from(SLOTS)];
        let mut primaries: Vec<Arc<Links>> = Vec::new();
        for range in &ranges {
            let place = primaries.iter().position(|link| leads_to(link, &range.primary)).unwrap_or_else(|| {
                primaries.push(old.link_to(&range.primary).unwrap_or_else(|| start(opener, &range.primary)));
                primaries.len().saturating_sub(1)
            });
            let place = u16::try_from(place).unwrap_or(NOBODY);
            let slots = usize::from(range.first)..=usize::from(range.last);
            owners.get_mut(slots).into_iter().flatten().for_each(|owner| *owner = place);
        }
        Self { ranges, owners, primaries }
    }

    fn owner(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).filter(|owner| **owner != NOBODY).map(|owner| usize::from(*owner))
    }

    fn link(&self, slot: u16) -> Result<Arc<Links>, CacheError> {
        let link = self.owner(slot).and_then(|owner| self.primaries.get(owner));
        link.cloned().ok_or_else(|| nobody(slot))
    }

    fn link_to(&self, address: &Endpoint) -> Option<Arc<Links>> {
        self.primaries.iter().find(|link| leads_to(link, address)).cloned()
    }

    fn is_whole(&self) -> bool {
        self.owners.len() == usize::from(SLOTS) && !self.owners.contains(&NOBODY)
    }
}

fn nobody(slot: u16) -> CacheError {
    CacheError::Unavailable(format!("the cluster has no node for slot {slot}"))
}

fn address_of(link: &Links) -> Option<&Endpoint> {
    match link.target() {
        Target::Node(address) => Some(address),
        Target::Server(_) | Target::Primary(_) => None,
    }
}

fn leads_to(link: &Links, address: &Endpoint) -> bool {
    address_of(link) == Some(address)
}

fn start(opener: &Opener, address: &Endpoint) -> Arc<Links> {
    Arc::new(Links::start(opener.to(Target::Node(address.clone()))))
}

/// Who has which slot, and which slots are on their way.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::valkey) struct Layout {
    owners: Vec<(u16, u16, Endpoint)>,
    moving: BTreeSet<String>,
}

impl Layout {
    /// Whether no slot is on its way.
    pub(in crate::valkey) fn is_quiet(&self) -> bool {
        self.moving.is_empty()
    }
}

impl Cluster {
    /// Asks the first of the nodes that answers for the others, and connects to all primaries.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`], when no node can be used, one primary cannot, or slots have no node.
    pub(in crate::valkey) async fn connect(opener: Opener, seeds: Vec<Endpoint>) -> Result<Self, CacheError> {
        let mut reason = CacheError::Unavailable("no node is configured".to_owned());
        let stale = Arc::clone(&opener.on_loss);
        let shared = Arc::new(Shared { opener, seeds, map: RwLock::default(), stale });
        for seed in &shared.seeds {
            match shared.ask(seed).await {
                Ok(ranges) => {
                    let map = shared.adopt(ranges);
                    if !map.is_whole() {
                        let text = format!("cannot use the cluster of `{seed}`: some slots have no node");
                        return Err(CacheError::Unavailable(text));
                    }
                    let reached = map.primaries.iter().map(|link| async { link.reached().await });
                    try_join_all(reached).await?;
                    tokio::spawn(keep_map(Arc::downgrade(&shared), Arc::clone(&shared.stale)));
                    return Ok(Self { shared });
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    reason = error;
                }
            }
        }
        Err(reason)
    }

    /// Has an exchange with the node that has the key, wherever that is, within one deadline.
    pub(in crate::valkey) async fn exchange<T: FromRedisValue>(
        &self,
        key: &[u8],
        way: Way,
        commands: impl Fn(&Wire) -> Pipeline,
    ) -> Result<T, CacheError> {
        self.follow(key, way, commands, |_| None).await.map(|(answer, _)| answer)
    }

    /// [`Cluster::exchange`], and the node that answered. `redirect` finds what redirects within an answer.
    async fn follow<T: FromRedisValue>(
        &self,
        key: &[u8],
        way: Way,
        commands: impl Fn(&Wire) -> Pipeline,
        redirect: impl Fn(&T) -> Option<Redirect>,
    ) -> Result<(T, Arc<Links>), CacheError> {
        let slot = slots::slot_of(key);
        let mut link = self.link(slot)?;
        let deadline = link.deadline();
        let mut is_asking = false;
        let mut redirects = 0_u32;
        while Instant::now() < deadline {
            let redirect = match link.send(way, deadline, is_asking, &commands).await {
                Ok(answer) => match redirect(&answer) {
                    None => return Ok((answer, link)),
                    Some(redirect) => redirect,
                },
                Err(Failure { redirect: Some(redirect), .. }) => redirect,
                Err(Failure { error, redirect: None }) => {
                    if error.is_outage() {
                        self.shared.stale.notify_one();
                    }
                    return Err(error);
                }
            };
            is_asking = redirect.is_asking;
            link = self.shared.redirected(&link, &redirect)?;
            redirects = redirects.saturating_add(1);
            if redirects >= REDIRECTS_AT_ONCE {
                tokio::time::sleep(REDIRECT_PAUSE).await;
            }
        }
        Err(CacheError::Unavailable("the nodes of the cluster do not agree which of them has a key".to_owned()))
    }

    fn link(&self, slot: u16) -> Result<Arc<Links>, CacheError> {
        self.shared.map().link(slot).inspect_err(|_| self.shared.stale.notify_one())
    }

    /// Carries out the commands of each key, one round trip to each node, and gives the answers in the order of the
    /// keys. `commands` says which are those of the key at a place; each key has equally many.
    pub(in crate::valkey) async fn each(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
        way: Way,
        commands: impl Fn(usize) -> Vec<Cmd> + Sync,
    ) -> Result<Vec<Answers>, CacheError> {
        let map = self.shared.map();
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); map.primaries.len()];
        for (place, key) in keys.iter().enumerate() {
            let slot = slots::slot_of(key.as_ref());
            match map.owner(slot).and_then(|owner| places.get_mut(owner)) {
                Some(places) => places.push(place),
                None => {
                    self.shared.stale.notify_one();
                    return Err(nobody(slot));
                }
            }
        }
        let of_nodes = map.primaries.iter().zip(&places).filter(|(_, places)| !places.is_empty());
        let sent = of_nodes.map(|(link, places)| self.each_on(link, places, keys, way, &commands));
        let mut answers: Vec<Answers> = keys.iter().map(|_| Vec::new()).collect();
        for (place, of_key) in try_join_all(sent).await?.into_iter().flatten() {
            if let Some(slot) = answers.get_mut(place) {
                *slot = of_key;
            }
        }
        Ok(answers)
    }

    /// The values of many keys, in their order. One of another type is none, as `MGET` has it.
    ///
    /// Each value is an answer of its own here, and answers are bounded one by one. So no more keys are asked for at once
    /// than may bring what one batch may bring, and no more when that has come.
    pub(in crate::valkey) async fn get_many(
        &self,
        keys: &[String],
        way: Way,
    ) -> Result<Vec<Option<Bytes>>, CacheError> {
        let bounds = self.shared.opener.bounds;
        let at_once = bounds.answer.checked_div(bounds.string).and_then(|keys| usize::try_from(keys).ok());
        let mut values = Vec::with_capacity(keys.len());
        let mut len = 0_usize;
        for keys in keys.chunks(at_once.unwrap_or(1).max(1)) {
            let command = |place| keys.get(place).map(|key| redis::cmd("GET").arg(key).take()).into_iter().collect();
            for mut answers in self.each(keys, way, command).await? {
                let value = match answers.pop() {
                    Some(Ok(Value::BulkString(value))) => Some(Bytes::from(value)),
                    Some(Err(CacheError::WrongType) | Ok(_)) | None => None,
                    Some(Err(error)) => return Err(error),
                };
                len = len.saturating_add(value.as_ref().map_or(0, Bytes::len));
                values.push(value);
            }
            let max = usize::try_from(bounds.answer).unwrap_or(usize::MAX);
            if len > max {
                return Err(CacheError::ValueTooLarge { len, max });
            }
        }
        Ok(values)
    }

    /// What [`Cluster::each`] has to do with one node, and with the keys that turn out to be elsewhere.
    async fn each_on(
        &self,
        link: &Links,
        places: &[usize],
        keys: &[impl AsRef<[u8]> + Sync],
        way: Way,
        commands: &(impl Fn(usize) -> Vec<Cmd> + Sync),
    ) -> Result<Vec<(usize, Answers)>, CacheError> {
        let mut pipeline = Pipeline::new();
        let mut lens = Vec::with_capacity(places.len());
        for &place in places {
            let commands = commands(place);
            lens.push(commands.len());
            commands.into_iter().for_each(|command| {
                pipeline.add_command(command);
            });
        }
        pipeline.ignore_errors();
        let sent: Result<Vec<RedisResult<Value>>, CacheError> = link.call_all(way, &pipeline).await;
        let answers = sent.inspect_err(|_| self.shared.stale.notify_one())?;
        let mut answers = answers.into_iter();
        let mut done = Vec::with_capacity(places.len());
        let mut elsewhere = Vec::new();
        for (&place, len) in places.iter().zip(lens) {
            let of_key: Vec<RedisResult<Value>> = answers.by_ref().take(len).collect();
            if of_key.iter().find_map(redirect_in).is_some() {
                elsewhere.push(place);
            } else {
                done.push((place, of_key.into_iter().map(|answer| link.read(Some(answer))).collect()));
            }
        }
        let followed = elsewhere.into_iter().filter_map(|place| Some((place, keys.get(place)?)));
        let followed = followed.map(|(place, key)| async move {
            let at_once = |wire: &Wire| {
                let mut pipeline = Pipeline::new();
                commands(place).into_iter().for_each(|command| wire.add(&mut pipeline, command));
                pipeline.ignore_errors();
                pipeline
            };
            let redirect = |answers: &Vec<RedisResult<Value>>| answers.iter().find_map(redirect_in);
            let (answers, link) = self.follow(key.as_ref(), way, at_once, redirect).await?;
            Ok::<_, CacheError>((place, answers.into_iter().map(|answer| link.read(Some(answer))).collect()))
        });
        done.extend(try_join_all(followed).await?);
        Ok(done)
    }

    /// The primaries, as far as is known.
    pub(in crate::valkey) fn primaries(&self) -> Vec<Arc<Links>> {
        self.shared.map().primaries.clone()
    }

    /// Asks the nodes which of them has which slot, and all primaries which slots are on their way.
    pub(in crate::valkey) async fn layout(&self) -> Result<Layout, CacheError> {
        let map = self.shared.refresh().await?;
        let mut nodes = redis::cmd("CLUSTER");
        nodes.arg("NODES");
        let asked = map.primaries.iter().map(|link| link.call::<String>(Way::Shared(0), &nodes));
        let moving = try_join_all(asked).await?.iter().flat_map(|nodes| slots::read_moving(nodes)).collect();
        // Without the replicas, of which the nodes know different ones at times.
        let owners = map.ranges.iter().map(|Range { first, last, primary, .. }| (*first, *last, primary.clone()));
        Ok(Layout { owners: owners.collect(), moving })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Lets the keeper of the map see that nobody needs it.
        self.shared.stale.notify_one();
    }
}

fn redirect_in(answer: &RedisResult<Value>) -> Option<Redirect> {
    answer.as_ref().err().and_then(Redirect::read)
}

impl Shared {
    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the map that of these ranges.
    fn adopt(&self, ranges: Vec<Range>) -> Arc<Map> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if map.ranges != ranges {
            *map = Arc::new(Map::new(ranges, &map, &self.opener));
        }
        Arc::clone(&map)
    }

    /// The node that another one named.
    fn redirected(&self, from: &Links, redirect: &Redirect) -> Result<Arc<Links>, CacheError> {
        self.stale.notify_one();
        let asked = address_of(from).map_or("", |address| &address.host);
        let Some(address) = slots::read_redirect(&redirect.to, asked) else {
            return Err(CacheError::Unavailable("a node of the cluster named another one without a port".to_owned()));
        };
        // One without slots of its own is not on the map, and one connection to it has to do.
        let to_another = || Arc::new(Links::start_one(self.opener.to(Target::Node(address.clone()))));
        Ok(self.map().link_to(&address).unwrap_or_else(to_another))
    }

    /// Asks a node of the cluster by a connection of its own.
    async fn ask(&self, node: &Endpoint) -> Result<Vec<Range>, CacheError> {
        let link = Link::connect(self.opener.to(Target::Node(node.clone()))).await?;
        read(link.call(link.deadline(), &question()).await?, &node.host)
    }

    /// Asks for the map anew: the primaries that can be reached, else the replicas and the configured nodes.
    async fn refresh(&self) -> Result<Arc<Map>, CacheError> {
        let map = self.map();
        let up: Vec<_> = map.primaries.iter().filter(|link| link.is_up()).map(|link| Box::pin(ask(link))).collect();
        if !up.is_empty()
            && let Ok((ranges, _slower)) = select_ok(up).await
        {
            return Ok(self.adopt(ranges));
        }
        let replicas = map.ranges.iter().flat_map(|range| &range.replicas);
        let others: BTreeSet<&Endpoint> = replicas.chain(&self.seeds).collect();
        let (ranges, _slower) = select_ok(others.into_iter().map(|node| Box::pin(self.ask(node)))).await?;
        Ok(self.adopt(ranges))
    }
}

/// Asks a node which slots are where.
async fn ask(links: &Links) -> Result<Vec<Range>, CacheError> {
    let host = address_of(links).map_or("", |address| &address.host);
    read(links.call(Way::Shared(0), &question()).await?, host)
}

fn question() -> Cmd {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

/// What the node at this host answered.
fn read(slots: Value, host: &str) -> Result<Vec<Range>, CacheError> {
    let ranges = slots::read_ranges(slots, host);
    if ranges.is_empty() {
        return Err(CacheError::Unavailable("a node of the cluster knows of no slots".to_owned()));
    }
    Ok(ranges)
}

/// Brings the map up to date whenever it may be wrong, until nobody needs it.
async fn keep_map(shared: Weak<Shared>, stale: Arc<Notify>) {
    loop {
        stale.notified().await;
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(shared) = shared.upgrade() else { return };
            let is_right = match shared.refresh().await {
                Ok(map) => map.is_whole() && map.primaries.iter().all(|link| link.is_up()),
                Err(error) => {
                    tracing::debug!("{error}");
                    false
                }
            };
            drop(shared);
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            if is_right {
                break;
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}
