//! Get-or-set: one caller computes a missing value while the others wait for it.

pub(crate) mod in_flight;
pub(crate) mod lease;
pub(crate) mod lookup;
pub(crate) mod refresh;
pub(crate) mod renewal;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod vacancy;
