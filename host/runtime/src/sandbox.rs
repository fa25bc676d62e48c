//! The limits of one plugin instance: memory, processor time, output and disk.

mod dir_quota;
mod file_writer;
mod files;
#[cfg(feature = "serve")]
mod leftovers;
mod output;
mod shares;
mod turns;
mod weight;

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use crate::config::Loading;

pub(crate) use dir_quota::{ChargedBlock, DirQuota, NEW_FILE};
pub(crate) use file_writer::FileWriter;
pub(crate) use files::{FileCall, FileInput, FileOutput, Files, Listing, OpenStream};
#[cfg(feature = "serve")]
pub(crate) use leftovers::{Room, has_open_message};
pub(crate) use output::{Output, OutputLimit};
pub(crate) use shares::Shares;
pub(crate) use turns::{Turn, Turns};
pub(crate) use weight::weight;
#[cfg(feature = "serve")]
pub(crate) use weight::{MAX_AUTHORITY, MAX_HEAD, MESSAGE};

/// Limits the memory of one instance: its linear memories and the elements of its tables together.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    max: u64,
    used: u64,
    table_elements: usize,
    /// The numbers of core instances, memories and tables, which are also checked when the plugin is loaded.
    counts: Loading,
    /// True once the plugin has requested more.
    pub(crate) is_exceeded: bool,
}

/// The maximum number of elements in all tables: far above what compilers generate, and small compared to the memory.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;

/// The memory of one element of a table, a pointer, in bytes.
const TABLE_ELEMENT: usize = 8;

impl MemoryLimit {
    pub(crate) fn new(max: u64, counts: Loading) -> Self {
        Self { max, used: 0, table_elements: 0, counts, is_exceeded: false }
    }

    /// Records that the host would have to hold more for the instance than its share. Returns the trap.
    pub(crate) fn exceed(&mut self, reason: String) -> wasmtime::Error {
        self.is_exceeded = true;
        wasmtime::Error::msg(reason)
    }

    /// The bytes that may still be taken.
    #[cfg(feature = "serve")]
    pub(crate) fn left(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }

    /// Counts a growth by this many bytes, if there is room for it.
    fn grow(&mut self, bytes: usize) -> bool {
        let wanted = self.used.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if wanted > self.max {
            self.is_exceeded = true;
            return false;
        }
        self.used = wanted;
        true
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        let growth = desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT);
        if wanted > MAX_TABLE_ELEMENTS || !self.grow(growth) {
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.counts.max_core_instances
    }

    fn tables(&self) -> usize {
        self.counts.max_tables
    }

    fn memories(&self) -> usize {
        self.counts.max_memories
    }
}

// Decision: docs/decisions/0027-processor-time-is-the-time-spent-polling-the-plugin.md
/// Runs the future to completion, and polls it only in turn. Returns `None` if polling it has taken longer than `max` in
/// total.
///
/// A plugin yields every few milliseconds, so a plugin that computes without end is stopped soon after. Waiting is not
/// counted, because a waiting future is not polled.
pub(crate) async fn within_cpu_time<F: Future>(max: Duration, mut turn: Turn, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut used = Duration::ZERO;
    std::future::poll_fn(|context| {
        std::task::ready!(turn.poll_begin(context));
        let started = Instant::now();
        let polled = future.as_mut().poll(context);
        let elapsed = started.elapsed();
        used = used.saturating_add(elapsed);
        turn.end(context, elapsed, polled.is_pending());
        match polled {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if used > max => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        Turns::new(1).turn(&"plugin".into())
    }

    #[test]
    fn all_memories_of_an_instance_share_one_limit() {
        let mut limit = MemoryLimit::new(100, Loading::default());
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(!limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.is_exceeded);
        assert!(limit.memory_growing(0, 40, None).unwrap());
        assert!(!limit.memory_growing(60, usize::MAX, None).unwrap());
    }

    #[test]
    fn the_elements_of_tables_count_as_memory() {
        let mut limit = MemoryLimit::new(100, Loading::default());
        assert!(limit.table_growing(0, 10, None).unwrap());
        assert!(limit.memory_growing(0, 20, None).unwrap());
        assert!(!limit.table_growing(10, 11, None).unwrap());
        assert!(limit.is_exceeded);
    }

    #[tokio::test]
    async fn waiting_does_not_count_as_cpu_time() {
        let wait = tokio::time::sleep(Duration::from_millis(50));
        assert_eq!(within_cpu_time(Duration::from_millis(20), turn(), wait).await, Some(()));
    }

    #[tokio::test]
    async fn the_time_of_all_polls_is_added_up() {
        let spin = async {
            loop {
                std::thread::sleep(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(within_cpu_time::<_>(Duration::from_millis(20), turn(), spin).await, None::<()>);
    }
}
