//! Calls that overlap in front of a server whose replies the test holds back.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::near::NearOptions;
use crate::near::feeds::Feed;
use crate::ram::RamBackend;

/// A server that has executed a read when it is noted, and whose reply arrives when the test lets it.
#[derive(Debug)]
struct Far {
    ram: Arc<RamBackend>,
    feed: Arc<Feed>,
    /// The keys of each read so far.
    reads: Arc<Mutex<Vec<String>>>,
    replies: Arc<Semaphore>,
}

impl Far {
    fn note(&self, keys: &[Key]) {
        let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
        self.reads.lock().unwrap().push(keys.join(" "));
    }

    fn keep(&self) -> Option<Keep> {
        self.feed.stamp().map(|stamp| Keep { stamp, life: None })
    }

    async fn reply(&self) {
        self.replies.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl FarBackend for Far {
    async fn fetch(&self, key: &Key) -> Result<Fetched, CacheError> {
        self.note(std::slice::from_ref(key));
        let fetched = Fetched { value: self.ram.get(key).await?, keep: self.keep() };
        self.reply().await;
        Ok(fetched)
    }

    async fn fetch_many(&self, keys: &[Key]) -> Result<Vec<Fetched>, CacheError> {
        self.note(keys);
        let keep = self.keep();
        let fetched = self.ram.get_many(keys).await?.into_iter().map(|value| Fetched { value, keep }).collect();
        self.reply().await;
        Ok(fetched)
    }

    async fn fetch_or_claim(&self, key: &Key, lease: &Lease) -> Result<(Claim, Option<Keep>), CacheError> {
        self.note(std::slice::from_ref(key));
        let claimed = (self.ram.claim(key, lease).await?, self.keep());
        self.reply().await;
        Ok(claimed)
    }
}

/// All as in RAM.
#[async_trait]
impl CacheBackend for Far {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        self.note(std::slice::from_ref(key));
        self.ram.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        self.note(keys);
        self.ram.get_many(keys).await
    }

    async fn exists(&self, key: &Key) -> Result<bool, CacheError> {
        self.ram.exists(key).await
    }

    async fn list_keys(
        &self,
        selection: &Selection,
        cursor: Option<ListCursor>,
        max_keys: usize,
    ) -> Result<KeyPage, CacheError> {
        self.ram.list_keys(selection, cursor, max_keys).await
    }

    async fn set(&self, key: Key, value: Bytes, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.ram.set(key, value, duration).await
    }

    async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Option<StdDuration>) -> Result<(), CacheError> {
        self.ram.set_many(entries, duration).await
    }

    async fn increment(&self, key: Key, delta: i64, duration: Option<StdDuration>) -> Result<i64, CacheError> {
        self.ram.increment(key, delta, duration).await
    }

    async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        self.ram.clear(key).await
    }

    async fn clear_many(&self, keys: Vec<Key>) -> Result<u64, CacheError> {
        self.ram.clear_many(keys).await
    }

    async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.ram.clear_matching(selection).await
    }

    async fn claim(&self, key: &Key, lease: &Lease) -> Result<Claim, CacheError> {
        self.ram.claim(key, lease).await
    }

    async fn changed(&self, key: &Key, lease: &Lease) -> Result<(), CacheError> {
        self.ram.changed(key, lease).await
    }

    async fn fill(
        &self,
        key: Key,
        lease: &Lease,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        self.ram.fill(key, lease, value, duration).await
    }

    async fn get_with_life(&self, key: &Key) -> Result<Option<WithLife>, CacheError> {
        self.ram.get_with_life(key).await
    }

    async fn get_version(&self, key: &Key) -> Result<Option<(WithLife, Version)>, CacheError> {
        self.ram.get_version(key).await
    }

    async fn replace(
        &self,
        key: Key,
        version: Option<&Version>,
        value: Bytes,
        duration: Option<StdDuration>,
    ) -> Result<bool, CacheError> {
        self.ram.replace(key, version, value, duration).await
    }

    fn lease_time(&self) -> Option<StdDuration> {
        self.ram.lease_time()
    }

    async fn renew(&self, key: &Key, lease: &Lease) -> Result<bool, CacheError> {
        self.ram.renew(key, lease).await
    }

    fn release(&self, key: &Key, lease: &Lease) -> Release {
        self.ram.release(key, lease)
    }

    async fn check(&self) -> Result<Health, CacheError> {
        self.ram.check().await
    }
}

struct Setup {
    near: Arc<NearBackend<Far>>,
    feed: Arc<Feed>,
    reads: Arc<Mutex<Vec<String>>>,
    replies: Arc<Semaphore>,
}

impl Setup {
    fn new() -> Self {
        // Longer than a busy machine takes for a test.
        let minute = StdDuration::from_secs(60);
        let options = NearOptions { max_staleness: minute, ..NearOptions::default() };
        let tier = Arc::new(Tier::new(&options, minute));
        let feed = Arc::new(Feed::open(&tier).unwrap());
        let (reads, replies) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let ram = RamBackend::new(1 << 20, 1 << 10, &[]);
        let far = Far { ram, feed: Arc::clone(&feed), reads: Arc::clone(&reads), replies: Arc::clone(&replies) };
        Self { near: Arc::new(NearBackend::new(far, tier)), feed, reads, replies }
    }

    /// Another program writes. The server announces it later, if at all.
    async fn store(&self, name: &str, value: &'static str) {
        self.near.far.set(key(name), value.into(), None).await.unwrap();
    }

    /// A batch in a task of its own, which has sent its read or waits for other calls.
    async fn get_many(&self, names: &str) -> JoinHandle<Vec<Option<Bytes>>> {
        let (near, keys) = (Arc::clone(&self.near), keys(names));
        let call = tokio::spawn(async move { near.get_many(&keys).await.unwrap() });
        self.turns().await;
        call
    }

    async fn turns(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn reads(&self) -> Vec<String> {
        self.reads.lock().unwrap().clone()
    }

    fn near(&self, name: &str) -> Option<Bytes> {
        self.near.look_up(key(name).as_ref())
    }
}

fn key(name: &str) -> Key {
    Key::new(None, name).unwrap()
}

fn keys(names: &str) -> Vec<Key> {
    names.split(' ').map(key).collect()
}

fn lease() -> Lease {
    crate::get_or_set::lease::Issuer::new().issue()
}

type Call = fn(Arc<NearBackend<Far>>) -> JoinHandle<Option<Bytes>>;

/// The calls whose values are kept.
const FETCHES: [(&str, Call); 4] = [
    ("get", |near| tokio::spawn(async move { near.get(&key("k")).await.unwrap() })),
    ("get-many", |near| tokio::spawn(async move { near.get_many(&keys("k other")).await.unwrap().remove(0) })),
    ("get-or-set", |near| {
        tokio::spawn(async move {
            match near.claim(&key("k"), &lease()).await.unwrap() {
                Claim::Value(value) => Some(value),
                Claim::Granted | Claim::Leased(_) => None,
            }
        })
    }),
    ("get-or-refresh", |near| {
        tokio::spawn(async move { near.get_with_life(&key("k")).await.unwrap().map(|found| found.value) })
    }),
];

#[tokio::test]
async fn what_a_call_has_fetched_is_near() {
    for (name, call) in FETCHES {
        let setup = Setup::new();
        setup.store("k", "v").await;
        setup.replies.add_permits(1);
        assert_eq!(call(Arc::clone(&setup.near)).await.unwrap(), Some("v".into()), "{name}");
        assert_eq!(setup.near("k"), Some("v".into()), "{name}");
    }
}

#[tokio::test]
async fn a_change_that_is_announced_before_the_reply_is_stored_keeps_the_old_value_out() {
    let changes: [fn(&Setup); 4] = [
        |setup| setup.feed.announced("k"),
        |setup| setup.feed.flush(),
        |setup| setup.feed.close(),
        |setup| drop(setup.near.write(vec![key("k")])),
    ];
    for (name, call) in FETCHES {
        for change in changes {
            let setup = Setup::new();
            setup.store("k", "old").await;
            let fetch = call(Arc::clone(&setup.near));
            setup.turns().await;
            assert_eq!(setup.reads().len(), 1, "{name}");
            setup.store("k", "new").await;
            change(&setup);
            setup.replies.add_permits(1);
            assert_eq!(fetch.await.unwrap(), Some("old".into()), "{name}");
            assert_eq!(setup.near("k"), None, "{name}");
        }
    }
}

#[tokio::test]
async fn batches_that_overlap_read_each_key_once_and_keep_it() {
    let setup = Setup::new();
    for name in ["a", "b", "c"] {
        setup.store(name, "v").await;
    }
    let one = setup.get_many("a b").await;
    let two = setup.get_many("b c a").await;
    let three = setup.get_many("c b none").await;
    assert_eq!(setup.reads(), ["a b", "c", "none"]);
    setup.replies.add_permits(3);
    let v = || Some(Bytes::from("v"));
    assert_eq!(one.await.unwrap(), [v(), v()]);
    assert_eq!(two.await.unwrap(), [v(), v(), v()]);
    assert_eq!(three.await.unwrap(), [v(), v(), None]);
    assert_eq!(["a", "b", "c"].map(|name| setup.near(name)), [v(), v(), v()]);
}

#[tokio::test]
async fn a_key_that_is_repeated_in_a_batch_is_read_once_and_kept() {
    let setup = Setup::new();
    setup.store("a", "v").await;
    setup.replies.add_permits(1);
    let values = setup.get_many("a none a a").await.await.unwrap();
    assert_eq!(values, [Some("v".into()), None, Some("v".into()), Some("v".into())]);
    assert_eq!(setup.reads(), ["a none"]);
    assert_eq!(setup.near("a"), Some("v".into()));
}

#[tokio::test]
async fn a_batch_whose_other_call_is_given_up_reads_those_keys_itself() {
    let setup = Setup::new();
    setup.store("a", "v").await;
    setup.store("b", "w").await;
    let given_up = setup.get_many("a").await;
    let batch = setup.get_many("a b").await;
    given_up.abort();
    assert!(given_up.await.is_err());
    setup.replies.add_permits(1);
    assert_eq!(batch.await.unwrap(), [Some("v".into()), Some("w".into())]);
    assert_eq!(setup.reads(), ["a", "b", "a"]);
    assert_eq!((setup.near("a"), setup.near("b")), (None, Some("w".into())));
}

#[tokio::test]
async fn a_read_that_is_not_kept_leaves_a_copy_of_the_same_value_only() {
    let setup = Setup::new();
    setup.store("k", "v").await;
    setup.replies.add_permits(1);
    setup.near.get(&key("k")).await.unwrap();
    setup.near.get_version(&key("k")).await.unwrap();
    assert_eq!(setup.near("k"), Some("v".into()));
    setup.store("k", "w").await;
    setup.near.get_version(&key("k")).await.unwrap();
    assert_eq!(setup.near("k"), None);
}

/// Its reply may have been sent before that of the other call.
#[tokio::test]
async fn a_read_that_is_not_kept_keeps_out_what_is_being_fetched() {
    let setup = Setup::new();
    setup.store("k", "old").await;
    let fetch = setup.get_many("k").await;
    setup.store("k", "new").await;
    setup.near.get_version(&key("k")).await.unwrap();
    setup.replies.add_permits(1);
    assert_eq!(fetch.await.unwrap(), [Some("old".into())]);
    assert_eq!(setup.near("k"), None);
}

#[tokio::test]
async fn the_claim_of_a_refresh_is_no_look_up() {
    let setup = Setup::new();
    let refresh = key("k").of_refresh();
    assert_eq!(setup.near.claim(&refresh, &lease()).await.unwrap(), Claim::Granted);
    assert!(matches!(setup.near.claim(&refresh, &lease()).await.unwrap(), Claim::Leased(_)));
    let NearStatus { hits, misses, .. } = setup.near.tier.status();
    assert_eq!((hits, misses, setup.reads().len()), (0, 0, 0));
}
