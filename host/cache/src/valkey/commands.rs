//! The commands that take more than one line: leases and clears.

pub(in crate::valkey) mod clearing;
pub(in crate::valkey) mod leases;
