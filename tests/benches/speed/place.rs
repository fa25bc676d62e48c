//! Where values are kept while something is measured: RAM, or a server of our own.

use std::sync::Arc;
use std::time::Duration;

use larder_host::cache::{Cache, ScopedCache};
use larder_host::{Config, connect_cache, operator_view};
use larder_tests::{Kind, Server};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

/// Keys of a cache's table with which the server tells it of no changes, so that it has to look for them.
pub(crate) const POLLING: &str = "username = \"polling\"\npassword = \"polling\"\n";

/// One place.
pub(crate) struct Place {
    /// What stands there, with its version.
    pub(crate) name: String,
    /// A table for one cache, named `cache`. Nobody is to be given up on because the machine is busy.
    toml: String,
    server: Option<Server>,
}

impl Place {
    pub(crate) fn ram() -> Self {
        let toml = "[caches.cache]\ntype = \"ram\"\nwait = \"10m\"\n".to_owned();
        Self { name: "RAM".to_owned(), toml, server: None }
    }

    /// A server of each kind that is installed.
    pub(crate) async fn servers() -> Vec<Self> {
        let mut places = Vec::new();
        for server in Kind::ALL.into_iter().filter_map(Server::start) {
            let toml = format!("{}timeout = \"20s\"\nwait = \"10m\"\n", server.cache("cache"));
            let mut place = Self { name: String::new(), toml, server: Some(server) };
            let health = place.cache("").await.check().await.unwrap();
            place.name = format!("{} {} ({})", health.kind, health.version, health.supports.join(", "));
            let mut user = redis::cmd("ACL");
            user.arg(&["SETUSER", "polling", "on", ">polling", "~*", "+@all", "-client|tracking"]);
            let () = user.query_async(&mut place.client(None).await).await.unwrap();
            places.push(place);
        }
        places
    }

    pub(crate) fn config(&self, more: &str) -> Config {
        Config::from_toml(&format!("{}{more}", self.toml)).unwrap()
    }

    /// A new cache with a connection of its own: on a server, what another process is to the first.
    pub(crate) async fn cache(&self, more: &str) -> Arc<Cache> {
        connect_cache("cache", &self.config(more).caches["cache"]).await.unwrap()
    }

    /// A bare client, which speaks the protocol that we speak. A deadline costs it a timer at every call, as it costs us.
    pub(crate) async fn client(&self, deadline: Option<Duration>) -> MultiplexedConnection {
        let port = self.server.as_ref().expect("only a server has clients").port();
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).unwrap();
        let config = AsyncConnectionConfig::new().set_response_timeout(deadline);
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }
}

/// A plugin without a namespace, an owner of its own.
pub(crate) fn view(cache: &Arc<Cache>) -> ScopedCache {
    operator_view(Arc::clone(cache), None)
}
