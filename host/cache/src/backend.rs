//! The contract of a backend.

use std::fmt;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::error::CacheError;
use crate::get_or_set::lease::{Claim, Lease};
use crate::key::{Key, KeyRef, Selection};

// Decision: docs/decisions/0009-the-backend-trait-is-object-safe.md
/// Stores values and leases.
///
/// All backends behave the same; the contract suite tests each of them. The caller guarantees that keys are validated
/// and namespaced, that values are within the cache's limit and are not leases, and that durations are above zero and
/// at most [`Duration::LONGEST`](crate::Duration::LONGEST).
///
/// A backend never returns an expired value. A duration of `None` means no expiry. A key holds a value, a [`Lease`] or
/// nothing. A lease is a miss for every method except [`claim`](CacheBackend::claim), and every set and clear of its
/// key ends it.
///
/// Every exchange with a server ends within the backend's deadline. A method makes one exchange, and a second one if
/// the first failed; only [`clear_matching`](CacheBackend::clear_matching), [`changed`](CacheBackend::changed),
/// [`list_keys`](CacheBackend::list_keys) and [`exists`](CacheBackend::exists) make more.
///
/// # Errors
///
/// Every method that returns a [`CacheError`] returns [`CacheError::Timeout`], [`CacheError::Lost`],
/// [`CacheError::Unavailable`] or [`CacheError::Overlap`] in an outage, [`CacheError::WrongType`] for a key that another
/// program uses for another type, and [`CacheError::Refused`] if the server rejects the command. A method that returns
/// values may also return [`CacheError::ValueTooLarge`]. The RAM backend has no errors.
#[async_trait]
pub trait CacheBackend: fmt::Debug + Send + Sync + 'static {
    /// Returns the key's value, or `None` on a miss.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError>;

    /// Returns the values of many keys, in the order of the keys.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError>;

    /// Returns true if the key holds a value.
    async fn exists(&self, key: &Key) -> Result<bool, CacheError>;

    /// Returns what the key holds, for an operator. By default without leases, and from [`CacheBackend::get_with_life`].
    async fn describe(&self, key: &Key) -> Result<KeyState, CacheError> {
        Ok(match self.get_with_life(key).await? {
            Some(WithLife { value, life }) => KeyState::Value { bytes: value.len(), life },
            None => KeyState::Empty,
        })
    }

    /// Returns a page of the names of the selected keys that hold a value, in no particular order: the first page, or the
    /// one at a cursor that an earlier page returned. A page has about `max_keys` names and about 1 MiB at most; it may be
    /// empty although more pages follow.
    ///
    /// A key that holds a value during the whole listing is listed once or, on a server, more than once. A key that is
    /// set or removed meanwhile may be listed. A cursor is valid until the servers of the cache change: then
    /// [`CacheError::InvalidArgument`] says so, or keys may be missing. Any other number as a cursor is harmless.
    async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError>;

    /// Stores a value.
    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError>;

    /// Stores many values. If a key is repeated, its last value is stored.
    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError>;

    /// Adds `delta` to the number that the key holds as decimal text, in one atomic step. Returns the new number. A key
    /// without a value counts as 0 and then gets the duration; a number keeps its remaining life. But if the duration is
    /// over 50 years and that life is too, or is unlimited, the number gets the duration: one of
    /// [`Duration::lasting`](crate::Duration::lasting), which gives the number another [`Version`]. An unlimited duration
    /// changes nothing.
    ///
    /// It is never repeated: if the reply is lost, the number may or may not have changed.
    ///
    /// Returns [`CacheError::NotANumber`] for a value that [`parse_number`] refuses, and [`CacheError::NumberOverflow`] if
    /// the sum is no `i64`. The key then stays as it is.
    async fn increment(&self, key: Key, delta: i64, duration: Option<StdDuration>) -> Result<i64, CacheError>;

    /// Removes one key. Returns true if it held a value.
    async fn clear(&self, key: &Key) -> Result<bool, CacheError>;

    /// Removes many keys. Returns how many held a value; a key that is repeated counts once. After an error some of them
    /// may be removed.
    async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError>;

    /// Removes the selected keys. Returns how many held a value. After an error some of them may be removed.
    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError>;

    /// As [`CacheBackend::clear_matching`], and counts what it does. By default it does not count.
    async fn clear_matching_with(&self, selection: &Selection, _progress: &ClearProgress) -> Result<u64, CacheError> {
        self.clear_matching(selection).await
    }

    /// Returns the key's value, or stores `lease` if the key holds neither a value nor a lease, in one atomic step. If
    /// this fails, or if the future is dropped, the lease may have been stored; after [`CacheError::Unavailable`] it was
    /// not.
    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError>;

    /// Completes soon after the key no longer holds `lease`, which another caller was granted. It may complete earlier.
    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError>;

    /// Stores a value if the key still holds `lease`, in one atomic step. Returns true if it was stored.
    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError>;

    /// Returns the key's value and its remaining life, or `None` on a miss.
    async fn get_with_life(&self, key: &Key) -> Result<Option<WithLife>, CacheError>;

    /// Returns the key's value, its remaining life and its [`Version`], or `None` on a miss. Unlike
    /// [`get_with_life`](CacheBackend::get_with_life) it never answers from a copy of what a server holds.
    async fn get_version(&self, key: &Key) -> Result<Option<(WithLife, Version)>, CacheError>;

    /// Stores a value if the key still has this version of its value, or, for `None`, still has no value, in one atomic
    /// step. Returns true if it was stored.
    async fn replace(
        &self,
        key: Key,
        version: Option<&Version>,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError>;

    /// How long a lease lasts unless it is renewed. `None` if leases do not expire; [`release`](CacheBackend::release)
    /// must then complete within the call.
    fn lease_time(&self) -> Option<StdDuration>;

    /// Extends a lease to its full time. Returns true if the key still holds it.
    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError>;

    /// Releases a lease; does nothing if the key no longer holds it. The call itself does what needs no waiting, and
    /// may be made outside a runtime. The future does the rest.
    fn release(&self, key: &Key, lease: &Lease) -> Release;

    /// Contacts the backend and reports its kind, version and capabilities.
    async fn check(&self) -> Result<Health, CacheError>;

    /// A status snapshot; performs no I/O. [`BackendStatus::Other`] by default.
    fn status(&self) -> BackendStatus {
        BackendStatus::Other
    }

    /// The synchronous interface of the backend, if it has one. `None` by default.
    fn as_sync(&self) -> Option<&dyn SyncBackend> {
        None
    }

    /// The values of the backend that are near, if it has a near tier. `None` by default.
    fn near(&self) -> Option<&dyn NearLookup> {
        None
    }
}

/// What a clear of many keys has done so far, for an operator who waits for it.
#[derive(Debug, Default)]
pub struct ClearProgress {
    looked_at: AtomicU64,
    removed: AtomicU64,
}

impl ClearProgress {
    /// About how many keys the server has looked at, also those that are not selected.
    pub fn looked_at(&self) -> u64 {
        self.looked_at.load(Ordering::Relaxed)
    }

    /// How many values were removed.
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, looked_at: u64, removed: u64) {
        self.looked_at.fetch_add(looked_at, Ordering::Relaxed);
        self.removed.fetch_add(removed, Ordering::Relaxed);
    }
}

/// What a key holds. Times are in milliseconds, and `None` for what does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Nothing.
    Empty,
    /// A value.
    Value {
        /// Its length.
        bytes: usize,
        /// The time until it expires.
        life: Option<u64>,
    },
    /// The lease of a caller that computes the value.
    Lease {
        /// The time until it lapses unless it is renewed.
        life: Option<u64>,
    },
}

/// A value, and how long it remains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithLife {
    /// The value.
    pub value: Bytes,
    /// The time until the value expires, in milliseconds; `None` if it does not.
    pub life: Option<u64>,
}

impl WithLife {
    /// True if the value expires within this time.
    pub(crate) fn is_stale(&self, stale: StdDuration) -> bool {
        self.life.is_some_and(|life| u128::from(life) <= stale.as_millis())
    }
}

/// What a key holds, for a comparison: the value and the time at which it expires. A key that was written meanwhile and holds
/// an equal value again has another version if it expires at another time: always if it was stored with
/// [`Duration::lasting`](crate::Duration::lasting), and with the same finite duration if that was in another millisecond. It
/// has the same version if neither value expires.
///
/// It has a digest instead of the value, so that what holds it takes no memory in proportion to the value. The digest is
/// SHA-1, which the scripts of servers know; who can make two values of one digest can write the key anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    expires_at: Option<u64>,
    digest: [u8; 20],
}

impl Version {
    /// The version of a value that expires at this time of the backend's clock.
    pub fn new(value: &[u8], expires_at: Option<u64>) -> Self {
        Self { expires_at, digest: Sha1::digest(value).into() }
    }

    /// The time at which the value expires, by the backend's clock; `None` if it does not.
    pub fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// The SHA-1 digest of the value.
    pub fn digest(&self) -> &[u8; 20] {
        &self.digest
    }

    /// True if this is a version of this value.
    pub fn is_of(&self, value: &[u8]) -> bool {
        self.digest == <[u8; 20]>::from(Sha1::digest(value))
    }

    /// The version as text, which [`Version::from_token`] reads. Two versions are the same if their texts are.
    pub fn to_token(&self) -> String {
        let digest = self.hex_digest();
        match self.expires_at {
            Some(time) => format!("{digest}-{time}"),
            None => digest,
        }
    }

    /// The digest as a server writes it.
    pub(crate) fn hex_digest(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The version that this is the text of. `None` for any other text.
    pub fn from_token(token: &str) -> Option<Self> {
        let (hex, expires_at) = match token.split_once('-') {
            Some((hex, time)) => (hex, Some(time.parse().ok()?)),
            None => (token, None),
        };
        let mut digest = [0; 20];
        for (nth, byte) in digest.iter_mut().enumerate() {
            let start = nth.checked_mul(2)?;
            *byte = u8::from_str_radix(hex.get(start..start.checked_add(2)?)?, 16).ok()?;
        }
        // Other texts of the same numbers are none of ours.
        Some(Self { expires_at, digest }).filter(|version| version.to_token() == token)
    }
}

/// Where a listing of keys goes on. Its number means something to the backend that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCursor(NonZeroU64);

impl ListCursor {
    /// The cursor with this number. `None` for 0, where every listing begins.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number of the cursor.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

/// A page of the names of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPage {
    /// The names as plugins write them, without a namespace.
    pub keys: Vec<String>,
    /// Where the next page begins. `None` after the last page.
    pub next: Option<ListCursor>,
}

/// The number that a value is the decimal text of: digits, after a `-` if it is negative. No other text of it counts, such
/// as one with a `+`, a space or a leading zero, because servers accept none. `None` for all other values.
pub fn parse_number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let is_canonical = match text.strip_prefix('-').unwrap_or(text).as_bytes() {
        [b'0'] => text == "0",
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    text.parse().ok().filter(|_| is_canonical)
}

/// Values of a backend that are near: in this process, as copies of what a server holds.
pub trait NearLookup {
    /// The key's value, if it is near and may be served. After `None` the backend must be asked.
    fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes>;

    /// The last value that is known of a key, if it has not expired, for a caller that cannot reach the server and accepts
    /// an old value.
    fn last_known(&self, key: KeyRef<'_>) -> Option<Bytes>;

    /// As [`NearLookup::look_up`], for a value that lives longer than `stale`.
    fn look_up_fresh(&self, key: KeyRef<'_>, stale: StdDuration) -> Option<Bytes>;

    /// Counts look-ups that a call was answered with. A look-up does not count itself: one call may make several.
    fn count_hits(&self, hits: usize);

    /// A status snapshot; performs no I/O.
    fn status(&self) -> NearStatus;
}

/// The status of a near tier, as the [metrics](crate::metrics) report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NearStatus {
    /// Look-ups that were answered near so far.
    pub hits: u64,
    /// Look-ups that had to ask the server so far.
    pub misses: u64,
    /// The size of all entries, in bytes.
    pub bytes: u64,
    /// The maximum size of all entries, in bytes.
    pub max_bytes: u64,
    /// The number of entries, including those that are not served any more and not yet swept.
    pub entries: u64,
    /// The number of entries evicted so far to make room for others.
    pub evictions: u64,
    /// The number of keys that servers announced as changed so far.
    pub invalidations: u64,
    /// How often so far all keys were removed from a server.
    pub flushes: u64,
    /// How often so far the announcements of a connection ended.
    pub losses: u64,
    /// The age of the oldest horizon: how long ago all announcements of a connection are known to have arrived. `None`
    /// while no connection announces.
    pub horizon_age: Option<StdDuration>,
    /// The age of a horizon over which what was read over its connection is not served.
    pub max_staleness: StdDuration,
}

/// The synchronous interface of a backend that stores its entries in this process. These calls cannot fail.
pub trait SyncBackend {
    /// As [`CacheBackend::get`].
    fn look_up(&self, key: KeyRef<'_>) -> Option<Bytes>;

    /// As [`CacheBackend::get_with_life`].
    fn look_up_with_life(&self, key: KeyRef<'_>) -> Option<WithLife>;

    /// As [`CacheBackend::set`].
    fn store(&self, key: Key, value: Bytes, duration: Option<StdDuration>);
}

/// The status of a backend, as the [metrics](crate::metrics) report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendStatus {
    /// The backend stores entries in this process.
    Ram {
        /// The size of all entries, in bytes.
        bytes: u64,
        /// The maximum size of all entries, in bytes.
        max_bytes: u64,
        /// The number of entries, including expired ones that are not yet swept.
        entries: u64,
        /// The number of entries evicted so far to make room for others.
        evictions: u64,
    },
    /// The backend is connected to servers.
    Server {
        /// `valkey` or `redis`.
        kind: &'static str,
        /// True if every required connection is up.
        is_up: bool,
        /// The number of connections re-established so far after a loss.
        reconnects: u64,
    },
    /// The backend reports no status.
    Other,
}

impl BackendStatus {
    /// The value of the label `backend` in the metrics.
    pub(crate) fn backend(&self) -> &'static str {
        match self {
            Self::Ram { .. } => "ram",
            Self::Server { kind, .. } => kind,
            Self::Other => "other",
        }
    }
}

/// The pending part of a lease's release.
pub type Release = Pin<Box<dyn Future<Output = Result<(), CacheError>> + Send>>;

/// The result of a [`check`](CacheBackend::check).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The kind of backend: `RAM`, `Valkey` or `Redis`.
    pub kind: &'static str,
    /// The server's version; empty for RAM.
    pub version: String,
    /// The duration of one exchange with the server; `None` for RAM.
    pub round_trip: Option<StdDuration>,
    /// The optional features of the server that get-or-set uses; empty for RAM.
    pub supports: Vec<&'static str>,
}

impl Health {
    /// The health of a backend of this kind, with no version, round trip or features.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, version: String::new(), round_trip: None, supports: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_text_that_servers_accept() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(parse_number(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-", "-0", "+1", " 1", "1 ", "01", "-01", "1.0", "1e3", "0x1", "\u{661}", "1\n", "1\0"] {
            assert_eq!(parse_number(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_number(b"9223372036854775808"), None);
        assert_eq!(parse_number(b"-9223372036854775809"), None);
        assert_eq!(parse_number(b"\xff"), None);
    }

    #[test]
    fn a_version_is_what_its_text_says() {
        for version in [Version::new(b"v", None), Version::new(b"v", Some(0)), Version::new(b"", Some(u64::MAX))] {
            assert_eq!(Version::from_token(&version.to_token()), Some(version));
        }
        let version = Version::new(b"v", Some(12));
        assert!(version.is_of(b"v") && !version.is_of(b"w"));
        let token = version.to_token();
        assert!(token.ends_with("-12"), "{token}");
        let others =
            [token.to_uppercase(), format!("{token}-"), token.replace("-12", "-+12"), token.replace('-', "0-")];
        for other in others.iter().map(String::as_str).chain(["", "-", "-1", "é", &"é".repeat(20), "0000-1"]) {
            assert_eq!(Version::from_token(other), None, "{other}");
        }
    }
}
