//! Leases: the right to compute the value of one key, as it stands where the value would.

// Decision: docs/decisions/0001-a-lease-is-stored-under-the-key-itself.md

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The right to compute one key's value, told from all others by its bytes.
///
/// On a server it stands under the key in place of a value: [`Lease::MARK`], then 32 hexadecimal digits, the first half
/// drawn by chance for each cache of each process, the second counted there. All bytes that begin with the mark are a
/// lease to us and never a value, so that the format can grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(Bytes);

impl Lease {
    /// What every lease begins with, and no value may. It is no text, so no text is ever refused for it.
    pub const MARK: &[u8] = b"\0larder-lease:";

    /// The lease that these bytes are, or `None` where they are a value.
    pub fn read(stored: &Bytes) -> Option<Self> {
        Self::is_marked(stored).then(|| Self(stored.clone()))
    }

    /// Whether these bytes are a lease and not a value.
    pub fn is_marked(stored: &[u8]) -> bool {
        stored.starts_with(Self::MARK)
    }

    /// The lease as it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where the leases of one cache of one process come from.
#[derive(Debug)]
pub struct Issuer {
    /// What all of them begin with.
    start: String,
    next: AtomicU64,
}

impl Issuer {
    /// An issuer whose leases differ from those of all others, on whatever machine.
    #[expect(clippy::new_without_default, reason = "two issuers are never equal, which a default suggests")]
    pub fn new() -> Self {
        // Seeded by the system, and different for each.
        let chance = RandomState::new().hash_one(std::process::id());
        let start = format!("{}{chance:016x}", String::from_utf8_lossy(Lease::MARK));
        Self { start, next: AtomicU64::new(0) }
    }

    /// A new lease.
    pub fn issue(&self) -> Lease {
        let mut text = String::with_capacity(self.start.len().saturating_add(16));
        text.push_str(&self.start);
        let _infallible = write!(text, "{:016x}", self.next.fetch_add(1, Ordering::Relaxed));
        Lease(text.into())
    }

    /// Whether the lease comes from here.
    pub fn has_issued(&self, lease: &Lease) -> bool {
        lease.0.starts_with(self.start.as_bytes())
    }
}

/// What a [`claim`](crate::CacheBackend::claim) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key has this value.
    Value(Bytes),
    /// The key had neither value nor lease; now it has the caller's.
    Granted,
    /// Somebody else computes the value, under this lease.
    Leased(Lease),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts of different releases meet on one server, so this is a format and not a detail.
    #[test]
    fn a_lease_is_its_mark_and_32_digits() {
        let lease = Issuer::new().issue();
        let digits = lease.as_bytes().strip_prefix(b"\0larder-lease:").unwrap();
        assert_eq!(digits.len(), 32);
        assert!(digits.iter().all(u8::is_ascii_hexdigit), "{digits:?}");
    }

    #[test]
    fn no_two_leases_are_equal_and_each_is_known_to_its_issuer() {
        let (one, two) = (Issuer::new(), Issuer::new());
        let leases = [one.issue(), one.issue(), two.issue()];
        assert_ne!(leases[0], leases[1]);
        assert_eq!(leases.each_ref().map(|lease| one.has_issued(lease)), [true, true, false]);
        assert_eq!(leases.each_ref().map(|lease| two.has_issued(lease)), [false, false, true]);
    }

    #[test]
    fn what_begins_with_the_mark_is_a_lease_whatever_follows() {
        let later = Bytes::from_static(b"\0larder-lease:2:another-format");
        assert_eq!(Lease::read(&later).unwrap().as_bytes(), &later[..]);
        assert!(Lease::read(&Bytes::from_static(b"\0larder-lease:")).is_some());
        for value in ["", "\0", "\0larder-lease", "larder-lease:", "x\0larder-lease:"] {
            assert_eq!(Lease::read(&Bytes::from_static(value.as_bytes())), None);
        }
    }
}
