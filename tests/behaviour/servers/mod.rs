//! Connections to Valkey and Redis.
//!
//! - `cluster`: keys on several nodes, slots that move, primaries that fail, and nodes with passwords and TLS.
//! - `connecting`: the address from the environment, passwords, and servers that cannot be used.
//! - `connection_pool`: which connection a call uses, and what the loss of one connection affects.
//! - `faults`: slow, cut and silent networks, paused and full servers, and 64 plugin instances during a fault.
//! - `large_values`: a value on the server above the limit is not read into memory.
//! - `migration`: Redis and Valkey are interchangeable except for the `type` key.
//! - `outage`: a server that stops, hangs and returns while a plugin runs.
//! - `sentinel`: Sentinel names the primary, at the start and after a failover.
//! - `start`: the start of a host while its server is away.
//! - `tls`: which certificates are accepted, and the messages for those that are not.

mod cluster;
mod connecting;
mod connection_pool;
mod faults;
mod large_values;
mod migration;
mod outage;
mod sentinel;
mod start;
mod tls;
