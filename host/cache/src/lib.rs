//! The cache contract, in the language of caches. Backends live beside this file; WebAssembly, TOML and the command
//! line live elsewhere.
//!
//! From the outside in: a [`ScopedCache`] is what one plugin may see of a cache: it validates keys, puts them into the
//! plugin's namespace and enforces its grant. A [`Cache`] is one configured cache: it applies durations, limits and the
//! choice for outages, and lets one caller compute a missing value while others wait. A [`CacheBackend`] stores bytes.

// A plugin, a file or a server may control any value here.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod cache;
mod cache_metrics;
mod fast_path;
mod get_or_set;
pub mod glob;
pub mod key;
pub mod metrics;
mod policy;
pub mod ram;
mod scoped;
pub mod text;
pub mod tls;
pub mod valkey;

use std::fmt;
use std::pin::Pin;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;

pub use cache::Cache;
pub use fast_path::FastPath;
pub use get_or_set::in_flight::Owner;
pub use get_or_set::lease::{Claim, Issuer, Lease};
pub use get_or_set::lookup::Entry;
pub use get_or_set::stats::GetOrSetStats;
pub use get_or_set::vacancy::Vacancy;
pub use key::{Key, KeyRef, Namespace, Selection};
pub use policy::{OnOutage, Policy};
pub use scoped::{Access, Limits, OpenError, PluginCaches, ScopedCache};

// Decision: docs/decisions/0009-the-backend-trait-is-object-safe.md
/// Where values are kept, and where it is settled who computes a missing one.
///
/// All backends answer alike; the contract suite holds them to it. Keys are validated and namespaced before they come
/// here, values are within the cache's limit and no lease, and durations are above zero and at most
/// [`Duration::LONGEST`].
///
/// An expired value is never returned. `None` as a duration means no expiry. A key has a value, a [`Lease`] or nothing.
/// A lease is a miss to all but [`claim`](CacheBackend::claim), and every set and clear of its key ends it.
///
/// Every exchange with a server ends within the backend's deadline. A method makes one, or a second where the first
/// failed; only [`clear_matching`](CacheBackend::clear_matching) and [`changed`](CacheBackend::changed) make more.
#[async_trait]
pub trait CacheBackend: fmt::Debug + Send + Sync + 'static {
    /// The key's value, or `None` on a miss.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError>;

    /// The values of many keys, in their order.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError>;

    /// Stores a value.
    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError>;

    /// Stores many values; of a key that stands twice the last one stays.
    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError>;

    /// Removes one key and says whether it held a value.
    async fn clear(&self, key: &Key) -> Result<bool, CacheError>;

    /// Removes the selected keys and says how many held a value. On an error some may be gone already.
    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError>;

    /// The key's value; where it has neither value nor lease it gets this lease, in the same step. On an error, or when
    /// the future is dropped, it may have got it.
    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError>;

    /// Ends soon after the key no longer has this lease, which another one holds. It may end earlier.
    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError>;

    /// Stores a value where the key still has this lease, in one step, and says whether it did.
    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError>;

    /// How long a lease lasts that is not renewed; `None` where it lasts until it is given back, which
    /// [`abandon`](CacheBackend::abandon) then does without waiting.
    fn lease_time(&self) -> Option<StdDuration>;

    /// Makes a lease last for its full time again, and says whether the key still has it.
    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError>;

    /// Gives a lease back, and does nothing where the key no longer has it. What needs no waiting is done by the call
    /// itself, which may come from outside of a runtime; the future is the rest.
    fn abandon(&self, key: &Key, lease: &Lease) -> Release;

    /// Reaches what stands behind the cache and says what it is.
    async fn check(&self) -> Result<Health, CacheError>;

    /// How it stands, as far as is known without asking anyone.
    fn status(&self) -> BackendStatus {
        BackendStatus::Other
    }

    /// The backend as one that answers at once, where it does. Not by default.
    fn as_sync(&self) -> Option<&dyn SyncBackend> {
        None
    }
}

/// A backend that keeps its entries in this process: what is asked most needs no future.
pub trait SyncBackend {
    /// What [`CacheBackend::get`] answers.
    fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes>;

    /// Does what [`CacheBackend::set`] does.
    fn store(&self, key: Key, value: Bytes, duration: Option<StdDuration>);
}

/// How a backend stands, for the [metrics].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendStatus {
    /// It keeps entries in this process.
    Ram {
        /// What they weigh.
        bytes: u64,
        /// What they may weigh.
        max_bytes: u64,
        /// How many there are, expired ones included until they are swept.
        entries: u64,
        /// How many made room for others, so far.
        evictions: u64,
    },
    /// It speaks to servers.
    Server {
        /// `valkey` or `redis`.
        kind: &'static str,
        /// Whether all connections stand.
        is_up: bool,
        /// How many connections were made anew after a loss, so far.
        reconnects: u64,
    },
    /// It does not say.
    Other,
}

impl BackendStatus {
    /// What the figures call the backend.
    fn backend(&self) -> &'static str {
        match self {
            Self::Ram { .. } => "ram",
            Self::Server { kind, .. } => kind,
            Self::Other => "other",
        }
    }
}

/// A lease on its way back.
pub type Release = Pin<Box<dyn Future<Output = Result<(), CacheError>> + Send>>;

/// What a [`check`](CacheBackend::check) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What answers: `RAM`, `Valkey` or `Redis`.
    pub kind: &'static str,
    /// Its version; empty for RAM.
    pub version: String,
    /// How long one exchange with it took; none for RAM.
    pub round_trip: Option<StdDuration>,
    /// What get-or-set makes use of there, of what not all servers have; empty for RAM.
    pub supports: Vec<&'static str>,
}

/// How long a value may be served, as the plugin asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// The cache's `default_expire`.
    Default,
    /// So many milliseconds; zero is refused.
    Milliseconds(u64),
    /// Until cleared or evicted, or the cache's `max_expire` where it has one.
    Unlimited,
}

impl Duration {
    /// The longest finite duration, 100 years. A duration is an upper bound, so a longer one is shortened to it, which
    /// keeps every sum with a clock within its range, here and on the server.
    pub const LONGEST: StdDuration = StdDuration::from_secs(100 * 365 * 24 * 60 * 60);
}

/// Why a cache could not answer. A miss is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// An argument breaks a rule: which one, and the rule. The plugin's author mends it.
    #[error("{0}")]
    InvalidArgument(String),
    /// The value is over the cache's `max_value_bytes`. The plugin stores less, or the operator raises the limit.
    #[error("value of {len} bytes is over the limit: {max}")]
    ValueTooLarge {
        /// The value's length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The grant is read-only. The operator decides.
    #[error("access denied: the grant is read-only")]
    ReadOnly,
    /// No answer in time; a write may or may not have happened. The plugin may try again or go on without.
    #[error("no answer within {0:?}")]
    Timeout(StdDuration),
    /// The connection was lost before the answer came; a write may or may not have happened. The plugin may try again or
    /// go on without.
    #[error("the connection was lost before the answer came: {0}")]
    Lost(String),
    /// The server cannot be reached, or is in no state to serve: nothing was written. The operator finds out why.
    #[error("{0}")]
    Unavailable(String),
    /// The key holds something that is not a string, put there by another program. The operator removes it.
    #[error("the key holds a value of another type")]
    WrongType,
    /// The server refused the command. The operator reads the server's own words here.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl CacheError {
    /// The variant of the interface's `error` that the plugin gets.
    pub fn name(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "invalid-argument",
            Self::ValueTooLarge { .. } => "value-too-large",
            Self::ReadOnly => "access-denied",
            Self::Timeout(_) | Self::Lost(_) => "timeout",
            Self::Unavailable(_) => "unavailable",
            Self::WrongType | Self::Refused(_) => "other",
        }
    }

    /// Whether the cache is out of reach, rather than the call at fault.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Lost(_) | Self::Unavailable(_))
    }
}

/// The rule that keys, namespaces and patterns share.
fn check_text(argument: &str, text: &str, max: usize) -> Result<(), CacheError> {
    // Every byte, wherever the first control character stands: so the compiler looks at many at once.
    let has_control = || text.bytes().fold(false, |found, byte| found | byte.is_ascii_control());
    let broken = if text.is_empty() {
        "must not be empty".to_owned()
    } else if text.len() > max {
        format!("must not be longer than {max} bytes, but has {}", text.len())
    } else if has_control() {
        "must not hold control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(CacheError::InvalidArgument(format!("{argument}: {broken}")))
}
