//! Server backend: one cache's keys under its prefix on a Valkey or Redis server, a command per method.

mod commands;
mod connection;
mod options;
mod server;
mod servers;
mod topology;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline};

use crate::{BackendStatus, CacheBackend, CacheError, Claim, Health, Key, Lease, Policy, Release, Selection};

pub use options::{ClientCertificate, Deployment, Endpoint, Secret, Sentinels, ServerOptions, TlsOptions};
pub use server::info::ServerKind;

use commands::clearing;
use commands::leases::{self, End};
use servers::{Layout, Servers};

/// The most arguments of a command, and room for those that are options and numbers: so that it is made in one piece.
const MOST_ARGUMENTS: usize = 8;
const ROOM: usize = 32;

/// A cache on a server.
#[derive(Debug)]
pub struct ValkeyBackend {
    servers: Arc<Servers>,
    prefix: String,
    /// How long a lease lasts that is not renewed.
    lease: StdDuration,
    max_value_bytes: usize,
}

impl ValkeyBackend {
    /// Connects, and makes sure of the server's version. From then on the connection is kept up in the background.
    /// Values of over `max_value_bytes`, and of over `max_batch_bytes` in one batch, are not taken from the server.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] with the kind, the address and the reason: not reached, refused, or too old.
    pub async fn connect(options: ServerOptions, policy: &Policy) -> Result<Self, CacheError> {
        let (prefix, lease, max_value_bytes) = (options.prefix.clone(), options.lease, policy.max_value_bytes);
        Ok(Self { servers: Arc::new(Servers::connect(options, policy).await?), prefix, lease, max_value_bytes })
    }

    /// The key as it stands on the server.
    fn physical(&self, key: &Key) -> String {
        let mut physical = String::with_capacity(self.prefix.len().saturating_add(key.as_str().len()));
        physical.push_str(&self.prefix);
        physical.push_str(key.as_str());
        physical
    }

    /// What a key holds, by a command that answers with it.
    async fn ask(&self, key: &str, command: &Cmd) -> Result<Option<Bytes>, CacheError> {
        let way = self.servers.large.way(key, 0);
        let answer: Result<Option<Bytes>, CacheError> = self.servers.call(key, way, command).await;
        match &answer {
            Ok(stored) => self.servers.large.found(key, stored.as_ref().map_or(0, Bytes::len), way),
            // It has travelled all the same.
            Err(CacheError::ValueTooLarge { len, .. }) => self.servers.large.found(key, *len, way),
            Err(_) => {}
        }
        answer
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
}

/// A command about a key, with room for so many bytes of further arguments.
fn command(name: &str, key: &str, room: usize) -> Cmd {
    let len = name.len().saturating_add(key.len()).saturating_add(room);
    let mut command = Cmd::with_capacity(MOST_ARGUMENTS, len);
    command.arg(name).arg(key);
    command
}

fn set_command(key: &str, value: &Bytes, duration: Option<StdDuration>) -> Cmd {
    let mut command = command("SET", key, value.len().saturating_add(ROOM));
    command.arg(&value[..]);
    if let Some(duration) = duration {
        command.arg("PX").arg(milliseconds(duration));
    }
    command
}

/// The server refuses zero, which a duration below a millisecond would become.
fn milliseconds(duration: StdDuration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl CacheBackend for ValkeyBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        let key = self.physical(key);
        self.value(self.ask(&key, &command("GET", &key, 0)).await?)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let keys: Vec<String> = keys.iter().map(|key| self.physical(key)).collect();
        let way = self.servers.large.way_of_batch(keys.iter().map(|key| (key.as_str(), 0)));
        let stored: Vec<Option<Bytes>> = match &self.servers.layout {
            Layout::One(links) => {
                // Decision: docs/decisions/0013-a-value-of-another-type-is-an-error-for-get-and-a-miss-in-get-many.md
                let mut command = redis::cmd("MGET");
                command.arg(&keys);
                links.call(way, &command).await?
            }
            Layout::Cluster(cluster) => cluster.get_many(&keys, way).await?,
        };
        for (key, stored) in keys.iter().zip(&stored) {
            self.servers.large.found(key, stored.as_ref().map_or(0, Bytes::len), way);
        }
        stored.into_iter().map(|stored| self.value(stored)).collect()
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        let key = self.physical(&key);
        let way = self.servers.large.way(&key, value.len());
        self.servers.call(&key, way, &set_command(&key, &value, duration)).await
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        let (keys, values): (Vec<String>, Vec<Bytes>) =
            entries.into_iter().map(|(key, value)| (self.physical(&key), value)).unzip();
        let way =
            self.servers.large.way_of_batch(keys.iter().zip(&values).map(|(key, value)| (key.as_str(), value.len())));
        match &self.servers.layout {
            Layout::One(links) => {
                // `MSET` knows no duration; a pipeline is one round trip too.
                let mut pipeline = Pipeline::with_capacity(keys.len());
                for (key, value) in keys.iter().zip(&values) {
                    pipeline.add_command(set_command(key, value, duration)).ignore();
                }
                links.call_all(way, &pipeline).await
            }
            Layout::Cluster(cluster) => {
                let entry = |place: usize| keys.get(place).zip(values.get(place));
                let commands =
                    |place| entry(place).map(|(key, value)| set_command(key, value, duration)).into_iter().collect();
                for answer in cluster.each(&keys, way, commands).await?.into_iter().flatten() {
                    answer?;
                }
                Ok(())
            }
        }
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        let key = self.physical(key);
        let way = self.servers.large.way(&key, 0);
        Ok(clearing::unlink(&self.servers, &[key.into_bytes()], way).await? > 0)
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        clearing::unlink_selected(&self.servers, &self.prefix, selection).await
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        let key = self.physical(key);
        let mut claim = command("SET", &key, lease.as_bytes().len().saturating_add(ROOM));
        claim.arg(lease.as_bytes()).arg("NX").arg("GET").arg("PX").arg(milliseconds(self.lease));
        let stored: Option<Bytes> = match self.ask(&key, &claim).await {
            // A server that cannot store, as it is full or a replica, may still have the value. And where the connection
            // was lost the lease may have arrived.
            Err(error @ (CacheError::Unavailable(_) | CacheError::Lost(_))) => {
                match self.ask(&key, &command("GET", &key, 0)).await {
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
        leases::changed(&self.servers, &self.physical(key), lease).await
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let end = duration.map(|duration| End::In(milliseconds(duration)));
        leases::replace_on(&self.servers, &self.physical(&key), lease, &value, end).await
    }

    fn lease_time(&self) -> Option<StdDuration> {
        Some(self.lease)
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        let end = End::In(milliseconds(self.lease));
        leases::replace_on(&self.servers, &self.physical(key), lease, lease.as_bytes(), Some(end)).await
    }

    fn release(&self, key: &Key, lease: &Lease) -> Release {
        let (servers, key, lease) = (Arc::clone(&self.servers), self.physical(key), lease.clone());
        Box::pin(async move { leases::remove_on(&servers, &key, &lease).await })
    }

    async fn check(&self) -> Result<Health, CacheError> {
        self.servers.check().await
    }

    fn status(&self) -> BackendStatus {
        self.servers.status()
    }
}
