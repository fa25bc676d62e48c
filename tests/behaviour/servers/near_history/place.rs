//! The servers of a run, and what befalls them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_tests::{Cluster, Kind, Relay, Sentinels, Server};
use redis::Connection;

/// The time within which a server replies. No server is stopped or busy for as long.
const LONGEST_REPLY: Duration = Duration::from_secs(30);

pub(super) enum Place {
    Single(Mutex<Server>),
    Sentinels(Mutex<Watched>),
    Cluster(Mutex<Cluster>),
}

/// A deployment with sentinels, and which of its servers is the primary.
pub(super) struct Watched {
    pub(super) sentinels: Sentinels,
    pub(super) primary: usize,
}

impl Place {
    pub(super) fn single(kind: Kind) -> Option<Self> {
        let server = Server::start_with(kind, &["--enable-debug-command", "local"])?;
        Some(Self::Single(Mutex::new(server)))
    }

    pub(super) fn sentinels(kind: Kind) -> Option<Self> {
        Some(Self::Sentinels(Mutex::new(Watched { sentinels: Sentinels::start(kind)?, primary: 0 })))
    }

    pub(super) fn cluster(kind: Kind) -> Option<Self> {
        Some(Self::Cluster(Mutex::new(Cluster::start(kind)?)))
    }

    /// The TOML of the cache of a host, and the relay through which it connects.
    pub(super) fn cache(&self) -> (String, Option<Relay>) {
        match self {
            Self::Single(server) => {
                let server = lock(server);
                let relay = Relay::to(server.port());
                let port = |port| format!("port = {port}");
                (server.cache("cache").replace(&port(server.port()), &port(relay.port())), Some(relay))
            }
            Self::Sentinels(watched) => (lock(watched).sentinels.cache("cache"), None),
            Self::Cluster(cluster) => (lock(cluster).cache("cache"), None),
        }
    }

    /// True if one server has all keys.
    pub(super) fn has_all_keys(&self) -> bool {
        !matches!(self, Self::Cluster(_))
    }

    /// A connection to the server of a key; `None` while it is away.
    pub(super) fn client(&self, key: Option<&str>) -> Option<Connection> {
        let client = self.connect(key)?;
        client.set_read_timeout(Some(LONGEST_REPLY)).unwrap();
        client.set_write_timeout(Some(LONGEST_REPLY)).unwrap();
        Some(client)
    }

    fn connect(&self, key: Option<&str>) -> Option<Connection> {
        match self {
            Self::Single(server) => lock(server).try_client(),
            Self::Sentinels(watched) => {
                let watched = lock(watched);
                watched.sentinels.servers[watched.primary].try_client()
            }
            Self::Cluster(cluster) => {
                let key = format!("{}{}", super::other::PREFIX, key?);
                // The one that neither redirects nor follows another one.
                lock(cluster).nodes.iter().filter_map(Server::try_client).find_map(|mut client| {
                    let has_key = redis::cmd("GETRANGE").arg(&key).arg(0).arg(0).exec(&mut client).is_ok();
                    has_key.then_some(client)
                })
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
