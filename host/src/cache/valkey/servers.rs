//! What a cache is on: one server, or the nodes of a cluster. An exchange about a key finds its server here.

use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Pipeline};

use crate::cache::valkey::cluster::Cluster;
use crate::cache::valkey::connection::{Link, Wire};
use crate::cache::valkey::opening::{Opener, Target};
use crate::cache::valkey::options::{Place, ServerOptions};
use crate::cache::valkey::watch::Watchers;
use crate::cache::{CacheError, Health, Policy};

/// The servers of one cache.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) layout: Layout,
    watchers: Arc<Watchers>,
}

/// How many there are.
#[derive(Debug)]
pub(super) enum Layout {
    One(Arc<Link>),
    Cluster(Cluster),
}

impl Servers {
    /// Connects to all that have keys.
    pub(super) async fn connect(options: ServerOptions, policy: &Policy) -> Result<Self, CacheError> {
        let place = options.place.clone();
        let open = |target| Opener::new(options, target, policy);
        let (layout, watchers) = match place {
            Place::Server(address) => {
                let opener = open(Target::Server(address));
                let watchers = Arc::clone(&opener.watchers);
                (Layout::One(Arc::new(Link::connect(opener).await?)), watchers)
            }
            Place::Sentinel(sentinels) => {
                let opener = open(Target::Primary(sentinels));
                let watchers = Arc::clone(&opener.watchers);
                (Layout::One(Arc::new(Link::connect(opener).await?)), watchers)
            }
            Place::Cluster(seeds) => {
                let Some(first) = seeds.first().cloned() else {
                    return Err(CacheError::Unavailable("no node of the cluster is configured".to_owned()));
                };
                let opener = open(Target::Node(first));
                let watchers = Arc::clone(&opener.watchers);
                (Layout::Cluster(Cluster::connect(opener, seeds).await?), watchers)
            }
        };
        Ok(Self { layout, watchers })
    }

    /// Sends a command about a key and waits for its answer, within the deadline.
    pub(super) async fn call<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, CacheError> {
        match &self.layout {
            Layout::One(link) => link.call(command).await,
            Layout::Cluster(cluster) => {
                let (answer,) = cluster.exchange(key.as_bytes(), |wire| wire.one(command.clone())).await?;
                Ok(answer)
            }
        }
    }

    /// Sends commands about a key that depend on what the server can do, and waits for their answers, within the
    /// deadline. They are sent again where another node of a cluster turns out to have the key.
    pub(super) async fn exchange<T: FromRedisValue>(
        &self,
        key: &str,
        commands: impl Fn(&Wire) -> Pipeline,
    ) -> Result<T, CacheError> {
        match &self.layout {
            Layout::One(link) => link.send(link.deadline(), false, &commands).await.map_err(|failure| failure.error),
            Layout::Cluster(cluster) => cluster.exchange(key.as_bytes(), commands).await,
        }
    }

    /// Reaches every server that has keys. Of what they say it is the least that counts, and the longest round trip.
    pub(super) async fn check(&self) -> Result<Health, CacheError> {
        let (links, cluster);
        let links: &[Arc<Link>] = match &self.layout {
            Layout::One(link) => {
                links = [Arc::clone(link)];
                &links
            }
            Layout::Cluster(nodes) => {
                cluster = nodes.primaries();
                &cluster
            }
        };
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

    /// Those who wait for changes that a server tells of.
    pub(super) fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }
}
