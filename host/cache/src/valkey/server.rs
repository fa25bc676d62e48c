//! What a server reports about itself: kind, version, mode, capabilities, rights of the user, and which server it is.

pub(in crate::valkey) mod capabilities;
pub(in crate::valkey) mod info;
pub(in crate::valkey) mod registry;
pub(in crate::valkey) mod rights;
