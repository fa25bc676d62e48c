//! Faults of the network and of servers while calls are running.
//!
//! - `line`: networks that delay, throttle, drop, cut and reset connections.
//! - `load`: how long the calls of 64 plugin instances take during a fault, and what is stored afterwards.
//! - `relay`: the relay that these tests inject faults with.
//! - `states`: servers that accept connections but cannot serve: paused, loading, or with a full disk.

mod line;
mod load;
mod relay;
mod states;
