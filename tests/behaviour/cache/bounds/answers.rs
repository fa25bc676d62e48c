//! The limit on the answers of the concurrent calls of one plugin instance.

use std::sync::Arc;

use bytes::Bytes;
use larder_host::cache::{AnswerLimit, Duration, Entry, Freshness, Owner, ScopedCache};
use tokio::task::JoinSet;

use crate::backends::{Backend, over_every_backend, put, within};

over_every_backend! {
    calls_with_little_room_wait_for_each_other_and_all_end,
    callers_that_wait_for_a_computation_keep_no_room_from_it,
}

/// An instance whose answers have little room: one at a time.
struct Instance {
    view: ScopedCache,
    answers: Arc<AnswerLimit>,
}

impl Instance {
    fn new(view: &ScopedCache) -> Self {
        Self { view: view.clone(), answers: AnswerLimit::new(2000) }
    }

    /// The cache for one call.
    fn cache(&self) -> ScopedCache {
        self.view.clone().with_owner(Owner::new()).with_answer_limit(Arc::clone(&self.answers))
    }

    /// Begins a call many times, each in a task of its own.
    fn begin<F>(&self, call: impl Fn(ScopedCache) -> F) -> JoinSet<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for _ in 0..30 {
            calls.spawn(call(self.cache()));
        }
        calls
    }
}

/// The values are dropped in the tasks: those that are kept leave no room for others.
async fn calls_with_little_room_wait_for_each_other_and_all_end(backend: Backend) {
    let view = backend.view().await;
    put(&view, &["a", "b"]).await;
    let (instance, stale) = (Instance::new(&view), Duration::Milliseconds(1));
    let all = [
        instance.begin(|cache| async move { cache.get("a").await.unwrap() == Some("a".into()) }),
        instance.begin(|cache| async move {
            cache.get_many(&["a", "none", "b"]).await.unwrap() == [Some(Bytes::from("a")), None, Some("b".into())]
        }),
        instance.begin(|cache| async move { cache.list_keys(None).await.is_ok() }),
        instance.begin(|cache| async move { cache.exists("a").await.unwrap() }),
        instance.begin(|cache| async move { cache.read_version("a").await.unwrap().unwrap().0 == "a" }),
        instance.begin(move |cache| async move {
            matches!(cache.get_or_refresh("b", stale).await.unwrap(), Freshness::Fresh(value) if value == "b")
        }),
        instance.begin(|cache| async move {
            matches!(cache.get_or_set("b").await.unwrap(), Entry::Occupied(value) if value == "b")
        }),
        instance.begin(|cache| async move { cache.clear_pattern("c*").await.unwrap() == 0 }),
    ];
    for calls in all {
        assert_eq!(within(calls.join_all()).await, [true; 30]);
    }
}

/// The value has more than half of the room, so that most waiters must claim the key again.
async fn callers_that_wait_for_a_computation_keep_no_room_from_it(backend: Backend) {
    let view = backend.view().await;
    view.set("source", vec![b'x'; 1500].into(), Duration::Default).await.unwrap();
    let instance = Instance::new(&view);
    let holder = instance.cache();
    let Entry::Vacant(vacancy) = holder.get_or_set("k").await.unwrap() else { panic!("the key is empty") };
    let waits = instance.begin(|cache| async move {
        let Entry::Occupied(value) = cache.get_or_set("k").await.unwrap() else { panic!("it is filled") };
        value.len()
    });
    tokio::task::yield_now().await;
    let source = within(holder.get("source")).await.unwrap().unwrap();
    assert!(holder.fill(vacancy, Bytes::copy_from_slice(&source), Duration::Default).await.unwrap());
    drop(source);
    assert_eq!(within(waits.join_all()).await, [1500; 30]);
}
