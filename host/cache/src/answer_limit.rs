//! The limit on the bytes of the answers that the host holds for the concurrent calls of one plugin instance.
//!
//! A reply is received whether or not the instance takes it. So a call reserves the most that its answer can have before it is
//! sent, and keeps what the answer does have until the plugin's memory has it.

// Decision: docs/decisions/0106-a-concurrent-call-reserves-room-for-its-answer.md

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes of one permit. Reservations are rounded up to whole permits.
const PERMIT: usize = 1 << 10;

/// Limits the bytes of the answers that the host holds for the calls of one plugin instance. A call without room waits for
/// it, in the order in which calls ask.
#[derive(Debug)]
pub struct AnswerLimit {
    room: Arc<Semaphore>,
    /// The number of all permits of `room`.
    permits: u32,
    /// The right to clear by pattern: pages of keys are received, whose number no answer shows.
    clears: Semaphore,
}

/// Room for an answer. Dropping it gives the room back.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Option<OwnedSemaphorePermit>);

/// A value with the room that it takes.
struct Held {
    value: Bytes,
    _room: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

impl AnswerLimit {
    /// A limit of `max_bytes`, which are rounded up to KiB. The answer of a call alone may have more.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let permits = u32::try_from(max_bytes.div_ceil(PERMIT)).unwrap_or(u32::MAX).clamp(1, most);
        let room = Semaphore::new(usize::try_from(permits).unwrap_or(usize::MAX));
        Arc::new(Self { room: Arc::new(room), permits, clears: Semaphore::new(1) })
    }

    /// Waits for room for an answer of at most `bytes`.
    pub(crate) async fn reserve(&self, bytes: usize) -> Reserved {
        // An error would mean that the semaphore was closed, which none is.
        Reserved(Arc::clone(&self.room).acquire_many_owned(self.permits_of(bytes)).await.ok())
    }

    /// The value with its room, or `None` if there is none now.
    pub(crate) fn try_hold(&self, value: &Bytes) -> Option<Bytes> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.permits_of(value.len())).ok()?;
        Some(held(value.clone(), Arc::new(room)))
    }

    /// Waits until no other clear by pattern runs.
    pub(crate) async fn begin_clear(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.clears.acquire().await.ok()
    }

    /// The permits of this number of bytes, and not more than there are: a call alone always has room.
    fn permits_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(PERMIT)).unwrap_or(u32::MAX).min(self.permits)
    }
}

impl Reserved {
    /// The value, which keeps as much of the room as it has bytes. The rest is given back.
    pub(crate) fn hold(self, value: Bytes) -> Bytes {
        self.hold_many(vec![Some(value)]).pop().flatten().unwrap_or_default()
    }

    /// As [`Reserved::hold`], of many values. The room is given back with the last one.
    pub(crate) fn hold_many(self, values: Vec<Option<Bytes>>) -> Vec<Option<Bytes>> {
        let Self(Some(mut room)) = self else { return values };
        let len = values.iter().flatten().map(Bytes::len).fold(0, usize::saturating_add);
        let spare = room.num_permits().saturating_sub(len.div_ceil(PERMIT));
        drop(room.split(spare));
        let room = Arc::new(room);
        values.into_iter().map(|value| Some(held(value?, Arc::clone(&room)))).collect()
    }
}

fn held(value: Bytes, room: Arc<OwnedSemaphorePermit>) -> Bytes {
    Bytes::from_owner(Held { value, _room: room })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn free(limit: &AnswerLimit) -> usize {
        limit.room.available_permits()
    }

    #[tokio::test]
    async fn an_answer_keeps_the_room_that_it_takes_until_it_is_dropped() {
        let limit = AnswerLimit::new(16 << 10);
        let reserved = limit.reserve(8 << 10).await;
        assert_eq!(free(&limit), 8);
        let value = reserved.hold(Bytes::from(vec![1; 1025]));
        assert_eq!((free(&limit), value.len()), (14, 1025));
        let part = value.slice(..3);
        drop(value);
        assert_eq!(free(&limit), 14);
        drop(part);
        assert_eq!(free(&limit), 16);
        drop(limit.reserve(1).await);
        assert_eq!(free(&limit), 16, "an answer without a value");
    }

    #[tokio::test]
    async fn the_values_of_a_batch_keep_their_room_together() {
        let limit = AnswerLimit::new(16 << 10);
        let values = limit.reserve(16 << 10).await.hold_many(vec![Some("a".into()), None, Some("b".into())]);
        assert_eq!(free(&limit), 15);
        assert_eq!(values, [Some("a".into()), None, Some("b".into())]);
        drop(values);
        assert_eq!(free(&limit), 16);
    }

    #[tokio::test]
    async fn calls_wait_for_room_in_their_order_and_one_alone_always_has_it() {
        let limit = AnswerLimit::new(4 << 10);
        let first = limit.reserve(1 << 30).await;
        assert_eq!(free(&limit), 0);
        let mut large = Box::pin(limit.reserve(1 << 30));
        let mut small = Box::pin(limit.reserve(1));
        assert!((&mut large).now_or_never().is_none() && (&mut small).now_or_never().is_none());
        drop(first);
        assert!((&mut small).now_or_never().is_none(), "the large one was first");
        // A call that is cancelled leaves its place to the next one.
        drop(large);
        drop(small.await);
        assert_eq!(free(&limit), 4);
    }

    #[test]
    fn a_value_that_is_delivered_takes_room_or_is_not_held() {
        let limit = AnswerLimit::new(2 << 10);
        let value = Bytes::from(vec![1; 2000]);
        let held = limit.try_hold(&value).unwrap();
        assert_eq!((free(&limit), &held), (0, &value));
        assert!(limit.try_hold(&value).is_none());
        drop(held);
        assert!(limit.try_hold(&value).is_some());
    }

    #[test]
    fn any_limit_is_within_what_can_be_counted() {
        for max in [0, 1, usize::MAX] {
            let limit = AnswerLimit::new(max);
            assert!(limit.try_hold(&Bytes::from_static(b"x")).is_some(), "{max}");
        }
    }
}
