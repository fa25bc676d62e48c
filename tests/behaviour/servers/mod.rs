//! Connections to Valkey and Redis.
//!
//! - `addresses`: names with several addresses, some of them dead, and names whose address changes.
//! - `cluster`: keys on several nodes, slots that move, primaries that fail, and nodes with passwords and TLS.
//! - `connecting`: the address from the environment, passwords, and servers that cannot be used.
//! - `connection_pool`: which connection a call uses, and what the loss of one connection affects.
//! - `errors`: what the plugin gets for each error, what the log says, and the name in the metrics.
//! - `faults`: slow, cut and silent networks, paused and full servers, and 64 plugin instances during a fault.
//! - `identity`: two caches with overlapping prefixes never use one server, whatever its addresses are.
//! - `large_values`: a value on the server above the limit is not read into memory.
//! - `migration`: Redis and Valkey are interchangeable except for the `type` key.
//! - `near`: copies of values in the process, and when they go: by announcements, losses, silence and expiry.
//! - `near_cost`: what the near tier sends for batches, for calls that wait, and while it is idle.
//! - `near_fetch`: changes of a key while the near tier fetches it.
//! - `near_history`: random histories of several hosts with near tiers, another program and faults.
//! - `near_plugin`: plugins on a cache with a near tier.
//! - `near_rights`: the near tier of a user with few rights.
//! - `near_sentinel`: the near tier on the primary that sentinels name, and beside one that was replaced.
//! - `outage`: a server that stops, hangs and returns while a plugin runs.
//! - `rights`: `larder check` tries each command that a host sends, and names those that the user may not call.
//! - `rotation`: passwords and certificates that change while the host runs.
//! - `sentinel`: Sentinel names the primary, at the start and after a failover.
//! - `start`: the start of a host while its server is away.
//! - `strangers`: something else than a Valkey or Redis server is at the address, or it takes no more clients.
//! - `tls`: which certificates are accepted, and the messages for those that are not.

mod addresses;
mod cluster;
mod connecting;
mod connection_pool;
mod errors;
mod faults;
mod identity;
mod large_values;
mod migration;
mod near;
mod near_cost;
mod near_fetch;
mod near_history;
mod near_plugin;
mod near_rights;
mod near_sentinel;
mod outage;
mod rights;
mod rotation;
mod sentinel;
mod start;
mod strangers;
mod tls;
