//! The pings over a connection with a feed: the answers show that the announcements are complete, and that a node of a
//! cluster still has the slots whose keys it announces.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use redis::{Pipeline, RedisResult, Value};
use tokio::time::Instant;

use crate::near::parts::Parts;
use crate::valkey::connection::client::Caller;
use crate::valkey::connection::connector::{Connection, Connector, Target};
use crate::valkey::error::Redirect;
use crate::valkey::options::Endpoint;
use crate::valkey::server::rights::probe_key;
use crate::valkey::topology::slots::{self, slot_of};

/// The most keys that are tried to find one in a slot of a node. A node with a single slot needs 16,384 on average.
const TRIED_KEYS: u32 = 1 << 18;

/// Pings the server as long as the connection has an open feed, each time after the answer to the last ping. Returns when
/// the connection is lost.
pub(in crate::valkey) async fn keep_complete(connection: &Connection, connector: &Connector) {
    let Some(feed) = &connection.feed else { return std::future::pending().await };
    let mut node = match &connector.target {
        Target::Node(endpoint) => Some(Node { endpoint, prefix: &connector.options.prefix, probe: None, told: None }),
        Target::Server(_) | Target::Primary(_) => None,
    };
    loop {
        if feed.stamp().is_none() {
            return std::future::pending().await;
        }
        let (sent, now) = (feed.tier().now(), Instant::now());
        let caller = connection.client.until(now.checked_add(connector.limits.timeout).unwrap_or(now));
        let answer = match &mut node {
            None => caller.call(&redis::cmd("PING")).await.and_then(Value::extract_error).map(|_pong| ()),
            Some(node) => match node.ask(caller).await {
                Ok(Told { parts, is_news, state }) => {
                    if feed.has_parts(parts) || is_news {
                        // The map of slots may be outdated.
                        connector.on_loss.notify_one();
                    }
                    state
                }
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(()) => {
                connection.timeouts.store(0, Ordering::Relaxed);
                feed.answered(sent);
            }
            Err(error) if error.is_timeout() => {
                if connection.timed_out() {
                    return;
                }
            }
            Err(error) if error.is_unrecoverable_error() => return,
            // The server cannot serve, or wants another login: calls find out which.
            Err(_) => {}
        }
        tokio::time::sleep(feed.ping_interval()).await;
    }
}

// Decision: docs/decisions/0083-a-node-of-a-cluster-is-asked-which-slots-it-has.md
/// The node of a cluster at the other end of a connection.
struct Node<'a> {
    endpoint: &'a Endpoint,
    prefix: &'a str,
    /// A key in one of the node's slots.
    probe: Option<String>,
    /// The slots of all nodes, and their primaries, as this node told at the last answer.
    told: Option<Vec<(u16, u16, Endpoint)>>,
}

/// What a node answered.
struct Told {
    /// Its own slots.
    parts: Parts,
    /// True if slots of any node have another primary than at the answer before. That node itself may not know.
    is_news: bool,
    /// Whether it serves its slots.
    state: RedisResult<()>,
}

impl Node<'_> {
    /// Asks the node which slots it has, and whether it serves them: a primary without contact to the majority of the others
    /// refuses calls of keys after a while, and so does one that was replaced.
    async fn ask(&mut self, mut caller: Caller<'_>) -> RedisResult<Told> {
        let mut questions = Pipeline::with_capacity(2);
        questions.add_command(slots::question());
        self.probe.iter().for_each(|probe| _ = questions.cmd("PTTL").arg(probe));
        questions.ignore_errors();
        let replies: Vec<RedisResult<Value>> = questions.query_async(&mut caller).await?;
        let mut replies = replies.into_iter();
        let ranges = replies.next().transpose()?.unwrap_or(Value::Nil);
        let state = served(replies.next());
        let ranges = slots::read_ranges(ranges, &self.endpoint.host);
        let owned = slots::owned_by(self.endpoint, &ranges);
        let told = ranges.into_iter().map(|range| (range.first, range.last, range.primary)).collect();
        let is_news = self.told.as_ref().is_some_and(|before| *before != told);
        self.told = Some(told);
        if !self.probe.as_ref().is_some_and(|probe| owned.contains(slot_of(probe.as_bytes()))) {
            self.probe = find_probe(self.prefix, &owned);
        }
        // Without a key to ask for, it is unknown whether the node serves its slots.
        Ok(Told { parts: if self.probe.is_some() { owned } else { Parts::none() }, is_news, state })
    }
}

/// What the reply to the probe says. The probe does not exist, so a slot that moves away redirects it with `ASK`, but the node
/// still has the slot.
fn served(reply: Option<RedisResult<Value>>) -> RedisResult<()> {
    match reply {
        Some(Err(error)) if !Redirect::read(&error).is_some_and(|redirect| redirect.is_asking) => Err(error),
        _ => Ok(()),
    }
}

/// A key under the prefix that no plugin can name, in one of these slots.
fn find_probe(prefix: &str, owned: &Parts) -> Option<String> {
    if *owned == Parts::none() {
        return None;
    }
    let mut probe = probe_key(prefix);
    let len = probe.len();
    // With a hash tag in the prefix, all keys are in one slot.
    let tried = if slots::hash_tag(prefix.as_bytes()).is_some() { 1 } else { TRIED_KEYS };
    for number in 0..tried {
        probe.truncate(len);
        write!(probe, "{{{number}}}").ok()?;
        if owned.contains(slot_of(probe.as_bytes())) {
            return Some(probe);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(slots: impl IntoIterator<Item = u16>) -> Parts {
        let mut set = Parts::none();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }

    #[test]
    fn every_node_with_slots_has_a_probe_under_the_prefix() {
        for prefix in ["cache:", "a{b", "{}x", ""] {
            for slot in [0, 7_000, 16_383] {
                let probe = find_probe(prefix, &set([slot])).unwrap();
                assert_eq!(slot_of(probe.as_bytes()), slot, "{probe}");
                assert!(probe.starts_with(prefix), "{probe}");
            }
            assert_eq!(find_probe(prefix, &Parts::none()), None);
        }
    }

    #[test]
    fn only_the_node_of_the_tag_of_a_prefix_has_a_probe() {
        let slot = slot_of(b"{app}:k");
        assert!(find_probe("{app}:", &set([slot])).is_some());
        assert_eq!(find_probe("{app}:", &set((0..16_384).filter(|other| *other != slot))), None);
    }
}
