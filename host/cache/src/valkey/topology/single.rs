//! A single server that has all keys: one endpoint, or the primary that sentinels name.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Pipeline};

use crate::CacheError;
use crate::valkey::connection::connector::{Connector, Target};
use crate::valkey::connection::managed::Exchange;
use crate::valkey::connection::pool::{ConnectionPool, Replies};
use crate::valkey::connection::routing::{BatchEntry, Route};
use crate::valkey::topology::primary_watch;

/// The connections to a single server. Its methods are those of [`Cluster`](super::cluster::Cluster).
#[derive(Debug)]
pub(in crate::valkey) struct Single {
    pool: Arc<ConnectionPool>,
}

impl Single {
    /// Connects. A failure is an outage to begin with, if the options say so.
    pub(in crate::valkey) async fn connect(connector: Connector) -> Result<Self, CacheError> {
        let start = connector.options.start;
        let pool = match ConnectionPool::connect(connector.clone()).await {
            Ok(pool) => pool,
            Err(failure) => ConnectionPool::start_down(connector.clone(), &failure.degraded(start)?),
        };
        let pool = Arc::new(pool);
        if let Target::Primary(sentinels) = &connector.target {
            tokio::spawn(primary_watch::watch(sentinels.clone(), connector.clone(), Arc::downgrade(&pool)));
        }
        Ok(Self { pool })
    }

    pub(in crate::valkey) async fn call<T: FromRedisValue>(
        &self,
        _key: &str,
        route: Route,
        command: &Cmd,
    ) -> Result<T, CacheError> {
        self.pool.call(route, command).await
    }

    pub(in crate::valkey) async fn exchange<T: FromRedisValue>(
        &self,
        _key: &str,
        route: Route,
        commands: impl Fn(&Exchange) -> Pipeline,
    ) -> Result<T, CacheError> {
        let reply = self.pool.exchange(route, self.pool.deadline(), false, &commands).await;
        reply.map_err(|failed| failed.error)
    }

    /// The most keys that are read at once. The reply limit applies to the one reply with all values.
    pub(in crate::valkey) fn read_part(&self) -> usize {
        usize::MAX
    }

    pub(in crate::valkey) async fn batch<E: BatchEntry>(
        &self,
        entries: &[E],
        route: Route,
        commands: impl Fn(&Exchange, &[E]) -> Vec<Cmd>,
    ) -> Result<Vec<Replies>, CacheError> {
        let replies = self.pool.batch(route, |exchange| exchange.pipeline(commands(exchange, entries))).await?;
        Ok(vec![self.pool.read_batch(replies)])
    }

    pub(in crate::valkey) async fn sum_over_primaries<F: Future<Output = Result<u64, CacheError>>>(
        &self,
        visit: impl Fn(Arc<ConnectionPool>) -> F,
    ) -> Result<u64, CacheError> {
        visit(Arc::clone(&self.pool)).await
    }

    pub(in crate::valkey) fn primaries(&self) -> Vec<Arc<ConnectionPool>> {
        vec![Arc::clone(&self.pool)]
    }

    /// The one server, which has the same number always.
    pub(in crate::valkey) fn list_primaries(&self) -> (Vec<Arc<ConnectionPool>>, u8) {
        (self.primaries(), 0)
    }

    /// Never needed: there is always one primary. Has the signature of the cluster's.
    pub(in crate::valkey) fn unreached(&self) -> CacheError {
        CacheError::Unavailable("no server is configured".to_owned())
    }
}
