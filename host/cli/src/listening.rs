//! Why the program cannot listen on an address, and what can be done.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

/// The error for the operator. `option` is the one that sets the address.
pub(crate) fn cannot_listen(addr: SocketAddr, option: &str, error: &Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("; another program uses the port: stop it, or choose another one with `{option}`")
        }
        ErrorKind::PermissionDenied => format!("; choose a port from 1024 on with `{option}`"),
        ErrorKind::AddrNotAvailable => {
            format!("; this machine does not have the address: choose another one with `{option}`")
        }
        _ => String::new(),
    };
    anyhow::anyhow!("cannot listen on {addr}: {error}{advice}")
}
