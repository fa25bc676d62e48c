//! Small values beside large ones: how long a hit takes while somebody else of the same cache moves megabytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use larder_host::cache::{Duration, ScopedCache};

use crate::place::{Place, view};
use crate::table;

/// How many small values are read while the large ones move.
const CALLS: usize = 2000;

/// The times of hits of 100 bytes, one after the other, while values of a size are set and read again.
pub(crate) async fn large_values(place: &Place) {
    for (nth, mib) in [0, 1, 16].into_iter().enumerate() {
        let cache = place.cache("max_value_bytes = \"16MiB\"\n").await;
        let small = view(&cache);
        small.set("small", vec![b'v'; 100].into(), Duration::Unlimited).await.unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let moving = tokio::spawn(move_values(view(&cache), mib << 20, Arc::clone(&is_over)));
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let begun = Instant::now();
            assert!(small.get("small").await.unwrap().is_some());
            times.push(begun.elapsed().as_secs_f64());
            // So that whoever moves values has his turn on this thread.
            tokio::task::yield_now().await;
        }
        is_over.store(true, Ordering::Relaxed);
        let moved = moving.await.unwrap();
        let mut numbers = [0.5, 0.99, 1.0].map(|share| table::time(table::quantile(&times, share))).to_vec();
        numbers.push(format!("{moved} moved"));
        let name = if mib == 0 { "alone".to_owned() } else { format!("beside values of {mib} MiB") };
        table::line(if nth == 0 { &place.name } else { "" }, &name, &numbers);
    }
}

/// Sets and reads large values until it is over; says how many.
async fn move_values(cache: ScopedCache, bytes: usize, is_over: Arc<AtomicBool>) -> usize {
    let value = bytes::Bytes::from(vec![b'V'; bytes]);
    let mut moved = 0;
    while bytes > 0 && !is_over.load(Ordering::Relaxed) {
        let key = format!("large{}", moved % 4);
        cache.set(&key, value.clone(), Duration::Unlimited).await.unwrap();
        assert_eq!(cache.get(&key).await.unwrap().map(|value| value.len()), Some(bytes));
        moved += 1;
    }
    moved
}
