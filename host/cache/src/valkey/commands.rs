//! Commands of more than one line: compare-and-set, counters, leases, versions, listings and clears.

pub(in crate::valkey) mod clearing;
pub(in crate::valkey) mod compare_and_set;
pub(in crate::valkey) mod counters;
pub(in crate::valkey) mod leases;
pub(in crate::valkey) mod listing;
pub(in crate::valkey) mod reads;
pub(in crate::valkey) mod versions;
