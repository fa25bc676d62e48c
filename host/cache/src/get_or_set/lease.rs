//! Leases: the right to compute the value of one key, stored under the key in place of the value.

// Decision: docs/decisions/0001-a-lease-is-stored-under-the-key-itself.md

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The right to compute one key's value. Its bytes are unique.
///
/// A server stores the lease under the key in place of a value: [`Lease::MARK`], then 32 hexadecimal digits. The first
/// 16 are random for each cache of each process, the others are a counter. All bytes that begin with the mark are a
/// lease and never a value, so that later releases can extend the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(Bytes);

impl Lease {
    /// The prefix of every lease. A value must not begin with it. It contains a zero byte, so no printable text does.
    pub const MARK: &[u8] = b"\0larder-lease:";

    /// Parses stored bytes. `None` if they are a value.
    pub fn read(stored: &Bytes) -> Option<Self> {
        Self::is_marked(stored).then(|| Self(stored.clone()))
    }

    /// True if these bytes are a lease and not a value.
    pub fn is_marked(stored: &[u8]) -> bool {
        stored.starts_with(Self::MARK)
    }

    /// The stored form of the lease.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Issues the leases of one cache of one process.
#[derive(Debug)]
pub struct Issuer {
    /// The mark and the random digits.
    prefix: String,
    next: AtomicU64,
}

impl Issuer {
    /// An issuer whose leases differ from those of all other issuers, on all machines.
    #[expect(clippy::new_without_default, reason = "two issuers are never equal, which a default suggests")]
    pub fn new() -> Self {
        // `RandomState` is seeded by the operating system, and each one is different.
        let random = RandomState::new().hash_one(std::process::id());
        let prefix = format!("{}{random:016x}", String::from_utf8_lossy(Lease::MARK));
        Self { prefix, next: AtomicU64::new(0) }
    }

    /// A new lease.
    pub fn issue(&self) -> Lease {
        let mut text = Vec::with_capacity(self.prefix.len().saturating_add(16));
        text.extend_from_slice(self.prefix.as_bytes());
        text.extend_from_slice(&hexadecimal(self.next.fetch_add(1, Ordering::Relaxed)));
        Lease(text.into())
    }

    /// True if this issuer issued the lease.
    pub fn has_issued(&self, lease: &Lease) -> bool {
        lease.0.starts_with(self.prefix.as_bytes())
    }
}

/// The digits of a number. `format!` takes ten times as long, and each get-or-set on a server needs them.
fn hexadecimal(number: u64) -> [u8; 16] {
    let mut rest = number;
    std::array::from_fn(|_| {
        rest = rest.rotate_left(4);
        match u8::try_from(rest & 0xf) {
            Ok(digit @ 0..=9) => digit | b'0',
            Ok(digit) => digit.saturating_sub(9) | 0x60,
            Err(_) => b'0',
        }
    })
}

/// The result of a [`claim`](crate::CacheBackend::claim).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key holds this value.
    Value(Bytes),
    /// The key held neither a value nor a lease; now it holds the caller's lease.
    Granted,
    /// The key holds this lease of another caller, which computes the value.
    Leased(Lease),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts of different releases share a server, so the format must not change.
    #[test]
    fn a_lease_is_the_mark_and_32_hexadecimal_digits() {
        let lease = Issuer::new().issue();
        let digits = lease.as_bytes().strip_prefix(b"\0larder-lease:").unwrap();
        assert_eq!(digits.len(), 32);
        assert!(digits.iter().all(u8::is_ascii_hexdigit), "{digits:?}");
    }

    #[test]
    fn the_digits_are_those_that_the_standard_library_prints() {
        for number in [0, 1, 9, 10, 15, 16, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hexadecimal(number), *format!("{number:016x}").as_bytes());
        }
    }

    #[test]
    fn leases_are_unique_and_only_their_issuer_has_issued_them() {
        let (one, two) = (Issuer::new(), Issuer::new());
        let leases = [one.issue(), one.issue(), two.issue()];
        assert_ne!(leases[0], leases[1]);
        assert_eq!(leases.each_ref().map(|lease| one.has_issued(lease)), [true, true, false]);
        assert_eq!(leases.each_ref().map(|lease| two.has_issued(lease)), [false, false, true]);
    }

    #[test]
    fn all_bytes_that_begin_with_the_mark_are_a_lease() {
        let later = Bytes::from_static(b"\0larder-lease:2:another-format");
        assert_eq!(Lease::read(&later).unwrap().as_bytes(), &later[..]);
        assert!(Lease::read(&Bytes::from_static(b"\0larder-lease:")).is_some());
        for value in ["", "\0", "\0larder-lease", "larder-lease:", "x\0larder-lease:"] {
            assert_eq!(Lease::read(&Bytes::from_static(value.as_bytes())), None);
        }
    }
}
