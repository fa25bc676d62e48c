//! The server backend: the keys of one cache under its prefix on a Valkey or Redis server, and a command for each
//! method of [`CacheBackend`].

mod backoff;
mod commands;
mod connection;
mod error;
mod inspection;
mod options;
mod password;
mod server;
mod topology;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Cmd;
use tokio::io::AsyncRead;

use crate::backend::{Version, WithLife};
use crate::near::backend::{FarBackend, NearBackend};
use crate::near::tier::{Fetched, Keep, Tier};
use crate::{
    BackendStatus, CacheBackend, CacheError, Claim, ClearProgress, Health, Key, KeyPage, KeyState, Lease, ListCursor,
    Policy, Release, Selection,
};

pub use inspection::inspect;
pub use inspection::report::{CommandReport, Inspection, Memory, Persistence, Role, SentinelReport, ServerReport};
pub use options::{ClientCertificate, Deployment, Endpoint, Sentinels, ServerOptions, Start, TlsOptions};
pub use password::{PasswordError, PasswordSource, Secret};
pub use server::info::ServerKind;
pub use server::registry::{ServerId, ServerRegistry};
pub use server::rights::{COMMANDS, Need, ServerCommand};

use commands::compare_and_set::Expiry;
use commands::reads::Read;
use commands::{clearing, counters, leases, listing, reads, versions};
use connection::managed::Exchange;
use connection::reply_limit::{ReplyLimiter, ReplyLimits};
use topology::Servers;

/// Capacities for the arguments of a command, and for the bytes of options and numbers among them, so that one
/// allocation each is enough.
const ARGUMENTS: usize = 8;
const OPTION_BYTES: usize = 32;

/// A cache on a Valkey or Redis server.
#[derive(Debug)]
pub struct ValkeyBackend {
    servers: Arc<Servers>,
    prefix: String,
    /// The duration of a lease that is not renewed.
    lease: StdDuration,
    max_value_bytes: usize,
}

impl ValkeyBackend {
    /// Connects to the servers and checks their versions. Tasks then serve each connection and keep it open. The runtime
    /// of this call must keep running: calls may be made in another one, but these tasks end them at their deadlines.
    ///
    /// A stored value of more than `max_value_bytes` of the policy, and a batch of values of more than
    /// `max_batch_bytes`, is discarded while it arrives. `name` is the cache's name for the operator, and `registry` is
    /// that of all caches of the host.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] with the kind, the address and the reason: a server is unreachable, refuses the
    /// login, is too old, or does not match the configured deployment. [`CacheError::Overlap`] if another cache of the
    /// registry is connected to the server and the prefixes overlap. The operator must fix it. With [`Start::Degraded`] an
    /// unreachable server is no error: the backend is in an outage until it has connected.
    pub async fn connect(
        name: &str,
        options: ServerOptions,
        policy: &Policy,
        registry: &ServerRegistry,
    ) -> Result<Self, CacheError> {
        Self::connect_to(name, options, policy, registry, None).await
    }

    /// As [`ValkeyBackend::connect`], with the near tier in front of it that the options name, if they name one.
    ///
    /// # Errors
    ///
    /// As [`ValkeyBackend::connect`].
    pub async fn connect_near(
        name: &str,
        options: ServerOptions,
        policy: &Policy,
        registry: &ServerRegistry,
    ) -> Result<Arc<dyn CacheBackend>, CacheError> {
        let Some(near) = &options.near else {
            return Ok(Arc::new(Self::connect(name, options, policy, registry).await?));
        };
        let tier = Arc::new(Tier::new(near, options.timeout));
        let far = Self::connect_to(name, options, policy, registry, Some(Arc::clone(&tier))).await?;
        Ok(Arc::new(NearBackend::new(far, tier)))
    }

    async fn connect_to(
        name: &str,
        options: ServerOptions,
        policy: &Policy,
        registry: &ServerRegistry,
        near: Option<Arc<Tier>>,
    ) -> Result<Self, CacheError> {
        let member = registry.join(name, &options);
        let (prefix, lease, max_value_bytes) = (options.prefix.clone(), options.lease, policy.max_value_bytes);
        let servers = Arc::new(Servers::connect(options, policy, member, near).await?);
        Ok(Self { servers, prefix, lease, max_value_bytes })
    }

    /// The command that stores a lease if the key holds nothing.
    fn lease_command(&self, key: &str, lease: &Lease) -> Cmd {
        let mut command = command("SET", key, lease.as_bytes().len().saturating_add(OPTION_BYTES));
        command.arg(lease.as_bytes()).arg("NX").arg("PX").arg(milliseconds(self.lease));
        command
    }

    /// What a claim found after it failed: a server that cannot store, because it is full or a replica, may still have
    /// the value. If the connection was lost, the server may have stored the lease.
    async fn claimed(&self, key: &str, lease: &Lease, error: CacheError) -> Result<Claim, CacheError> {
        match self.servers.read(key, &get_command(key)).await {
            Ok(Some(stored)) if stored == lease.as_bytes() => Ok(Claim::Granted),
            Ok(Some(stored)) => self.claim_of(Some(stored)),
            Ok(None) | Err(_) => Err(error),
        }
    }

    /// The result of a claim that found this.
    fn claim_of(&self, stored: Option<Bytes>) -> Result<Claim, CacheError> {
        Ok(match stored {
            None => Claim::Granted,
            Some(stored) => match Lease::read(&stored) {
                Some(lease) => Claim::Leased(lease),
                None => Claim::Value(self.check_size(stored)?),
            },
        })
    }

    /// The value with its life: a lease is a miss.
    fn with_life(&self, WithLife { value, life }: WithLife) -> Result<Option<WithLife>, CacheError> {
        Ok(self.value(Some(value))?.map(|value| WithLife { value, life }))
    }

    fn fetched(&self, Read { stored, keep }: Read) -> Result<Fetched, CacheError> {
        Ok(Fetched { value: self.value(stored)?, keep })
    }

    /// The key as it is stored on the server.
    fn stored_key(&self, key: &Key) -> String {
        let mut stored = String::with_capacity(self.prefix.len().saturating_add(key.as_str().len()));
        stored.push_str(&self.prefix);
        stored.push_str(key.as_str());
        stored
    }

    /// The value among what is stored: a lease is a miss.
    fn value(&self, stored: Option<Bytes>) -> Result<Option<Bytes>, CacheError> {
        stored.filter(|stored| !Lease::is_marked(stored)).map(|stored| self.check_size(stored)).transpose()
    }

    /// Refuses a value over the limit, which another program stored, or this one under a higher limit.
    fn check_size(&self, stored: Bytes) -> Result<Bytes, CacheError> {
        let (len, max) = (stored.len(), self.max_value_bytes);
        if len > max { Err(CacheError::ValueTooLarge { len, max }) } else { Ok(stored) }
    }
}

/// A command for a key, with capacity for this number of bytes of further arguments.
fn command(name: &str, key: &str, capacity: usize) -> Cmd {
    let len = name.len().saturating_add(key.len()).saturating_add(capacity);
    let mut command = Cmd::with_capacity(ARGUMENTS, len);
    command.arg(name).arg(key);
    command
}

fn get_command(key: &str) -> Cmd {
    command("GET", key, 0)
}

fn set_command(key: &str, value: &Bytes, duration: Option<StdDuration>) -> Cmd {
    let mut command = command("SET", key, value.len().saturating_add(OPTION_BYTES));
    command.arg(&value[..]);
    if let Some(duration) = duration {
        command.arg("PX").arg(milliseconds(duration));
    }
    command
}

/// At least 1: the server refuses 0, to which a duration below a millisecond would be rounded.
fn milliseconds(duration: StdDuration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl CacheBackend for ValkeyBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        let key = self.stored_key(key);
        self.value(self.servers.read(&key, &get_command(&key)).await?)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let keys: Vec<String> = keys.iter().map(|key| self.stored_key(key)).collect();
        let read = reads::read_many(&self.servers, &keys, false).await?;
        read.into_iter().map(|read| self.value(read.stored)).collect()
    }

    async fn exists(&self, key: &Key) -> Result<bool, CacheError> {
        let key = self.stored_key(key);
        reads::exists(&self.servers, &key, &get_command(&key)).await
    }

    async fn describe(&self, key: &Key) -> Result<KeyState, CacheError> {
        let key = self.stored_key(key);
        let state = reads::describe(&self.servers, &key, &get_command(&key)).await;
        // What is longer than a plugin may read has a length, too.
        match state {
            Err(CacheError::ValueTooLarge { len, .. }) => {
                Ok(KeyState::Value { bytes: len, life: reads::life(&self.servers, &key).await? })
            }
            state => state,
        }
    }

    async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError> {
        listing::page(&self.servers, &self.prefix, selection, cursor, max_keys).await
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        let key = self.stored_key(&key);
        let (size, command) = (value.len(), set_command(&key, &value, duration));
        // The command has a copy, and is copied again until it is sent.
        drop(value);
        self.servers.call(&key, size, &command).await
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        let entries: Vec<(String, Bytes)> =
            entries.into_iter().map(|(key, value)| (self.stored_key(&key), value)).collect();
        // Not `MSET`, which has no duration. A batch is one round trip too.
        let commands = |_exchange: &Exchange, entries: &[(String, Bytes)]| {
            entries.iter().map(|(key, value)| set_command(key, value, duration)).collect()
        };
        for reply in self.servers.batch(&entries, commands).await?.into_iter().flatten() {
            reply?;
        }
        Ok(())
    }

    async fn increment(&self, key: Key, delta: i64, duration: Option<StdDuration>) -> Result<i64, CacheError> {
        counters::increment(&self.servers, &self.stored_key(&key), delta, duration.map(milliseconds)).await
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        Ok(clearing::unlink(&self.servers, &[self.stored_key(key).into_bytes()]).await? > 0)
    }

    async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError> {
        // Of a key that is repeated, each look would find the lease, and count less than was removed.
        let keys: BTreeSet<Vec<u8>> = keys.iter().map(|key| self.stored_key(key).into_bytes()).collect();
        clearing::unlink(&self.servers, &keys.into_iter().collect::<Vec<_>>()).await
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.clear_matching_with(selection, &ClearProgress::default()).await
    }

    async fn clear_matching_with(&self, selection: &Selection, progress: &ClearProgress) -> Result<u64, CacheError> {
        clearing::unlink_selected(&self.servers, &self.prefix, selection, progress).await
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        let key = self.stored_key(key);
        let mut claim = command("SET", &key, lease.as_bytes().len().saturating_add(OPTION_BYTES));
        claim.arg(lease.as_bytes()).arg("NX").arg("GET").arg("PX").arg(milliseconds(self.lease));
        match self.servers.read(&key, &claim).await {
            Err(error @ (CacheError::Unavailable(_) | CacheError::Lost(_))) => self.claimed(&key, lease, error).await,
            reply => self.claim_of(reply?),
        }
    }

    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError> {
        leases::changed(&self.servers, &self.stored_key(key), lease).await
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let expiry = duration.map(|duration| Expiry::In(milliseconds(duration)));
        leases::replace(&self.servers, &self.stored_key(&key), lease, &value, expiry).await
    }

    async fn get_with_life(&self, key: &Key) -> Result<Option<WithLife>, CacheError> {
        let key = self.stored_key(key);
        match versions::read(&self.servers, &key, &get_command(&key)).await? {
            Some((found, _expires_at)) => self.with_life(found),
            None => Ok(None),
        }
    }

    async fn get_version(&self, key: &Key) -> Result<Option<(WithLife, Version)>, CacheError> {
        let key = self.stored_key(key);
        let Some((found, expires_at)) = versions::read(&self.servers, &key, &get_command(&key)).await? else {
            return Ok(None);
        };
        let found = self.with_life(found)?;
        Ok(found.map(|found| {
            let version = Version::new(&found.value, expires_at);
            (found, version)
        }))
    }

    async fn replace(
        &self,
        key: Key,
        version: Option<&Version>,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        let (servers, key) = (&self.servers, self.stored_key(&key));
        match version {
            Some(version) => versions::replace(servers, &key, version, &value, duration.map(milliseconds)).await,
            None => counters::set_if_absent(servers, &key, &value, duration.map(milliseconds)).await,
        }
    }

    fn lease_time(&self) -> Option<StdDuration> {
        Some(self.lease)
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        let expiry = Expiry::In(milliseconds(self.lease));
        leases::replace(&self.servers, &self.stored_key(key), lease, lease.as_bytes(), Some(expiry)).await
    }

    fn release(&self, key: &Key, lease: &Lease) -> Release {
        let (servers, key, lease) = (Arc::clone(&self.servers), self.stored_key(key), lease.clone());
        Box::pin(async move { leases::remove(&servers, &key, &lease).await })
    }

    async fn check(&self) -> Result<Health, CacheError> {
        self.servers.check().await
    }

    fn status(&self) -> BackendStatus {
        self.servers.status()
    }
}

#[async_trait]
impl FarBackend for ValkeyBackend {
    async fn fetch(&self, key: &Key) -> Result<Fetched, CacheError> {
        self.fetched(reads::read(&self.servers, &self.stored_key(key)).await?)
    }

    async fn fetch_many(&self, keys: &[Key]) -> Result<Vec<Fetched>, CacheError> {
        let keys: Vec<String> = keys.iter().map(|key| self.stored_key(key)).collect();
        let read = reads::read_many(&self.servers, &keys, true).await?;
        read.into_iter().map(|read| self.fetched(read)).collect()
    }

    async fn fetch_or_claim(&self, key: &Key, lease: &Lease) -> Result<(Claim, Option<Keep>), CacheError> {
        let stored_key = self.stored_key(key);
        let (get, set) = (get_command(&stored_key), self.lease_command(&stored_key, lease));
        // The server may have executed the `SET` of the first claim.
        let plain = async {
            match self.claim(key, lease).await? {
                Claim::Leased(found) if found == *lease => Ok::<_, CacheError>(Claim::Granted),
                claim => Ok(claim),
            }
        };
        match reads::claim(&self.servers, &stored_key, &get, &set, plain).await {
            Ok((Claim::Value(value), keep)) => Ok((Claim::Value(self.check_size(value)?), keep)),
            Err(error @ (CacheError::Unavailable(_) | CacheError::Lost(_))) => {
                Ok((self.claimed(&stored_key, lease, error).await?, None))
            }
            claimed => claimed,
        }
    }
}

/// Applies the reply limit to a stream of replies, for the fuzz target `reply-limit`. Not part of the interface: the
/// property of a fuzz target is a function of the test harness, which is another crate.
#[doc(hidden)]
pub fn limit_replies(
    replies: impl AsyncRead + Unpin,
    max_string_bytes: u64,
    max_reply_bytes: u64,
) -> impl AsyncRead + Unpin {
    ReplyLimiter::new(replies, ReplyLimits { string: max_string_bytes, reply: max_reply_bytes })
}
