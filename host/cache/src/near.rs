//! The near tier: the memory of this process in front of a server, kept coherent by the server's announcements.
//!
//! The protocol, and why each promise holds, is in `docs/near.md`.

pub(crate) mod backend;
pub(crate) mod feeds;
#[cfg(test)]
mod model;
mod options;
pub(crate) mod parts;
#[cfg(test)]
mod tests;
pub(crate) mod tier;

pub use options::NearOptions;
