//! The queues, without their threads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Batch, Origin, Queue, Work};
use super::{Backlog, Stream};

/// A queue that no thread writes.
fn queue(max: u64) -> &'static Queue {
    let queue = Box::leak(Box::new(Queue::new(Stream::Stdout)));
    queue.set_max(max);
    queue.without_thread();
    queue
}

fn plugin(name: &str) -> Origin {
    Origin::Plugin(name.into())
}

/// Takes the next batch as the writer does.
fn take(queue: &Queue) -> (Batch, Vec<u8>) {
    let mut buffer = Vec::new();
    match queue.next(&mut buffer) {
        Work::Write(batch) => (batch, buffer),
        Work::Report(lost) => panic!("{lost:?}"),
    }
}

/// Writes everything that is queued.
fn write(queue: &Queue) -> String {
    let mut text = Vec::new();
    while !queue.is_empty() {
        let mut buffer = Vec::new();
        if let Work::Write(batch) = queue.next(&mut buffer) {
            queue.complete(batch, &buffer, buffer.len(), None);
            text.extend(buffer);
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_plugin_that_floods_the_queue_keeps_out_neither_other_plugins_nor_the_log() {
    let queue = queue(100_000);
    for name in ["a", "b", "c", "d"] {
        for _ in 0..1000 {
            queue.offer(plugin(name), format!("{name}\n").repeat(100).into_bytes());
        }
    }
    queue.offer(plugin("quiet"), b"quiet\n".to_vec());
    for _ in 0..1000 {
        queue.offer(Origin::Host, b"log log log log log\n".to_vec());
    }
    let text = write(queue);
    let count = |line: &str| text.matches(line).count();
    assert_eq!(count("quiet\n"), 1);
    // The first may take half of the three quarters that plugins may fill, and the next one half of what is left.
    assert!(count("a\n") > 10_000 && count("b\n") > 5_000 && count("d\n") > 1_000, "{}", count("d\n"));
    assert!(count("log\n") >= 290, "{}", count("log\n"));
    assert!(text.len() <= 100_000);
}

#[test]
fn what_is_lost_is_reported_by_plugin_once_there_is_room() {
    let queue = queue(1000);
    queue.offer(plugin("a"), vec![b'\n'; 200]);
    queue.offer(plugin("a"), vec![b'\n'; 200]);
    queue.offer(plugin("b"), vec![b'\n'; 2000]);
    queue.offer(Origin::Host, vec![b'\n'; 2000]);
    let mut buffer = Vec::new();
    let Work::Report(lost) = queue.next(&mut buffer) else { panic!() };
    let bytes: Vec<(&str, u64)> = lost.bytes.iter().map(|(name, bytes)| (&**name, *bytes)).collect();
    assert_eq!((bytes, lost.lines, lost.error), (vec![("a", 200), ("b", 2000)], 1, None));
    assert_eq!(write(queue).len(), 200);
}

#[test]
fn a_failed_write_is_reported_once_and_the_next_one_begins_a_new_line() {
    let queue = queue(1 << 20);
    queue.offer(plugin("a"), b"first\n".to_vec());
    let (batch, buffer) = take(queue);
    queue.complete(batch, &buffer, 3, Some(&io::ErrorKind::StorageFull.into()));
    let Work::Report(lost) = queue.next(&mut Vec::new()) else { panic!() };
    assert_eq!(lost.error.as_deref(), Some("no storage space"));
    queue.offer(plugin("a"), b"second\n".to_vec());
    let (batch, buffer) = take(queue);
    assert_eq!(buffer, b"\nsecond\n");
    queue.complete(batch, &buffer, 0, Some(&io::ErrorKind::StorageFull.into()));
    queue.offer(plugin("a"), b"third\n".to_vec());
    assert_eq!(write(queue), "\nthird\n");
}

#[tokio::test]
async fn a_run_waits_for_room_and_loses_nothing() {
    let (queue, backlog) = (queue(1000), Arc::new(Backlog::default()));
    queue.push(&backlog, vec![b'x'; Backlog::MAX]);
    assert_eq!(backlog.room(false).unwrap(), 0);
    let waiting = tokio::time::timeout(Duration::from_millis(1), backlog.ready(false));
    assert!(waiting.await.is_err());
    let written = tokio::spawn({
        let backlog = Arc::clone(&backlog);
        async move { backlog.written().await }
    });
    tokio::task::yield_now().await;
    // The limit is that of the other lines, and the run does not use it.
    queue.offer(Origin::Host, b"log\n".to_vec());
    assert_eq!(write(queue).len(), Backlog::MAX + 4);
    written.await.unwrap().unwrap();
    assert_eq!(backlog.room(false).unwrap(), Backlog::MAX);
}

#[test]
fn a_run_learns_of_a_full_disk_once_and_of_a_closed_pipe_for_good() {
    let (queue, backlog) = (queue(1000), Arc::new(Backlog::default()));
    for (kind, again) in [(io::ErrorKind::StorageFull, None), (io::ErrorKind::BrokenPipe, Some(()))] {
        queue.push(&backlog, b"text".to_vec());
        let (batch, buffer) = take(queue);
        queue.complete(batch, &buffer, 0, Some(&kind.into()));
        assert_eq!(backlog.room(false).unwrap_err().kind(), kind);
        assert_eq!(backlog.check().err().map(drop), again);
    }
}
