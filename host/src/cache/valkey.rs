//! Server backend: one cache's keys under its prefix on a Valkey or Redis server, a command per method.

mod bounded;
mod connection;
mod identity;
mod lease;
mod opening;
mod options;
mod stream;
mod support;
mod watch;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::time::Instant;

use crate::cache::{CacheBackend, CacheError, Claim, Health, Key, Lease, Release, Selection};

pub use identity::ServerKind;
pub use options::{ClientCertificate, Secret, ServerOptions, TlsOptions};

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
    max_value_bytes: usize,
}

impl ValkeyBackend {
    /// Connects, and makes sure of the server's version. From then on the connection is kept up in the background.
    /// Values of over `max_value_bytes`, and of over 64 MiB in one batch, are not taken from the server.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] with the kind, the address and the reason: not reached, refused, or too old.
    pub async fn connect(options: ServerOptions, max_value_bytes: usize) -> Result<Self, CacheError> {
        let (prefix, lease) = (options.prefix.clone(), options.lease);
        Ok(Self { link: Arc::new(Link::connect(options, max_value_bytes).await?), prefix, lease, max_value_bytes })
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

    /// What is stored, as anyone but a claim sees it.
    fn value(&self, stored: Option<Bytes>) -> Result<Option<Bytes>, CacheError> {
        stored.filter(|stored| !Lease::is_marked(stored)).map(|stored| self.checked(stored)).transpose()
    }

    /// A value that another program stored, or we under another limit, may be too large.
    fn checked(&self, stored: Bytes) -> Result<Bytes, CacheError> {
        let (len, max) = (stored.len(), self.max_value_bytes);
        if len > max { Err(CacheError::ValueTooLarge { len, max }) } else { Ok(stored) }
    }

    /// Whether a key that the server found is one of those that are to be removed.
    fn owns(&self, selection: &Selection, key: &[u8]) -> bool {
        key.get(self.prefix.len()..).is_some_and(|own| selection.owns(own))
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

#[async_trait]
impl CacheBackend for ValkeyBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        let mut command = redis::cmd("GET");
        command.arg(self.physical(key));
        self.value(self.link.call(&command).await?)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.physical(key));
        }
        let stored: Vec<Option<Bytes>> = self.link.call(&command).await?;
        stored.into_iter().map(|stored| self.value(stored)).collect()
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
            let mut scan = Pipeline::with_capacity(1);
            scan.cmd("SCAN").arg(cursor).arg("MATCH").arg(&glob).arg("COUNT").arg(SCAN_COUNT).ignore_errors();
            let mut answers: Vec<RedisResult<Value>> = self.link.call_all(&scan).await?;
            let (next, found): (u64, Vec<Value>) = self.link.read(answers.pop())?;
            let owned = found.into_iter().filter_map(|key| match key {
                Value::BulkString(key) => Some(key).filter(|key| self.owns(selection, key)),
                // An error in its place: too long to be taken, and so no key of a plugin's.
                _ => None,
            });
            let owned: Vec<Vec<u8>> = owned.collect();
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
            Some(stored) => match Lease::read(&stored) {
                Some(lease) => Claim::Leased(lease),
                None => Claim::Value(self.checked(stored)?),
            },
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
