//! Server backend: one cache's keys under its prefix on a Valkey or Redis server, a command per method.

mod connection;
mod identity;

use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use crate::cache::{CacheBackend, CacheError, Health, Key, Selection};

pub use connection::{Secret, ServerOptions};
pub use identity::ServerKind;

use connection::Link;

/// How many keys a `SCAN` looks at, and so about the most that one `UNLINK` removes: some 40 µs of the server's time.
const SCAN_COUNT: u64 = 1000;

/// A cache on a server.
#[derive(Debug)]
pub struct ValkeyBackend {
    link: Link,
    prefix: String,
}

impl ValkeyBackend {
    /// Connects, and makes sure of the server's version. From then on the connection is kept up in the background.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unavailable`] with the kind, the address and the reason: not reached, refused, or too old.
    pub async fn connect(options: ServerOptions) -> Result<Self, CacheError> {
        let prefix = options.prefix.clone();
        Ok(Self { link: Link::connect(options).await?, prefix })
    }

    /// The key as it stands on the server.
    fn physical(&self, key: &Key) -> String {
        format!("{}{}", self.prefix, key.as_str())
    }

    fn set_command(&self, key: &Key, value: &Bytes, duration: Option<StdDuration>) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.physical(key)).arg(&value[..]);
        if let Some(duration) = duration {
            // The server refuses zero, which a duration below a millisecond would become.
            command.arg("PX").arg(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        command
    }
}

#[async_trait]
impl CacheBackend for ValkeyBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        let mut command = redis::cmd("GET");
        command.arg(self.physical(key));
        self.link.call(&command).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.physical(key));
        }
        self.link.call(&command).await
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

    async fn set_if_absent(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<bool, CacheError> {
        let mut command = self.set_command(&key, &value, duration);
        command.arg("NX");
        let answer: Value = self.link.call(&command).await?;
        Ok(answer != Value::Nil)
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        let mut command = redis::cmd("UNLINK");
        command.arg(self.physical(key));
        let removed: u64 = self.link.call(&command).await?;
        Ok(removed > 0)
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        let glob = selection.server_glob(&self.prefix);
        let mut removed = 0_u64;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&glob).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (u64, Vec<Vec<u8>>) = self.link.call(&scan).await?;
            let is_owned = |key: &&Vec<u8>| key.get(self.prefix.len()..).is_some_and(|own| selection.owns(own));
            let owned: Vec<&Vec<u8>> = found.iter().filter(is_owned).collect();
            if !owned.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(&owned);
                let count: u64 = self.link.call(&unlink).await?;
                removed = removed.saturating_add(count);
            }
            // A page may be empty; only cursor 0 is the end.
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    async fn check(&self) -> Result<Health, CacheError> {
        let identity = self.link.identity()?;
        let asked = Instant::now();
        let _pong: Value = self.link.call(&redis::cmd("PING")).await?;
        Ok(Health {
            kind: identity.kind.name(),
            version: identity.version.to_string(),
            round_trip: Some(asked.elapsed()),
        })
    }
}
