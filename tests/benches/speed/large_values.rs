//! The latency of hits on small values while another caller of the same cache reads and writes large values.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use larder_host::cache::{Duration, ScopedCache};

use crate::backend::{Backend, view};
use crate::table;

/// The number of hits that are timed.
const HITS: usize = 2000;

/// Times sequential hits of 100 bytes, alone and while another task sets and gets values of 1 MiB and 16 MiB.
pub(crate) async fn hits_beside_large_values(backend: &Backend) {
    for (nth, mib) in [0, 1, 16].into_iter().enumerate() {
        let cache = backend.cache("max_value_bytes = \"16MiB\"\n").await;
        let small = view(&cache);
        small.set("small", vec![b'v'; 100].into(), Duration::Unlimited).await.unwrap();
        let is_done = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn(move_values(view(&cache), mib << 20, Arc::clone(&is_done)));
        let mut times = Vec::with_capacity(HITS);
        for _ in 0..HITS {
            let start = Instant::now();
            assert!(small.get("small").await.unwrap().is_some());
            times.push(start.elapsed().as_secs_f64());
            // Lets the task with the large values run on this thread.
            tokio::task::yield_now().await;
        }
        is_done.store(true, Ordering::Relaxed);
        let moved = load.await.unwrap();
        let mut numbers = [0.5, 0.99, 1.0].map(|share| table::time(table::quantile(&times, share))).to_vec();
        numbers.push(format!("{moved} moved"));
        let name = if mib == 0 { "alone".to_owned() } else { format!("beside values of {mib} MiB") };
        table::row(if nth == 0 { &backend.name } else { "" }, &name, &numbers);
    }
}

/// Sets and gets values of this size until `is_done`, and returns their number. Does nothing if the size is 0.
async fn move_values(cache: ScopedCache, bytes: usize, is_done: Arc<AtomicBool>) -> usize {
    let value = bytes::Bytes::from(vec![b'V'; bytes]);
    let mut moved = 0;
    while bytes > 0 && !is_done.load(Ordering::Relaxed) {
        let key = format!("large{}", moved % 4);
        cache.set(&key, value.clone(), Duration::Unlimited).await.unwrap();
        assert_eq!(cache.get(&key).await.unwrap().map(|value| value.len()), Some(bytes));
        moved += 1;
    }
    moved
}
