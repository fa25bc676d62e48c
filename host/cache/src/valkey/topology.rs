//! Where the server that holds a key is found: by a cluster's slots, or by asking sentinels.

pub(in crate::valkey) mod cluster;
pub(in crate::valkey) mod sentinel;
pub(in crate::valkey) mod slots;
