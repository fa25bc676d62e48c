//! What the nodes of a cluster say about its slots, and who is right if they disagree.
//!
//! A node that was cut off, or has just been started again, knows an old owner of a slot. Each claim to slots has an epoch,
//! and the nodes themselves believe the highest one. So a view has the epochs too.

// Decision: docs/decisions/0112-the-nodes-of-a-cluster-are-asked-together-and-the-highest-epoch-counts.md

use std::collections::HashMap;
use std::time::Duration as StdDuration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Value};

use crate::CacheError;
use crate::valkey::connection::pool::Replies;
use crate::valkey::topology::slots::{self, SLOTS, SlotRange};

/// How long the views of other nodes are waited for after the first: longer than a round trip, and far shorter than a failover
/// takes.
const SLOWER: StdDuration = StdDuration::from_millis(100);

/// What one node says: the ranges, each with the epoch of its primary; 0 if that is not known.
pub(in crate::valkey) type View = Vec<(SlotRange, u64)>;

/// The commands that ask a node for its view.
pub(in crate::valkey) fn questions() -> Vec<Cmd> {
    let mut nodes = redis::cmd("CLUSTER");
    nodes.arg("NODES");
    vec![slots::question(), nodes]
}

/// Reads the replies to [`questions`] of the node at `host`. Without the right to `CLUSTER NODES` the epochs are not known.
///
/// # Errors
///
/// The error of the first reply, or [`CacheError::Unavailable`] if the node reports no slots.
pub(in crate::valkey) fn read(replies: Replies, host: &str) -> Result<View, CacheError> {
    let mut replies = replies.into_iter();
    let ranges = slots::read_ranges(replies.next().transpose()?.unwrap_or(Value::Nil), host);
    if ranges.is_empty() {
        return Err(CacheError::Unavailable("a node of the cluster reports no slots".to_owned()));
    }
    let nodes = replies.next().and_then(Result::ok).and_then(|nodes| redis::from_redis_value::<String>(nodes).ok());
    let epochs = nodes.as_deref().map(read_epochs).unwrap_or_default();
    let with_epoch = |range: SlotRange| {
        let epoch = epochs.get(range.id.as_str()).copied().unwrap_or(0);
        (range, epoch)
    };
    Ok(ranges.into_iter().map(with_epoch).collect())
}

/// The epoch of each node, by its id, from the reply to `CLUSTER NODES`.
fn read_epochs(nodes: &str) -> HashMap<&str, u64> {
    let lines = nodes.lines().map(|line| line.split(' '));
    lines.filter_map(|mut words| Some((words.next()?, words.nth(5)?.parse().ok()?))).collect()
}

/// The views of the nodes that answer, the first one first. Waits for others only as long as [`SLOWER`].
///
/// # Errors
///
/// The last error, if no node answers.
pub(in crate::valkey) async fn gather<F>(asked: impl IntoIterator<Item = F>) -> Result<Vec<View>, CacheError>
where
    F: Future<Output = Result<View, CacheError>>,
{
    let mut asked: FuturesUnordered<F> = asked.into_iter().collect();
    let mut failed = CacheError::Unavailable("no node of the cluster is configured".to_owned());
    let mut views = loop {
        match asked.next().await {
            Some(Ok(first)) => break vec![first],
            Some(Err(error)) => failed = error,
            None => return Err(failed),
        }
    };
    let others = async {
        while let Some(view) = asked.next().await {
            views.extend(view);
        }
    };
    let _some_are_late = tokio::time::timeout(SLOWER, others).await;
    Ok(views)
}

/// The ranges in which each slot has the node whose claim has the highest epoch. Of equal epochs the first view counts.
pub(in crate::valkey) fn newest(mut views: Vec<View>) -> Vec<SlotRange> {
    views.dedup();
    if views.len() < 2 {
        return views.pop().into_iter().flatten().map(|(range, _)| range).collect();
    }
    let mut claims: Vec<Option<&(SlotRange, u64)>> = vec![None; usize::from(SLOTS)];
    for claim in views.iter().flatten() {
        let slots = usize::from(claim.0.first)..=usize::from(claim.0.last);
        for known in claims.get_mut(slots).into_iter().flatten() {
            if known.is_none_or(|known| known.1 < claim.1) {
                *known = Some(claim);
            }
        }
    }
    let mut ranges: Vec<SlotRange> = Vec::new();
    for (slot, (claim, _)) in (0..SLOTS).zip(claims).filter_map(|(slot, claim)| Some((slot, claim?))) {
        match ranges.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(slot) && last.has_nodes_of(claim) => last.last = slot,
            _ => ranges.push(SlotRange { first: slot, last: slot, ..claim.clone() }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::valkey::options::Endpoint;

    fn range(first: u16, last: u16, node: &str) -> SlotRange {
        let primary = Endpoint { host: node.to_owned(), port: 1 };
        SlotRange { first, last, primary, id: node.to_owned(), replicas: Vec::new() }
    }

    fn view(claims: &[(u16, u16, &str, u64)]) -> View {
        claims.iter().map(|(first, last, node, epoch)| (range(*first, *last, node), *epoch)).collect()
    }

    #[test]
    fn the_highest_epoch_of_each_slot_counts_whoever_answers_first() {
        let outdated = view(&[(0, 99, "a", 1), (100, 16383, "b", 2)]);
        let newer = view(&[(0, 49, "a", 1), (50, 99, "c", 7), (100, 16383, "b", 2)]);
        let expected = [range(0, 49, "a"), range(50, 99, "c"), range(100, 16383, "b")];
        assert_eq!(newest(vec![outdated.clone(), newer.clone()]), expected);
        assert_eq!(newest(vec![newer.clone(), outdated]), expected);
        assert_eq!(newest(vec![newer.clone(), newer]), expected);
    }

    /// Each has learned of another change.
    #[test]
    fn two_views_may_be_newer_in_one_slot_each() {
        let one = view(&[(0, 9, "c", 7), (10, 19, "b", 2)]);
        let other = view(&[(0, 9, "a", 1), (10, 19, "d", 8)]);
        assert_eq!(newest(vec![one, other]), [range(0, 9, "c"), range(10, 19, "d")]);
    }

    #[test]
    fn a_slot_that_one_view_leaves_out_has_the_node_of_the_other() {
        let views = vec![view(&[(0, 9, "a", 3)]), view(&[(0, 19, "a", 3)])];
        assert_eq!(newest(views), [range(0, 19, "a")]);
        assert!(newest(Vec::new()).is_empty());
    }

    #[test]
    fn without_epochs_the_first_view_counts() {
        let views = vec![view(&[(0, 9, "a", 0)]), view(&[(0, 9, "b", 0)])];
        assert_eq!(newest(views), [range(0, 9, "a")]);
    }

    #[test]
    fn epochs_are_read_from_the_lines_of_all_nodes() {
        let nodes = "a 127.0.0.1:1@2,name master - 0 0 7 connected 0-5 [7->-b]\n\
                     b 127.0.0.1:3@4 myself,slave a 0 0 12 connected\nbroken line\n";
        assert_eq!(read_epochs(nodes), HashMap::from([("a", 7), ("b", 12)]));
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_waited_for_after_the_first_but_not_for_long() {
        let answer = |after: u64, node: &'static str| async move {
            tokio::time::sleep(StdDuration::from_millis(after)).await;
            if node.is_empty() { Err(CacheError::Unavailable("away".to_owned())) } else { Ok(view(&[(0, 1, node, 1)])) }
        };
        let asked = [answer(5, ""), answer(20, "b"), answer(10, "a"), answer(5_000, "c")];
        let views = gather(asked).await.unwrap();
        assert_eq!(views, [view(&[(0, 1, "a", 1)]), view(&[(0, 1, "b", 1)])]);
        assert!(gather([answer(5, ""), answer(6, "")]).await.is_err());
    }
}
