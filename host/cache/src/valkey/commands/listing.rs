//! Pages of the keys of a cache: `SCAN` on one server after the other.
//!
//! A cursor has the cursor of the server and, in a cluster, the number of its node and a check of the slot map. A node
//! that is replaced does not know the cursors of its predecessor.

// Decision: docs/decisions/0093-a-cursor-of-a-cluster-has-the-number-of-its-node.md

use redis::{Cmd, Value};

use crate::backend::{KeyPage, ListCursor};
use crate::valkey::commands::clearing::page as scan_page;
use crate::valkey::commands::reads::head;
use crate::valkey::connection::managed::Exchange;
use crate::valkey::topology::Servers;
use crate::{CacheError, Lease, Selection};

/// The bits of a cursor: the server's cursor in the low ones, then the number of the node, then the check. The cursor of a
/// server is below the size of its hash table, with 14 more bits for the slot in a cluster.
const SERVER_BITS: u32 = 46;
const NODE_BITS: u32 = 10;
const CHECK_BITS: u32 = 8;

/// The number of `SCAN`s that one page may take while they find nothing. Each visits up to 1,000 keys.
const SCANS_OF_ONE_PAGE: u32 = 16;

/// A cursor in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Position {
    /// The cursor of the server; 0 at its beginning.
    server: u64,
    /// The number of the node in the order of slots; 0 for a single server.
    node: usize,
}

fn low(bits: u32) -> u64 {
    1_u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1)
}

/// The bits of a number from `from` on.
fn part(number: u64, from: u32, bits: u32) -> u64 {
    number.checked_shr(from).unwrap_or(0) & low(bits)
}

fn changed() -> CacheError {
    CacheError::InvalidArgument("cursor: the servers have changed since: list the keys from the start".to_owned())
}

impl Position {
    /// The position at a cursor, if the slot map has this check.
    fn read(cursor: Option<ListCursor>, check: u8) -> Result<Self, CacheError> {
        let Some(number) = cursor.map(ListCursor::number) else { return Ok(Self::default()) };
        if part(number, SERVER_BITS.saturating_add(NODE_BITS), CHECK_BITS) != u64::from(check) {
            return Err(changed());
        }
        let node = usize::try_from(part(number, SERVER_BITS, NODE_BITS)).map_err(|_| changed())?;
        Ok(Self { server: part(number, 0, SERVER_BITS), node })
    }

    /// The cursor of this position.
    fn cursor(self, check: u8) -> Result<Option<ListCursor>, CacheError> {
        let node = u64::try_from(self.node).unwrap_or(u64::MAX);
        if self.server > low(SERVER_BITS) || node > low(NODE_BITS) {
            return Err(CacheError::Refused("the cursor of the server is too large".to_owned()));
        }
        let shifted = |number: u64, by| number.checked_shl(by).unwrap_or(0);
        let check = shifted(u64::from(check), SERVER_BITS.saturating_add(NODE_BITS));
        Ok(ListCursor::new(self.server | shifted(node, SERVER_BITS) | check))
    }
}

/// The page of the selected keys under the prefix that begins at a cursor.
pub(in crate::valkey) async fn page(
    servers: &Servers,
    prefix: &str,
    selection: &Selection,
    cursor: Option<ListCursor>,
    max_keys: usize,
) -> Result<KeyPage, CacheError> {
    let glob = selection.server_glob(prefix);
    let (pools, check) = servers.list_primaries()?;
    let mut position = Position::read(cursor, check)?;
    for _ in 0..SCANS_OF_ONE_PAGE {
        let pool = pools.get(position.node).ok_or_else(changed)?;
        let max_keys = u64::try_from(max_keys).unwrap_or(u64::MAX);
        let (next, found) = scan_page(pool, &glob, position.server, max_keys).await?;
        position = match next {
            0 => Position { server: 0, node: position.node.saturating_add(1) },
            server => Position { server, ..position },
        };
        let keys = with_values(servers, prefix, selection, found).await?;
        let is_last = position.node >= pools.len();
        if !keys.is_empty() || is_last {
            return Ok(KeyPage { keys, next: if is_last { None } else { position.cursor(check)? } });
        }
    }
    Ok(KeyPage { keys: Vec::new(), next: position.cursor(check)? })
}

/// The names of those of the keys that are selected and hold a value.
async fn with_values(
    servers: &Servers,
    prefix: &str,
    selection: &Selection,
    found: Vec<Vec<u8>>,
) -> Result<Vec<String>, CacheError> {
    let name = |key: &[u8]| Some(selection.name_from_server(key.get(prefix.len()..)?)?.to_owned());
    let (names, keys): (Vec<String>, Vec<Vec<u8>>) =
        found.into_iter().filter_map(|key| Some((name(&key)?, key))).unzip();
    if keys.is_empty() {
        return Ok(names);
    }
    let replies = servers.bulk_batch(&keys, heads).await?;
    let mut heads = replies.into_iter().flatten();
    let mut with_values = Vec::with_capacity(names.len());
    for name in names {
        match heads.next() {
            // `GETRANGE` refuses a key of another type, which is no value.
            Some(Err(CacheError::WrongType)) => {}
            Some(Ok(Value::BulkString(head))) if head == Lease::MARK => {}
            Some(Ok(_)) => with_values.push(name),
            Some(Err(error)) => return Err(error),
            None => return Err(CacheError::Refused("missing reply to GETRANGE".to_owned())),
        }
    }
    Ok(with_values)
}

/// The commands that show whether keys hold leases, without reading their values.
fn heads(_exchange: &Exchange, keys: &[Vec<u8>]) -> Vec<Cmd> {
    keys.iter().map(|key| head(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_the_parts_that_it_was_made_of() {
        for position in [
            Position { server: 1, node: 0 },
            Position { server: 0, node: 1 },
            Position { server: low(SERVER_BITS), node: 1023 },
        ] {
            for check in [0, 1, 255] {
                let cursor = position.cursor(check).unwrap();
                assert_eq!(Position::read(cursor, check).unwrap(), position);
                assert!(matches!(Position::read(cursor, check ^ 1), Err(CacheError::InvalidArgument(_))));
            }
        }
        assert_eq!(Position::read(None, 7).unwrap(), Position::default());
    }

    #[test]
    fn a_cursor_that_does_not_fit_is_an_error() {
        assert!(Position { server: low(SERVER_BITS) + 1, node: 0 }.cursor(0).is_err());
        assert!(Position { server: 1, node: 1024 }.cursor(0).is_err());
    }
}
