//! What a server reports about itself: kind, version, mode and capabilities.

pub(in crate::valkey) mod capabilities;
pub(in crate::valkey) mod info;
