//! Server backend: one cache's keys under its prefix on a Valkey or Redis server, a command per method.

mod connection;
mod identity;
mod lease;
mod support;
mod watch;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::time::Instant;

use crate::cache::{CacheBackend, CacheError, Claim, Health, Key, Lease, Release, Selection};

pub use connection::{Secret, ServerOptions};
pub use identity::ServerKind;

use connection::Link;
use lease::End;

/// How many keys a `SCAN` looks at, and so about the most that one `UNLINK` removes: some 40 µs of the server's time.
const SCAN_COUNT: u64 = 1000;

/// A cache on a server.
#[derive(Debug)]
pub struct ValkeyBackend {
    link: Arc<Link>,
    prefix: String,
    /// How long a lease lasts that is not renewed.
    lease: StdDuration,
}

impl ValkeyBackend {
    /// Connects, and makes sure of the server's version. From then on the connection is kept up in the background.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] with the kind, the address and the reason: not reached, refused, or too old.
    pub async fn connect(options: ServerOptions) -> Result<Self, CacheError> {
        let (prefix, lease) = (options.prefix.clone(), options.lease);
        Ok(Self { link: Arc::new(Link::connect(options).await?), prefix, lease })
    }

    /// The key as it stands on the server.
    fn physical(&self, key: &Key) -> String {
        format!("{}{}", self.prefix, key.as_str())
    }

    /// Removes keys, as they stand on the server, and says how many of them held a value and no lease. What is filled
    /// between the look and the removal is removed, and not counted.
    async fn unlink(&self, keys: &[Vec<u8>]) -> Result<u64, CacheError> {
        let mut pipeline = Pipeline::with_capacity(keys.len().saturating_add(1));
        for key in keys {
            pipeline.cmd("GETRANGE").arg(key).arg(0).arg(Lease::MARK.len().saturating_sub(1));
        }
        pipeline.cmd("UNLINK").arg(keys).ignore_errors();
        let mut answers: Vec<RedisResult<Value>> = self.link.call_all(&pipeline).await?;
        let removed: u64 = self.link.read(answers.pop())?;
        // One of another type has no range, and counts.
        let leases =
            answers.iter().filter(|answer| matches!(answer, Ok(Value::BulkString(mark)) if mark == Lease::MARK));
        Ok(removed.saturating_sub(u64::try_from(leases.count()).unwrap_or(u64::MAX)))
    }

    fn set_command(&self, key: &Key, value: &Bytes, duration: Option<StdDuration>) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.physical(key)).arg(&value[..]);
        if let Some(duration) = duration {
            command.arg("PX").arg(milliseconds(duration));
        }
        command
    }
}

/// The server refuses zero, which a duration below a millisecond would become.
fn milliseconds(duration: StdDuration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What is stored, as anyone but a claim sees it.
fn value(stored: Option<Bytes>) -> Option<Bytes> {
    stored.filter(|stored| !Lease::is_marked(stored))
}

#[async_trait]
impl CacheBackend for ValkeyBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        let mut command = redis::cmd("GET");
        command.arg(self.physical(key));
        Ok(value(self.link.call(&command).await?))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.physical(key));
        }
        let stored: Vec<Option<Bytes>> = self.link.call(&command).await?;
        Ok(stored.into_iter().map(value).collect())
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.link.call(&self.set_command(&key, &value, duration)).await
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        // `MSET` knows no duration; a pipeline is one round trip too.
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for (key, value) in &entries {
            pipeline.add_command(self.set_command(key, value, duration)).ignore();
        }
        self.link.call_all(&pipeline).await
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        Ok(self.unlink(&[self.physical(key).into_bytes()]).await? > 0)
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        let glob = selection.server_glob(&self.prefix);
        let mut removed = 0_u64;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&glob).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (u64, Vec<Vec<u8>>) = self.link.call(&scan).await?;
            let is_owned = |key: &Vec<u8>| key.get(self.prefix.len()..).is_some_and(|own| selection.owns(own));
            let owned: Vec<Vec<u8>> = found.into_iter().filter(is_owned).collect();
            if !owned.is_empty() {
                removed = removed.saturating_add(self.unlink(&owned).await?);
            }
            // A page may be empty; only cursor 0 is the end.
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        let mut command = redis::cmd("SET");
        command.arg(self.physical(key)).arg(lease.as_bytes()).arg("NX").arg("GET");
        command.arg("PX").arg(milliseconds(self.lease));
        let stored: Option<Bytes> = match self.link.call(&command).await {
            // A server that cannot store, as it is full or a replica, may still have the value. And where the connection
            // was lost the lease may have arrived.
            Err(error @ CacheError::Unavailable(_)) => {
                let mut look = redis::cmd("GET");
                look.arg(self.physical(key));
                match self.link.call::<Option<Bytes>>(&look).await {
                    Ok(Some(stored)) if stored == lease.as_bytes() => None,
                    Ok(Some(stored)) => Some(stored),
                    Ok(None) | Err(_) => return Err(error),
                }
            }
            answer => answer?,
        };
        Ok(match stored {
            None => Claim::Granted,
            Some(stored) => Lease::read(&stored).map_or(Claim::Value(stored), Claim::Leased),
        })
    }

    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError> {
        lease::changed(&self.link, &self.physical(key), lease).await
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let end = duration.map(|duration| End::In(milliseconds(duration)));
        lease::replace_on(&self.link, &self.physical(&key), lease, &value, end).await
    }

    fn lease_time(&self) -> Option<StdDuration> {
        Some(self.lease)
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        let end = End::In(milliseconds(self.lease));
        lease::replace_on(&self.link, &self.physical(key), lease, lease.as_bytes(), Some(end)).await
    }

    fn abandon(&self, key: &Key, lease: &Lease) -> Release {
        let (link, key, lease) = (Arc::clone(&self.link), self.physical(key), lease.clone());
        Box::pin(async move { lease::remove_on(&link, &key, &lease).await })
    }

    async fn check(&self) -> Result<Health, CacheError> {
        let (identity, support) = self.link.server()?;
        let asked = Instant::now();
        let _pong: Value = self.link.call(&redis::cmd("PING")).await?;
        Ok(Health {
            kind: identity.kind.name(),
            version: identity.version.to_string(),
            round_trip: Some(asked.elapsed()),
            supports: support.names(),
        })
    }
}
