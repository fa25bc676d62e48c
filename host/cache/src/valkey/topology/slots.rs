//! The slots of a cluster: the slot of a key, and the nodes of a slot.
//!
//! The cluster specification of Redis and Valkey defines the slot of a key as the CRC16 (XMODEM) of its hash tag modulo
//! 16384. The hash tag is the text between the first `{` and the next `}`, or the whole key if that is empty or
//! missing.

use crc::{CRC_16_XMODEM, Crc};
use redis::{Cmd, Value};

use crate::near::parts::Parts;
use crate::valkey::options::Endpoint;

/// The number of slots of a cluster.
pub(in crate::valkey) const SLOTS: u16 = 16384;

const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key, given as it is stored on the server.
pub(in crate::valkey) fn slot_of(key: &[u8]) -> u16 {
    CRC16.checksum(hash_tag(key).unwrap_or(key)) % SLOTS
}

/// The hash tag of a key, if it has one.
pub(in crate::valkey) fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let inside = key.get(open.saturating_add(1)..)?;
    let close = inside.iter().position(|&byte| byte == b'}')?;
    inside.get(..close).filter(|tag| !tag.is_empty())
}

/// The slots from the first to the last, and their nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::valkey) struct SlotRange {
    pub(in crate::valkey) first: u16,
    pub(in crate::valkey) last: u16,
    pub(in crate::valkey) primary: Endpoint,
    /// The name of the primary among the nodes.
    pub(in crate::valkey) id: String,
    pub(in crate::valkey) replicas: Vec<Endpoint>,
}

impl SlotRange {
    /// True if the slots of the other range have the same nodes.
    pub(in crate::valkey) fn has_nodes_of(&self, other: &Self) -> bool {
        self.primary == other.primary && self.replicas == other.replicas
    }
}

/// The command that asks a node for the slots of all nodes.
pub(in crate::valkey) fn question() -> Cmd {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

/// The slots of one primary.
pub(in crate::valkey) fn owned_by(node: &Endpoint, ranges: &[SlotRange]) -> Parts {
    let mut owned = Parts::none();
    let own = ranges.iter().filter(|range| range.primary == *node);
    own.flat_map(|range| range.first..=range.last).for_each(|slot| owned.insert(slot));
    owned
}

/// A number that differs, with a probability of 255 in 256, if the primaries of some slots differ.
pub(in crate::valkey) fn check(ranges: &[SlotRange]) -> u8 {
    let mut digest = CRC16.digest();
    for SlotRange { first, last, primary, .. } in ranges {
        digest.update(format!("{first}-{last} {primary},").as_bytes());
    }
    u8::try_from(digest.finalize() & 0xff).unwrap_or(0)
}

/// Reads the reply to `CLUSTER SLOTS` of the node at the host `asked`, ordered by slot. Omits ranges that it cannot
/// read, so that their slots have no node.
pub(in crate::valkey) fn read_ranges(reply: Value, asked: &str) -> Vec<SlotRange> {
    let Value::Array(ranges) = reply else { return Vec::new() };
    let mut ranges: Vec<SlotRange> = ranges.into_iter().filter_map(|range| read_range(range, asked)).collect();
    ranges.sort();
    ranges
}

fn read_range(range: Value, asked: &str) -> Option<SlotRange> {
    let Value::Array(parts) = range else { return None };
    let mut parts = parts.into_iter();
    let mut slot = || match parts.next() {
        Some(Value::Int(slot)) => u16::try_from(slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    };
    let (first, last) = (slot()?, slot()?);
    let primary = parts.next()?;
    let id = read_id(&primary).unwrap_or_default();
    let primary = read_node(primary, asked)?;
    let replicas = parts.filter_map(|node| read_node(node, asked)).collect();
    Some(SlotRange { first, last, primary, id, replicas })
}

fn read_id(node: &Value) -> Option<String> {
    let Value::Array(parts) = node else { return None };
    match parts.get(2)? {
        Value::BulkString(id) => String::from_utf8(id.clone()).ok(),
        _ => None,
    }
}

fn read_node(node: Value, asked: &str) -> Option<Endpoint> {
    let Value::Array(parts) = node else { return None };
    let (host, port) = match parts.get(..2)? {
        // A node that does not know its own host reports null, which means the host that was asked.
        [Value::Nil, Value::Int(port)] => (asked.to_owned(), port),
        [Value::BulkString(host), Value::Int(port)] => (String::from_utf8(host.clone()).ok()?, port),
        [Value::SimpleString(host), Value::Int(port)] => (host.clone(), port),
        _ => return None,
    };
    let host = if host.is_empty() { asked.to_owned() } else { host };
    let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
    // A node reports `?` for a host that it does not know yet.
    (host != "?").then_some(Endpoint { host, port })
}

/// Reads the target of a redirect, `host:port`. An empty host means the host `asked`.
pub(in crate::valkey) fn read_redirect(text: &str, asked: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let host = if host.is_empty() { asked } else { host.trim_start_matches('[').trim_end_matches(']') };
    Some(Endpoint { host: host.to_owned(), port: port.parse().ok()? })
}

/// The slots that a node migrates or imports, from its own line in the reply to `CLUSTER NODES`.
pub(in crate::valkey) fn read_moving(nodes: &str) -> Vec<String> {
    let own = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")));
    own.into_iter()
        .flat_map(|line| line.split(' ').skip(8))
        .filter(|slot| slot.starts_with('['))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, and the replies of Valkey 8.0.1 to `CLUSTER KEYSLOT`.
    #[test]
    fn the_slot_of_a_key_is_the_one_that_servers_compute() {
        assert_eq!(CRC16.checksum(b"123456789"), 0x31c3);
        for (key, slot) in [("", 0), ("foo", 12182), ("{user1000}.following", 3443), ("user1000", 3443)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn an_empty_hash_tag_is_ignored() {
        let same = |a: &str, b: &str| assert_eq!(slot_of(a.as_bytes()), slot_of(b.as_bytes()), "{a} {b}");
        same("x{tag}y", "tag");
        same("x{a{b}c}", "a{b");
        same("x{a}{b}", "a");
        for whole in ["foo{}{bar}", "{}x", "{", "}{", "a{b", "a}b{c"] {
            assert_eq!(hash_tag(whole.as_bytes()), None, "{whole}");
        }
    }

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString("id".into())])
    }

    #[test]
    fn ranges_are_read_in_the_order_of_slots_and_a_null_host_is_the_one_asked() {
        let range =
            |first, last, nodes: Vec<Value>| Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat());
        let unnamed = Value::Array(vec![Value::Nil, Value::Int(3), Value::BulkString("id".into())]);
        let reply = Value::Array(vec![
            range(100, 16383, vec![node("b", 2), node("c", 4)]),
            range(0, 98, vec![unnamed]),
            range(99, 99, vec![node("?", 5)]),
            range(0, 16384, vec![node("d", 5)]),
            Value::Nil,
        ]);
        let node = |host: &str, port| Endpoint { host: host.to_owned(), port };
        assert_eq!(
            read_ranges(reply, "a"),
            [
                SlotRange { first: 0, last: 98, primary: node("a", 3), id: "id".to_owned(), replicas: vec![] },
                SlotRange {
                    first: 100,
                    last: 16383,
                    primary: node("b", 2),
                    id: "id".to_owned(),
                    replicas: vec![node("c", 4)]
                },
            ]
        );
    }

    #[test]
    fn a_redirect_without_a_host_means_the_host_asked() {
        let read = |text| read_redirect(text, "asked").map(|node| node.to_string());
        assert_eq!(read("127.0.0.1:7000").as_deref(), Some("127.0.0.1:7000"));
        assert_eq!(read(":7000").as_deref(), Some("asked:7000"));
        assert_eq!(read("::1:7000").as_deref(), Some("[::1]:7000"));
        assert_eq!(read("nowhere"), None);
    }

    #[test]
    fn moving_slots_are_read_from_the_own_line_of_a_node() {
        let nodes = "a 127.0.0.1:1@2 master - 0 0 1 connected 0-5 [7->-b]\n\
                     b 127.0.0.1:3@4 myself,master - 0 0 2 connected 6-9 [93-<-a] [77->-a]\n";
        assert_eq!(read_moving(nodes), ["[93-<-a]", "[77->-a]"]);
        assert_eq!(read_moving(""), [""; 0]);
    }
}
