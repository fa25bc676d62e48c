//! The `[caches.*]` tables. The types `valkey` and `redis` have the same keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cache::ram::least_capacity;
use crate::cache::valkey::{ServerKind, ServerOptions, Start};
use crate::cache::{Namespace, OnOutage, Policy};
use crate::config::deployment::{ConnectionKeys, RawSentinel, TlsKeys};
use crate::config::document::{Environment, Fault, Section};
use crate::config::near::RawNear;
use crate::config::server_address::{ConnectionSettings, NodeAddress, Url};
use crate::config::units::{Db, DurationOrZero, ExpireDuration, Password, Port, PositiveDuration, Size};
use crate::nearest::did_you_mean;

/// The configuration of one cache.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// The settings that are independent of the backend.
    pub policy: Policy,
    /// The backend.
    pub backend: BackendConfig,
}

/// The configuration of a backend.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BackendConfig {
    /// The memory of this process.
    Ram {
        /// The maximum size of keys, values and overhead, in bytes.
        max_bytes: u64,
        /// The shares in bytes that are reserved for the namespaces of plugins with `max_bytes`.
        shares: Vec<(Namespace, u64)>,
    },
    /// A Valkey or Redis server.
    Server(Box<ServerOptions>),
}

/// The default `max_bytes` of a RAM cache.
const RAM_MAX_BYTES: u64 = 64 << 20;

/// The shortest `lease`: a busy host must have time to renew it.
const MIN_LEASE: Duration = Duration::from_millis(100);

/// The longest `lease`: a killed holder blocks a key for that long.
const LONGEST_LEASE: Duration = Duration::from_secs(60 * 60);

/// The maximum of `connections`, each of which costs the server memory.
const MAX_CONNECTIONS: u16 = 64;

/// The longest `prefix`, in bytes.
const MAX_PREFIX: usize = 256;

/// The longest value that a server accepts, in bytes.
const MAX_SERVER_VALUE: u64 = 512 << 20;

impl Default for CacheConfig {
    /// A RAM cache of 64 MiB.
    fn default() -> Self {
        Self::new(Policy::default(), BackendConfig::Ram { max_bytes: RAM_MAX_BYTES, shares: Vec::new() })
    }
}

impl CacheConfig {
    /// A cache with this policy and backend.
    pub fn new(policy: Policy, backend: BackendConfig) -> Self {
        Self { policy, backend }
    }

    /// The same cache, but its server must be reachable at the start: for commands that do nothing without it.
    #[must_use]
    pub fn required(mut self) -> Self {
        if let BackendConfig::Server(options) = &mut self.backend {
            options.start = Start::Require;
        }
        self
    }

    /// True if the two caches share keys: a grant for one would be a grant for the other. Compares addresses as text;
    /// when the caches are connected, the servers are compared by what they report.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (&self.backend, &other.backend) {
            (BackendConfig::Server(a), BackendConfig::Server(b)) => {
                a.shares_keys_with(b) && a.deployment.overlaps(&b.deployment)
            }
            _ => false,
        }
    }

    /// Reserves a share of a RAM cache or of a near tier for a namespace, unless it has one. A server has no shares.
    pub(super) fn reserve_share(&mut self, name: &str, namespace: &Namespace, share: u64) -> Result<(), String> {
        let max_value_bytes = self.policy.max_value_bytes;
        let (max_bytes, shares, max_value_bytes) = match &mut self.backend {
            BackendConfig::Ram { max_bytes, shares } => (max_bytes, shares, max_value_bytes),
            BackendConfig::Server(options) => match &mut options.near {
                Some(near) => (&mut near.max_bytes, &mut near.shares, near.max_value_bytes),
                None => return Ok(()),
            },
        };
        if shares.iter().any(|(other, _)| other == namespace) {
            return Ok(());
        }
        let least = least_capacity(max_value_bytes);
        if share < least {
            return Err(format!(
                "must be at least {least} to hold a value of max_value_bytes = {max_value_bytes} in the cache \
                 `{name}` with the longest key and the overhead of an entry, but is {share}"
            ));
        }
        let taken = shares.iter().fold(share, |taken, (_, share)| taken.saturating_add(*share));
        if taken.saturating_add(least) > *max_bytes {
            return Err(format!(
                "leaves less than {least} of max_bytes = {max_bytes} of the cache `{name}` for others: all shares \
                 together are {taken}"
            ));
        }
        shares.push((namespace.clone(), share));
        Ok(())
    }

    pub(super) fn from_section(
        section: &Section<'_>,
        directory: &Path,
        environment: Environment<'_>,
    ) -> Result<Self, Fault> {
        // The type is read first. An internally tagged enum would lose the positions and the list of known keys.
        let mut section = section.clone();
        if section.name.is_empty() || section.name.chars().any(char::is_control) {
            return Err(section.fault("type", "the name of a cache must not be empty or contain control characters"));
        }
        let (kind, span) = section.take_string("type")?;
        match kind.as_str() {
            "ram" => section.read::<RawRam>()?.validate(&section),
            "valkey" => section.read::<RawServer>()?.validate(ServerKind::Valkey, &section, directory, environment),
            "redis" => section.read::<RawServer>()?.validate(ServerKind::Redis, &section, directory, environment),
            other => {
                let path = &section.path;
                let meant = did_you_mean(other, ["ram", "valkey", "redis"]);
                let message =
                    format!("`{path}.type`: unknown type `{other}`, expected one of `ram`, `valkey`, `redis`{meant}");
                Err(Fault::at(span, message))
            }
        }
    }
}

/// Defines a struct that mirrors a `[caches.*]` table: its own keys, and the policy keys, which all types of caches
/// have.
///
/// `#[serde(flatten)]` would say the policy keys once too. With it serde buffers the table, so that a mistake has no
/// position and the message about an unknown key does not list the known ones.
macro_rules! cache_table {
    ($(#[doc = $doc:literal])+ $name:ident { $($own_keys:tt)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($own_keys)+
            /// The longest value, to store and to read; in RAM half of `max_bytes` if that is less, on a server at most
            /// 512 MiB. Defaults to `"1MiB"`.
            max_value_bytes: Option<Size>,
            /// The duration of a value that is stored without one, or `"unlimited"`. Defaults to `300`.
            default_expire: Option<ExpireDuration>,
            /// The longest duration of any value; longer ones, and unlimited ones, are shortened to it.
            max_expire: Option<PositiveDuration>,
            /// How long a get-or-set waits for another caller's computation. Defaults to `"5s"`.
            wait: Option<DurationOrZero>,
            /// How long a vacancy keeps others from computing; then another caller gets one. Defaults to `"5m"`.
            max_lease: Option<PositiveDuration>,
        }

        impl $name {
            /// The policy of the table, except `max_value_bytes` and `on_outage`, which depend on the type.
            fn policy(&self) -> Policy {
                let mut policy = Policy::default();
                policy.default_expire = self.default_expire.map_or(policy.default_expire, |duration| duration.0);
                policy.max_expire = self.max_expire.map(|duration| duration.0);
                policy.wait = self.wait.map_or(policy.wait, |duration| duration.0);
                policy.max_lease = self.max_lease.map_or(policy.max_lease, |duration| duration.0);
                policy
            }
        }
    };
}

cache_table! {
    /// A cache in the memory of one host process.
    RawRam {
        /// The most memory for entries: keys, values and overhead. Defaults to `"64MiB"`.
        max_bytes: Option<Size>,
    }
}

impl RawRam {
    fn validate(self, section: &Section<'_>) -> Result<CacheConfig, Fault> {
        let max_bytes = self.max_bytes.map_or(RAM_MAX_BYTES, |size| size.0);
        let mut policy = self.policy();
        policy.max_value_bytes = match self.max_value_bytes {
            Some(size) => value_limit(size, section)?,
            None => policy.max_value_bytes.min(usize::try_from(max_bytes / 2).unwrap_or(usize::MAX)),
        };
        let max_value_bytes = policy.max_value_bytes;
        let least = least_capacity(max_value_bytes);
        if max_bytes < least {
            let rule = format!(
                "must be at least {least} to hold a value of max_value_bytes = {max_value_bytes} with the longest key and \
                 the overhead of an entry, but is {max_bytes}"
            );
            return Err(section.fault("max_bytes", &rule));
        }
        Ok(CacheConfig::new(policy, BackendConfig::Ram { max_bytes, shares: Vec::new() }))
    }
}

cache_table! {
    /// A cache on a Valkey or Redis server that host processes share.
    RawServer {
        /// `valkey://user:password@host:port/db`, for TLS `valkeys:`; `redis:` and `rediss:` mean the same. Instead of
        /// `host`, `port`, `db`, `username`, `password` and `tls`.
        url: Option<Url>,
        /// Some nodes of a cluster, each as `host:port`. Instead of `url`, `host` and `port`.
        cluster: Option<Vec<NodeAddress>>,
        /// The primary that sentinels monitor. Instead of `url`, `host` and `port`.
        sentinel: Option<RawSentinel>,
        /// Name or address of the server; absent: `VALKEY_HOST`, for type `redis` `REDIS_HOST`. Defaults to
        /// `"localhost"`.
        host: Option<String>,
        /// Its TCP port; absent: `VALKEY_PORT`, for type `redis` `REDIS_PORT`. Defaults to `6379`.
        port: Option<Port>,
        /// The database number. Defaults to `0`.
        db: Option<Db>,
        /// The prefix of every key on the server. Defaults to `"cache:"`.
        #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_PREFIX)))]
        prefix: Option<String>,
        /// The user to log in as. Needs a password.
        username: Option<String>,
        /// The password to log in with.
        password: Option<Password>,
        /// A file that contains the password; a relative path starts at this file's directory.
        password_file: Option<PathBuf>,
        /// Whether to use TLS. Defaults to `false`.
        tls: Option<bool>,
        /// The CA certificates to trust, in PEM; absent: the system's. Needs TLS.
        ca_file: Option<PathBuf>,
        /// The client certificate in PEM, for a server that requires one. Needs TLS and `key_file`.
        cert_file: Option<PathBuf>,
        /// The private key of `cert_file`, in PEM and not encrypted.
        key_file: Option<PathBuf>,
        /// How long connecting to the server may take. Defaults to `"2s"`.
        connect_timeout: Option<PositiveDuration>,
        /// The deadline of a call, or of each of its steps. Defaults to `"500ms"`.
        timeout: Option<PositiveDuration>,
        /// The number of connections to each server, over which calls are spread, 1 to 64. Defaults to `1`.
        #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_CONNECTIONS)))]
        connections: Option<i64>,
        /// How long the lease of a killed host process blocks a key, 100 ms to 1 h. Defaults to `"4s"`.
        lease: Option<PositiveDuration>,
        /// The result of a read while the server is unreachable. Defaults to `"miss"`.
        #[serde(default, with = "RawOnOutage")]
        #[cfg_attr(feature = "schema", schemars(!default, with = "Option<RawOnOutage>"))]
        on_outage: OnOutage,
        /// What a host does that starts while the server is unreachable: it exits, or it begins in an outage and connects
        /// when it can. Defaults to `"require"`.
        #[serde(default, with = "RawStart")]
        #[cfg_attr(feature = "schema", schemars(!default, with = "Option<RawStart>"))]
        start: Start,
        /// The near tier: the memory of each host process in front of the server. Absent: none.
        near: Option<RawNear>,
    }
}

/// [`Start`] in TOML.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(remote = "Start", rename_all = "kebab-case")]
enum RawStart {
    Require,
    Degraded,
}

/// [`OnOutage`] in TOML.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(remote = "OnOutage", rename_all = "kebab-case")]
enum RawOnOutage {
    Miss,
    Error,
}

impl RawServer {
    fn validate(
        self,
        kind: ServerKind,
        section: &Section<'_>,
        directory: &Path,
        environment: Environment<'_>,
    ) -> Result<CacheConfig, Fault> {
        let invalid = |key: &str, rule: &str| section.fault(key, rule);

        let mut options = ServerOptions::new(kind);
        let mut policy = self.policy();
        policy.on_outage = self.on_outage;
        let Self { url, cluster, sentinel, host, port, db, username, password, password_file, tls, .. } = self;
        let keys = ConnectionKeys { url, cluster, sentinel, host, port, db, username, password, password_file, tls };
        let ConnectionSettings { deployment, db, username, password, tls } =
            keys.read(kind, section, directory, environment)?;
        let tls_keys = TlsKeys { ca_file: self.ca_file, cert_file: self.cert_file, key_file: self.key_file };
        let tls = tls_keys.read(tls, section, directory)?;
        let prefix = self.prefix.unwrap_or(options.prefix);
        if prefix.is_empty() {
            return Err(invalid("prefix", "must not be empty, or `clear-all` would empty the database"));
        }
        if prefix.len() > MAX_PREFIX || prefix.chars().any(char::is_control) {
            return Err(invalid(
                "prefix",
                &format!("must not be over {MAX_PREFIX} bytes or contain control characters"),
            ));
        }
        policy.max_value_bytes = match self.max_value_bytes {
            Some(Size(bytes)) if bytes > MAX_SERVER_VALUE => {
                return Err(invalid("max_value_bytes", "must not be over 512MiB, the limit of the servers"));
            }
            Some(size) => value_limit(size, section)?,
            None => policy.max_value_bytes,
        };
        let connections = self.connections.map_or(Some(options.connections), |count| u16::try_from(count).ok());
        let Some(connections) = connections.filter(|count| (1..=MAX_CONNECTIONS).contains(count)) else {
            return Err(invalid("connections", &format!("must be from 1 to {MAX_CONNECTIONS}")));
        };
        let lease = self.lease.map_or(options.lease, |duration| duration.0);
        if !(MIN_LEASE..=LONGEST_LEASE).contains(&lease) {
            return Err(invalid("lease", "must be from 100ms to 1h"));
        }
        options.near = self.near.map(|near| near.validate(&policy, section)).transpose()?;
        options.deployment = deployment;
        options.db = db;
        options.prefix = prefix;
        options.username = username;
        options.password = password;
        options.tls = tls;
        options.connect_timeout = self.connect_timeout.map_or(options.connect_timeout, |duration| duration.0);
        options.timeout = self.timeout.map_or(options.timeout, |duration| duration.0);
        options.connections = connections;
        options.lease = lease;
        options.start = self.start;
        Ok(CacheConfig::new(policy, BackendConfig::Server(Box::new(options))))
    }
}

fn value_limit(size: Size, section: &Section<'_>) -> Result<usize, Fault> {
    usize::try_from(size.0).map_err(|_| section.fault("max_value_bytes", "is more than this machine can address"))
}
