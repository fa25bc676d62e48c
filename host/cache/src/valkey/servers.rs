//! What a cache is on: one server, or the nodes of a cluster. An exchange about a key finds its server here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Pipeline};

use crate::valkey::connection::connector::{Opener, Target};
use crate::valkey::connection::invalidation::Watchers;
use crate::valkey::connection::managed::Wire;
use crate::valkey::connection::pool::Links;
use crate::valkey::connection::routing::{LargeKeys, Way};
use crate::valkey::options::{Deployment, ServerOptions};
use crate::valkey::server::info::ServerKind;
use crate::valkey::topology::cluster::Cluster;
use crate::{BackendStatus, CacheError, Health, Policy};

/// The servers of one cache.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) layout: Layout,
    /// Which way calls go.
    pub(super) large: LargeKeys,
    watchers: Arc<Watchers>,
    kind: ServerKind,
    /// The most that was told of reconnects.
    most_reconnects: AtomicU64,
}

/// How many there are.
#[derive(Debug)]
pub(super) enum Layout {
    One(Arc<Links>),
    Cluster(Cluster),
}

impl Servers {
    /// Connects to all that have keys.
    pub(super) async fn connect(options: ServerOptions, policy: &Policy) -> Result<Self, CacheError> {
        let (place, kind) = (options.deployment.clone(), options.kind);
        let large = LargeKeys::new(options.connections);
        let open = |target| Opener::new(options, target, policy);
        let (layout, watchers) = match place {
            Deployment::Server(address) => {
                let opener = open(Target::Server(address));
                let watchers = Arc::clone(&opener.watchers);
                (Layout::One(Arc::new(Links::connect(opener).await?)), watchers)
            }
            Deployment::Sentinel(sentinels) => {
                let opener = open(Target::Primary(sentinels));
                let watchers = Arc::clone(&opener.watchers);
                (Layout::One(Arc::new(Links::connect(opener).await?)), watchers)
            }
            Deployment::Cluster(seeds) => {
                let Some(first) = seeds.first().cloned() else {
                    return Err(CacheError::Unavailable("no node of the cluster is configured".to_owned()));
                };
                let opener = open(Target::Node(first));
                let watchers = Arc::clone(&opener.watchers);
                (Layout::Cluster(Cluster::connect(opener, seeds).await?), watchers)
            }
        };
        Ok(Self { layout, large, watchers, kind, most_reconnects: AtomicU64::new(0) })
    }

    /// Sends a command about a key its way, and waits for its answer, within the deadline.
    pub(super) async fn call<T: FromRedisValue>(&self, key: &str, way: Way, command: &Cmd) -> Result<T, CacheError> {
        match &self.layout {
            Layout::One(links) => links.call(way, command).await,
            // In a box, so that the future of a call to one server is small.
            Layout::Cluster(cluster) => {
                let sent = Box::pin(cluster.exchange(key.as_bytes(), way, |wire| wire.one(command.clone())));
                sent.await.map(|(answer,)| answer)
            }
        }
    }

    /// Sends commands about a key that depend on what the server can do, with so many bytes of a value, and waits for
    /// their answers, within the deadline. They are sent again where another node of a cluster turns out to have the key.
    pub(super) async fn exchange<T: FromRedisValue>(
        &self,
        key: &str,
        bytes: usize,
        commands: impl Fn(&Wire) -> Pipeline,
    ) -> Result<T, CacheError> {
        let way = self.large.way(key, bytes);
        match &self.layout {
            Layout::One(links) => {
                links.send(way, links.deadline(), false, &commands).await.map_err(|failure| failure.error)
            }
            Layout::Cluster(cluster) => cluster.exchange(key.as_bytes(), way, commands).await,
        }
    }

    /// Reaches every server that has keys. Of what they say it is the least that counts, and the longest round trip.
    pub(super) async fn check(&self) -> Result<Health, CacheError> {
        let links = self.links();
        let mut checks = try_join_all(links.iter().map(|link| link.check())).await?.into_iter();
        let mut all = checks.next().ok_or_else(|| CacheError::Unavailable("the cluster has no nodes".to_owned()))?;
        for Health { version, round_trip, supports, .. } in checks {
            all.round_trip = all.round_trip.max(round_trip);
            all.supports.retain(|feature| supports.contains(feature));
            if version != all.version && !all.version.contains(&version) {
                all.version = format!("{}, {version}", all.version);
            }
        }
        Ok(all)
    }

    /// How the connections stand, without asking the servers. Those of nodes that have left a cluster are forgotten, and
    /// what they counted stays counted.
    pub(super) fn status(&self) -> BackendStatus {
        let kind = self.kind.type_name();
        let links = self.links();
        let reconnects = links.iter().map(|link| link.reconnects()).fold(0, u64::saturating_add);
        // A counter must not go back.
        let before = self.most_reconnects.fetch_max(reconnects, Ordering::Relaxed);
        BackendStatus::Server { kind, is_up: links.iter().all(|link| link.is_up()), reconnects: reconnects.max(before) }
    }

    /// The connections to all that have keys.
    fn links(&self) -> Vec<Arc<Links>> {
        match &self.layout {
            Layout::One(links) => vec![Arc::clone(links)],
            Layout::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Those who wait for changes that a server tells of.
    pub(super) fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }
}
