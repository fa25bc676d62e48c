//! The cache of Larder: its contract, get-or-set, the RAM backend and the server backend.
//!
//! The crate has three layers. A [`ScopedCache`] is one plugin's view of a cache: it checks keys, puts them into the
//! plugin's namespace, and enforces the plugin's access and limits. A [`Cache`] is one configured cache: it applies
//! durations, size limits and the outage policy, and lets one caller compute a missing value while others wait. A
//! [`CacheBackend`] stores bytes and leases.

// A plugin, a file or a server may control any value here.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod answer_limit;
mod backend;
mod blocking;
mod cache;
mod cache_metrics;
mod error;
mod fast_path;
mod get_or_set;
pub mod glob;
mod grant;
pub mod key;
pub mod metrics;
mod near;
mod policy;
pub mod ram;
mod scope;
mod scoped;
pub mod small_file;
pub mod tcp;
pub mod text;
pub mod tls;
pub mod valkey;
mod value;

pub use answer_limit::AnswerLimit;
pub use backend::{
    BackendStatus, CacheBackend, ClearProgress, Health, KeyPage, KeyState, ListCursor, NearLookup, NearStatus, Release,
    SyncBackend, Version, WithLife, parse_number,
};
pub use cache::Cache;
pub use error::{CacheError, Handling, PluginError};
pub use fast_path::{FastPath, NearPath};
pub use get_or_set::in_flight::Owner;
pub use get_or_set::lease::{Claim, Issuer, Lease};
pub use get_or_set::lookup::Entry;
pub use get_or_set::refresh::Freshness;
pub use get_or_set::stats::{GetOrSetStats, RefreshStats};
pub use get_or_set::vacancy::Vacancy;
pub use grant::{OpenError, PluginCaches};
pub use key::{Key, KeyRef, Namespace, Selection};
pub use near::NearOptions;
pub use policy::{Duration, OnOutage, Policy};
pub use scope::{Access, Limits};
pub use scoped::ScopedCache;
