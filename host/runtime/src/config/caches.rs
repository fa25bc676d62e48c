//! The `[caches.*]` tables: `ram`, and `valkey` and `redis`, which take the same keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cache::Limits;
use crate::cache::Namespace;
use crate::cache::ram::least_capacity;
use crate::cache::valkey::{ServerKind, ServerOptions};
use crate::config::deployment::{Found, NodeAddress, PlaceKeys, RawSentinel, TlsKeys, Url};
use crate::config::document::{Fault, Section};
use crate::config::units::{Db, Expire, Password, Port, Positive, Size, Span};
use crate::config::{Environment, OnOutage, Policy};

/// One cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheConfig {
    /// What is the same for all backends.
    pub policy: Policy,
    /// What stands behind it.
    pub store: Store,
}

/// What stands behind a cache.
#[derive(Debug, Clone, PartialEq)]
pub enum Store {
    /// This process's memory.
    Ram {
        /// The most bytes of keys, values and overhead.
        max_bytes: u64,
        /// What of it is set aside for the namespaces of plugins that have a `max_bytes` of their own.
        shares: Vec<(Namespace, u64)>,
    },
    /// A Valkey or Redis server.
    Server(Box<ServerOptions>),
}

/// What a RAM cache is where the file says nothing.
struct RamDefaults {
    max_bytes: u64,
    /// Unless half of `max_bytes` is less.
    max_value_bytes: usize,
    default_expire: Duration,
    wait: Duration,
}

/// The defaults of `type = "ram"`.
const RAM_DEFAULTS: RamDefaults = RamDefaults {
    max_bytes: 64 << 20,
    max_value_bytes: 1 << 20,
    default_expire: Duration::from_secs(300),
    wait: Duration::from_secs(5),
};

/// What a server cache is where the file says nothing; `place` has the defaults of where it is.
struct ServerDefaults {
    prefix: &'static str,
    default_expire: Duration,
    connect_timeout: Duration,
    timeout: Duration,
    connections: u16,
    max_value_bytes: usize,
    lease: Duration,
    wait: Duration,
}

/// The defaults of `type = "valkey"` and `type = "redis"`.
const SERVER_DEFAULTS: ServerDefaults = ServerDefaults {
    prefix: "cache:",
    default_expire: Duration::from_secs(300),
    connect_timeout: Duration::from_secs(2),
    timeout: Duration::from_millis(500),
    connections: 1,
    max_value_bytes: 1 << 20,
    lease: Duration::from_secs(10),
    wait: Duration::from_secs(5),
};

/// The shortest `lease`: a busy host must find the time to renew it.
const LEAST_LEASE: Duration = Duration::from_millis(100);

/// The longest `lease`, for which a killed holder stops everybody.
const LONGEST_LEASE: Duration = Duration::from_secs(60 * 60);

/// The default `max_lease` of all types.
const MAX_LEASE: Duration = Duration::from_secs(5 * 60);

/// The most `connections`, each of which costs every server memory.
const MOST_CONNECTIONS: u16 = 64;

/// The longest `prefix`, in bytes.
const MAX_PREFIX: usize = 256;

/// What a server takes at most for one value.
const MAX_SERVER_VALUE: u64 = 512 << 20;

impl Default for CacheConfig {
    /// A RAM cache.
    fn default() -> Self {
        let policy = Policy {
            default_expire: Some(RAM_DEFAULTS.default_expire),
            max_expire: None,
            max_value_bytes: RAM_DEFAULTS.max_value_bytes,
            max_batch_bytes: Limits::default().max_batch_bytes,
            wait: RAM_DEFAULTS.wait,
            max_lease: MAX_LEASE,
            on_outage: OnOutage::default(),
        };
        Self { policy, store: Store::Ram { max_bytes: RAM_DEFAULTS.max_bytes, shares: Vec::new() } }
    }
}

impl CacheConfig {
    // Decision: docs/decisions/0011-prefixes-must-not-be-empty-or-overlap.md
    /// Whether the two would reach each other's keys: a grant of one would be a grant of the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (&self.store, &other.store) {
            (Store::Server(a), Store::Server(b)) => {
                a.db == b.db
                    && a.deployment.overlaps(&b.deployment)
                    && (a.prefix.starts_with(&b.prefix) || b.prefix.starts_with(&a.prefix))
            }
            _ => false,
        }
    }

    /// Sets a share of a RAM cache aside for a namespace; one that has a share already keeps it. On a server there is
    /// nothing to set aside.
    pub(super) fn set_aside(&mut self, name: &str, namespace: &Namespace, share: u64) -> Result<(), String> {
        let Store::Ram { max_bytes, shares } = &mut self.store else { return Ok(()) };
        if shares.iter().any(|(other, _)| other == namespace) {
            return Ok(());
        }
        let max_value_bytes = self.policy.max_value_bytes;
        let least = least_capacity(max_value_bytes);
        if share < least {
            return Err(format!(
                "must be at least {least} to hold a value of max_value_bytes = {max_value_bytes} in the cache \
                 `{name}`, but is {share}"
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
        // The type comes first: the rest is read as that type's struct, so that unknown keys and places stay known.
        let mut section = section.clone();
        if section.name.is_empty() || section.name.chars().any(char::is_control) {
            return Err(section.fault("type", "a cache's name must not be empty or hold control characters"));
        }
        let (kind, span) = section.take_string("type")?;
        match kind.as_str() {
            "ram" => section.read::<RawRam>()?.validate(&section),
            "valkey" => section.read::<RawServer>()?.validate(ServerKind::Valkey, &section, directory, environment),
            "redis" => section.read::<RawServer>()?.validate(ServerKind::Redis, &section, directory, environment),
            other => {
                let path = &section.path;
                let message = format!("`{path}.type`: there is no type `{other}`, only `ram`, `valkey`, `redis`");
                Err(Fault::at(span, message))
            }
        }
    }
}

/// A cache in the memory of one host process.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawRam {
    /// The most memory for entries: keys, values and overhead. Defaults to `"64MiB"`.
    max_bytes: Option<Size>,
    /// The longest value, to store and to read; in RAM half of `max_bytes` if that is less, on a server at most 512 MiB.
    /// Defaults to `"1MiB"`.
    max_value_bytes: Option<Size>,
    /// The duration of a value that is stored without one, or `"unlimited"`. Defaults to `300`.
    default_expire: Option<Expire>,
    /// The longest duration of any value; longer ones, and unlimited ones, are shortened to it.
    max_expire: Option<Positive>,
    /// How long a get-or-set waits for another caller's computation. Defaults to `"5s"`.
    wait: Option<Span>,
    /// How long a vacancy keeps others from computing; then another caller gets one. Defaults to `"5m"`.
    max_lease: Option<Positive>,
}

impl RawRam {
    fn validate(self, section: &Section<'_>) -> Result<CacheConfig, Fault> {
        let Self { max_bytes, max_value_bytes, default_expire, max_expire, wait, max_lease } = self;
        let max_bytes = max_bytes.map_or(RAM_DEFAULTS.max_bytes, |size| size.0);
        let max_value_bytes = match max_value_bytes {
            Some(size) => value_limit(size, section)?,
            None => RAM_DEFAULTS.max_value_bytes.min(usize::try_from(max_bytes / 2).unwrap_or(usize::MAX)),
        };
        let least = least_capacity(max_value_bytes);
        if max_bytes < least {
            let rule = format!(
                "must be at least {least} to hold a value of max_value_bytes = {max_value_bytes}, but is {max_bytes}"
            );
            return Err(section.fault("max_bytes", &rule));
        }
        let policy = Policy {
            default_expire: default_expire.map_or(Some(RAM_DEFAULTS.default_expire), |expire| expire.0),
            max_expire: max_expire.map(|duration| duration.0),
            max_value_bytes,
            max_batch_bytes: Limits::default().max_batch_bytes,
            wait: wait.map_or(RAM_DEFAULTS.wait, |span| span.0),
            max_lease: max_lease.map_or(MAX_LEASE, |duration| duration.0),
            on_outage: OnOutage::default(),
        };
        Ok(CacheConfig { policy, store: Store::Ram { max_bytes, shares: Vec::new() } })
    }
}

/// A cache on a Valkey or Redis server that host processes share.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    /// `valkey://user:password@host:port/db`, for TLS `valkeys:`; `redis:` and `rediss:` mean the same. Instead of
    /// `host`, `port`, `db`, `username`, `password` and `tls`.
    url: Option<Url>,
    /// Some nodes of a cluster, each as `host:port`. Instead of `url`, `host` and `port`.
    cluster: Option<Vec<NodeAddress>>,
    /// The primary that sentinels watch. Instead of `url`, `host` and `port`.
    sentinel: Option<RawSentinel>,
    /// Name or address of the server; absent: `VALKEY_HOST`, for type `redis` `REDIS_HOST`. Defaults to `"localhost"`.
    host: Option<String>,
    /// Its TCP port; absent: `VALKEY_PORT`, for type `redis` `REDIS_PORT`. Defaults to `6379`.
    port: Option<Port>,
    /// The number of the database. Defaults to `0`.
    db: Option<Db>,
    /// What stands in front of every key on the server. Defaults to `"cache:"`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_PREFIX)))]
    prefix: Option<String>,
    /// The duration of a value that is stored without one, or `"unlimited"`. Defaults to `300`.
    default_expire: Option<Expire>,
    /// The longest duration of any value; longer ones, and unlimited ones, are shortened to it.
    max_expire: Option<Positive>,
    /// The user to log in as. Needs a password.
    username: Option<String>,
    /// The password to log in with.
    password: Option<Password>,
    /// A file that holds the password; a relative path starts at this file's folder.
    password_file: Option<PathBuf>,
    /// Whether to speak TLS. Defaults to `false`.
    tls: Option<bool>,
    /// The certificate authorities to trust, in PEM; absent: the system's. Needs TLS.
    ca_file: Option<PathBuf>,
    /// Our own certificate in PEM, for a server that asks for one. Needs TLS and `key_file`.
    cert_file: Option<PathBuf>,
    /// The private key of `cert_file`, in PEM and not encrypted.
    key_file: Option<PathBuf>,
    /// How long connecting to the server may take. Defaults to `"2s"`.
    connect_timeout: Option<Positive>,
    /// The deadline of a call, or of each of its steps. Defaults to `"500ms"`.
    timeout: Option<Positive>,
    /// Over how many connections to each server calls are spread, 1 to 64. Defaults to `1`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MOST_CONNECTIONS)))]
    connections: Option<i64>,
    /// The longest value, to store and to read; in RAM half of `max_bytes` if that is less, on a server at most 512 MiB.
    /// Defaults to `"1MiB"`.
    max_value_bytes: Option<Size>,
    /// How long the right to compute a value outlives a host process that was killed, 100 ms to 1 h. Defaults to
    /// `"10s"`.
    lease: Option<Positive>,
    /// How long a vacancy keeps others from computing; then another caller gets one. Defaults to `"5m"`.
    max_lease: Option<Positive>,
    /// How long a get-or-set waits for another caller's computation. Defaults to `"5s"`.
    wait: Option<Span>,
    /// What reads answer while the server is out of reach. Defaults to `"miss"`.
    #[serde(default, with = "RawOnOutage")]
    #[cfg_attr(feature = "schema", schemars(!default, with = "Option<RawOnOutage>"))]
    on_outage: OnOutage,
}

/// [`OnOutage`] as written.
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
        let Self {
            url,
            cluster,
            sentinel,
            host,
            port,
            db,
            prefix,
            default_expire,
            max_expire,
            username,
            password,
            password_file,
            tls,
            ca_file,
            cert_file,
            key_file,
            connect_timeout,
            timeout,
            connections,
            max_value_bytes,
            lease,
            max_lease,
            wait,
            on_outage,
        } = self;
        let invalid = |key: &str, rule: &str| section.fault(key, rule);

        let keys = PlaceKeys { url, cluster, sentinel, host, port, db, username, password, password_file, tls };
        let Found { deployment, db, username, password, tls } = keys.read(kind, section, directory, environment)?;
        let tls = TlsKeys { ca_file, cert_file, key_file }.read(tls, section, directory)?;
        let prefix = prefix.unwrap_or_else(|| SERVER_DEFAULTS.prefix.to_owned());
        if prefix.is_empty() {
            return Err(invalid("prefix", "must not be empty, or `clear-all` would empty the database"));
        }
        if prefix.len() > MAX_PREFIX || prefix.chars().any(char::is_control) {
            return Err(invalid("prefix", &format!("must not be over {MAX_PREFIX} bytes or hold control characters")));
        }
        let max_value_bytes = match max_value_bytes {
            Some(Size(bytes)) if bytes > MAX_SERVER_VALUE => {
                return Err(invalid("max_value_bytes", "must not be over 512MiB, which is what a server takes"));
            }
            Some(size) => value_limit(size, section)?,
            None => SERVER_DEFAULTS.max_value_bytes,
        };
        let connections = connections.map_or(Some(SERVER_DEFAULTS.connections), |count| u16::try_from(count).ok());
        let Some(connections) = connections.filter(|count| (1..=MOST_CONNECTIONS).contains(count)) else {
            return Err(invalid("connections", &format!("must be from 1 to {MOST_CONNECTIONS}")));
        };
        let lease = lease.map_or(SERVER_DEFAULTS.lease, |duration| duration.0);
        if !(LEAST_LEASE..=LONGEST_LEASE).contains(&lease) {
            return Err(invalid("lease", "must be from 100ms to 1h"));
        }
        let policy = Policy {
            default_expire: default_expire.map_or(Some(SERVER_DEFAULTS.default_expire), |expire| expire.0),
            max_expire: max_expire.map(|duration| duration.0),
            max_value_bytes,
            max_batch_bytes: Limits::default().max_batch_bytes,
            wait: wait.map_or(SERVER_DEFAULTS.wait, |span| span.0),
            max_lease: max_lease.map_or(MAX_LEASE, |duration| duration.0),
            on_outage,
        };
        let mut options = ServerOptions::new(kind);
        options.deployment = deployment;
        options.db = db;
        options.prefix = prefix;
        options.username = username;
        options.password = password;
        options.tls = tls;
        options.connect_timeout = connect_timeout.map_or(SERVER_DEFAULTS.connect_timeout, |duration| duration.0);
        options.timeout = timeout.map_or(SERVER_DEFAULTS.timeout, |duration| duration.0);
        options.connections = connections;
        options.lease = lease;
        Ok(CacheConfig { policy, store: Store::Server(Box::new(options)) })
    }
}

fn value_limit(size: Size, section: &Section<'_>) -> Result<usize, Fault> {
    usize::try_from(size.0).map_err(|_| section.fault("max_value_bytes", "is more than this machine can address"))
}
