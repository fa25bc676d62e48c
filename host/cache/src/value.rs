//! A value that a caller stores: its own bytes, or a borrowed slice that is copied once all checks have passed.

use bytes::Bytes;

/// The bytes of a value. A large value that is refused is never copied.
pub(crate) trait Value: AsRef<[u8]> {
    /// The value for the backend.
    fn into_bytes(self) -> Bytes;
}

impl Value for Bytes {
    fn into_bytes(self) -> Bytes {
        self
    }
}

impl Value for &[u8] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}
