//! What a server tells about itself: its kind, version and mode, and which commands it has.

pub(in crate::valkey) mod capabilities;
pub(in crate::valkey) mod info;
