//! Ports for servers that no other test process uses, also while a server is away.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The ports of the tests. They are below the ephemeral ports that the system assigns to clients. In that range, a client
/// that reconnects to a stopped server could be assigned the server's port and connect to itself, and the server could not
/// restart on it.
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 40;
const BLOCK: u16 = 500;

/// The ports that this process has not returned yet, and the locks of its blocks.
static OWN: Mutex<Own> = Mutex::new(Own { left: 0..0, locks: Vec::new() });

struct Own {
    left: Range<u16>,
    locks: Vec<File>,
}

/// Returns a port that is free, and that is not returned again, here or in another process, while this process runs.
///
/// # Panics
///
/// If the test processes of this machine have used up all 20,000 ports.
pub fn free_port() -> u16 {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        for port in own.left.by_ref() {
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return port;
            }
        }
        let folder = std::env::temp_dir();
        let (lock, ports) =
            (0..BLOCKS).find_map(|block| lock_block(&folder, block)).expect("all ports of the tests are in use");
        own.locks.push(lock);
        own.left = ports;
    }
}

/// Takes a block of ports for this process. The system releases it when the process ends. `None` if it is in use.
fn lock_block(folder: &Path, block: u16) -> Option<(File, Range<u16>)> {
    let path = folder.join(format!("larder-test-ports-{block}"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    file.try_lock().ok()?;
    let first = FIRST.checked_add(block.checked_mul(BLOCK)?)?;
    Some((file, first..first.checked_add(BLOCK)?))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_block_of_ports_is_that_of_one_holder() {
        let folder = TempDir::new().unwrap();
        let (lock, ports) = lock_block(folder.path(), 1).unwrap();
        assert_eq!(ports, 12_500..13_000);
        assert!(lock_block(folder.path(), 1).is_none());
        drop(lock);
        assert!(lock_block(folder.path(), 1).is_some());
    }
}
