//! The backends of the benchmarks: RAM, and a server of each installed kind.

use std::sync::Arc;
use std::time::Duration;

use larder_host::cache::{Cache, ScopedCache};
use larder_host::{Config, connect_cache, operator_view};
use larder_tests::{Kind, Server};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

/// TOML keys of a cache whose user must not enable client tracking, so that waiters poll.
pub(crate) const POLLING: &str = "username = \"polling\"\npassword = \"polling\"\n";

/// A backend, and the configuration of a cache on it.
pub(crate) struct Backend {
    /// The name in the results, with the server's version and capabilities.
    pub(crate) name: String,
    /// The TOML of one cache named `cache`. Its timeouts are long enough for a busy machine.
    toml: String,
    server: Option<Server>,
}

impl Backend {
    pub(crate) fn ram() -> Self {
        let toml = "[caches.cache]\ntype = \"ram\"\nwait = \"10m\"\n".to_owned();
        Self { name: "RAM".to_owned(), toml, server: None }
    }

    /// Starts a server of each installed kind, with the user that [`POLLING`] names.
    pub(crate) async fn servers() -> Vec<Self> {
        let mut backends = Vec::new();
        for server in Kind::ALL.into_iter().filter_map(Server::start) {
            backends.push(Self::on(server).await);
        }
        backends
    }

    /// The backend on a server, with the user that [`POLLING`] names.
    pub(crate) async fn on(server: Server) -> Self {
        let toml = format!("{}timeout = \"20s\"\nwait = \"10m\"\n", server.cache("cache"));
        let mut backend = Self { name: String::new(), toml, server: Some(server) };
        let health = backend.cache("").await.check().await.unwrap();
        backend.name = format!("{} {} ({})", health.kind, health.version, health.supports.join(", "));
        let mut user = redis::cmd("ACL");
        user.arg(&["SETUSER", "polling", "on", ">polling", "~*", "+@all", "-client|tracking"]);
        let () = user.query_async(&mut backend.client(None).await).await.unwrap();
        backend
    }

    pub(crate) fn config(&self, extra: &str) -> Config {
        Config::from_toml(&format!("{}{extra}", self.toml)).unwrap()
    }

    /// Connects a new cache. Two caches on one server share no connection, as in two processes.
    pub(crate) async fn cache(&self, extra: &str) -> Arc<Cache> {
        connect_cache("cache", &self.config(extra).caches["cache"]).await.unwrap()
    }

    /// Connects a bare Redis client with RESP3. With a deadline, the client uses a timer for each call, as Larder does.
    pub(crate) async fn client(&self, deadline: Option<Duration>) -> MultiplexedConnection {
        self.client_with(&AsyncConnectionConfig::new().set_response_timeout(deadline)).await
    }

    /// [`Backend::client`] with a configuration.
    pub(crate) async fn client_with(&self, config: &AsyncConnectionConfig) -> MultiplexedConnection {
        let port = self.server().port();
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).unwrap();
        client.get_multiplexed_async_connection_with_config(config).await.unwrap()
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("the RAM backend has no server")
    }
}

/// Returns a view of the cache without a namespace, with a new owner.
pub(crate) fn view(cache: &Arc<Cache>) -> ScopedCache {
    operator_view(Arc::clone(cache), None)
}
