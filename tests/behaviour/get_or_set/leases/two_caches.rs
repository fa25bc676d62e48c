//! Two caches on one server that share no memory, like two processes; and other programs that change a lease.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use ::redis::{TypedCommands, cmd};
use larder_host::cache::{Cache, Duration, GetOrSetStats, ScopedCache, Vacancy};
use tokio::task::JoinHandle;

use crate::backends::{Backend, bytes, over_every_server, put, view, within};
use crate::get_or_set::{
    Asked, LONG_WAIT, answer, fill, look_around, lose, many_waiting, occupied, take_over, vacancy, vacant, waiting,
};

over_every_server! {
    a_lease_is_stored_under_the_key_for_its_duration,
    a_lease_is_a_miss_to_all_readers,
    a_clear_does_not_count_leases,
    a_waiter_elsewhere_receives_the_value,
    an_invalidation_message_ends_a_wait_without_another_read,
    many_waiters_of_another_cache_share_one_wait,
    a_clear_through_another_cache_makes_a_fill_too_late,
    a_set_through_another_cache_makes_a_fill_too_late_and_stays,
    a_set_and_a_clear_through_another_cache_make_a_fill_too_late,
    another_program_s_set_and_delete_make_a_fill_too_late,
    another_type_put_in_place_of_the_lease_makes_a_fill_too_late,
    after_a_clear_the_waiters_of_all_caches_compute_again_and_once,
    a_dropped_vacancy_passes_to_one_waiter_of_another_cache,
    of_all_waiters_of_all_caches_one_takes_over,
    a_lease_is_renewed_while_its_holder_lives,
    a_lease_that_was_given_back_is_not_renewed,
    a_holder_that_lost_its_lease_lets_the_others_continue,
    the_lease_of_an_unknown_holder_is_waited_for_until_it_lapses,
    an_unlimited_lease_of_an_unknown_holder_is_replaced_when_the_wait_times_out,
    a_wait_that_ran_out_elsewhere_does_not_overwrite_the_holder_s_value,
    a_fill_after_a_timed_out_wait_wins_over_the_holder_of_another_cache,
    a_fill_after_a_timed_out_wait_is_too_late_after_a_clear_through_another_cache,
    a_cancelled_claim_leaves_no_lease_behind,
    a_lease_is_released_when_the_server_returns,
    a_value_from_before_a_clear_is_not_shared_during_an_outage,
    a_server_without_its_replicas_still_serves_hits,
    a_value_claimed_before_a_clear_is_not_shared_during_an_outage,
    a_value_reaches_its_waiters_although_the_connection_was_lost,
    a_wait_for_another_process_that_began_as_one_for_our_own_counts,
    the_statistics_count_the_events,
}

/// The value of the key on the server.
fn stored(backend: &mut Backend, key: &str) -> Vec<u8> {
    let found: Option<Vec<u8>> = cmd("GET").arg(format!("cache:{key}")).query(&mut backend.behind().client()).unwrap();
    found.unwrap_or_default()
}

/// A caller that waits for a lease of another cache. The server will notify it of the end of the lease, or it will poll;
/// until then nothing happens on its connection.
async fn waiting_remotely(cache: &Arc<Cache>, key: &str) -> JoinHandle<Asked> {
    let before = cache.stats().joined_remotely;
    let caller = waiting(cache, key).await;
    within(async {
        while cache.stats().joined_remotely == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    caller
}

async fn a_lease_is_stored_under_the_key_for_its_duration(mut backend: Backend) {
    let cache = view(&backend.cache("lease = \"4s\"").await);
    let _held = vacancy(&cache, "k").await;
    let lease = stored(&mut backend, "k");
    assert!(lease.starts_with(b"\0larder-lease:") && lease.len() == 46, "{lease:?}");
    let left: i64 = cmd("PTTL").arg("cache:k").query(&mut backend.behind().client()).unwrap();
    assert!((1..=4_000).contains(&left), "{left}");
}

async fn a_lease_is_a_miss_to_all_readers(backend: Backend) {
    let (cache, remote) = (view(&backend.cache("").await), view(&backend.cache("").await));
    let _held = vacancy(&cache, "k").await;
    put(&cache, &["v"]).await;
    for reader in [&cache, &remote] {
        assert_eq!(reader.get("k").await, Ok(None));
        let keys = ["k", "v", "k"].map(str::to_owned);
        assert_eq!(reader.get_many(&keys).await, Ok(vec![None, Some(bytes("v")), None]));
    }
}

async fn a_clear_does_not_count_leases(backend: Backend) {
    let cache = view(&backend.cache("").await);
    for key in ["a", "b", "c"] {
        put(&cache, &[key, "x", "y"]).await;
        assert!(cache.clear(key).await.unwrap());
        let _held = vacancy(&cache, key).await;
        match key {
            "a" => assert!(!cache.clear(key).await.unwrap()),
            "b" => assert_eq!(cache.clear_pattern("[bx]").await.unwrap(), 1),
            _ => assert_eq!(cache.clear_all().await.unwrap(), 2),
        }
    }
}

async fn a_waiter_elsewhere_receives_the_value(backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let held = vacancy(&view(&cache), "k").await;
    let caller = waiting_remotely(&remote, "k").await;
    assert_eq!(fill(&view(&cache), held, "computed").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("computed"));
}

/// Were it not for the server's word, the next look would end the wait.
async fn an_invalidation_message_ends_a_wait_without_another_read(mut backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let mut client = backend.behind().client();
    let mut looks = || -> String {
        let statistics: String = cmd("INFO").arg("commandstats").query(&mut client).unwrap();
        statistics.lines().find(|line| line.starts_with("cmdstat_pttl:")).map(str::to_owned).unwrap_or_default()
    };
    // A slow machine may take its look in between, but not every time.
    for round in 0..20 {
        let key = format!("k{round}");
        let held = vacancy(&view(&cache), &key).await;
        let caller = waiting_remotely(&remote, &key).await;
        look_around(&view(&remote)).await;
        let before = looks();
        assert_eq!(fill(&view(&cache), held, "computed").await, Ok(true));
        assert_eq!(occupied(answer(caller).await), bytes("computed"));
        if looks() == before {
            return;
        }
    }
    panic!("no wait ended before the next look");
}

async fn many_waiters_of_another_cache_share_one_wait(backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let held = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&remote, "k", 32).await;
    assert_eq!(fill(&view(&cache), held, "computed").await, Ok(true));
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("computed"));
    }
    let GetOrSetStats { waited, joined_remotely, .. } = remote.stats();
    assert_eq!((waited, joined_remotely), (32, 1));
}

/// Holds a vacancy while a caller of another cache acts, and asserts that the fill is too late.
async fn assert_too_late(backend: &Backend, left: Option<&str>, overtake: impl AsyncFnOnce(&ScopedCache)) {
    let (holder, remote) = (view(&backend.cache(LONG_WAIT).await), view(&backend.cache(LONG_WAIT).await));
    let held = vacancy(&holder, "user:1").await;
    overtake(&remote).await;
    assert_eq!(fill(&holder, held, "too late").await, Ok(false));
    assert_eq!(remote.get("user:1").await.unwrap(), left.map(bytes));
    remote.clear_all().await.unwrap();
}

async fn a_clear_through_another_cache_makes_a_fill_too_late(backend: Backend) {
    assert_too_late(&backend, None, async |remote| assert!(!remote.clear("user:1").await.unwrap())).await;
    let pattern = async |remote: &ScopedCache| assert_eq!(remote.clear_pattern("u*").await.unwrap(), 0);
    assert_too_late(&backend, None, pattern).await;
    assert_too_late(&backend, None, async |remote| assert_eq!(remote.clear_all().await.unwrap(), 0)).await;
}

async fn a_set_through_another_cache_makes_a_fill_too_late_and_stays(backend: Backend) {
    assert_too_late(&backend, Some("user:1"), async |remote| put(remote, &["user:1"]).await).await;
    let entries = vec![("user:1".to_owned(), b"many".to_vec())];
    let set_many = async |remote: &ScopedCache| remote.set_many(entries, Duration::Default).await.unwrap();
    assert_too_late(&backend, Some("many"), set_many).await;
}

async fn a_set_and_a_clear_through_another_cache_make_a_fill_too_late(backend: Backend) {
    let set_and_clear = async |remote: &ScopedCache| {
        put(remote, &["user:1"]).await;
        assert!(remote.clear("user:1").await.unwrap());
    };
    assert_too_late(&backend, None, set_and_clear).await;
}

async fn another_program_s_set_and_delete_make_a_fill_too_late(mut backend: Backend) {
    let mut client = backend.behind().client();
    assert_too_late(&backend, Some("by hand"), async |_| client.set("cache:user:1", "by hand").unwrap()).await;
    assert_too_late(&backend, None, async |_| assert_eq!(client.del("cache:user:1").unwrap(), 1)).await;
}

async fn another_type_put_in_place_of_the_lease_makes_a_fill_too_late(mut backend: Backend) {
    let holder = view(&backend.cache("").await);
    let held = vacancy(&holder, "k").await;
    let mut client = backend.behind().client();
    client.del("cache:k").unwrap();
    client.lpush("cache:k", "element").unwrap();
    assert_eq!(fill(&holder, held, "too late").await, Ok(false));
    assert_eq!(client.lrange("cache:k", 0, -1).unwrap(), ["element"]);
}

async fn after_a_clear_the_waiters_of_all_caches_compute_again_and_once(backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let outdated = vacancy(&view(&cache), "k").await;
    let here = many_waiting(&cache, "k", 2).await;
    let there = many_waiting(&remote, "k", 2).await;
    view(&backend.cache("").await).clear("k").await.unwrap();
    // The server notifies the other cache of the clear. Waiters of this cache wait for a holder that is not notified.
    let (renewed, there) = take_over(there).await;
    assert_eq!(fill(&view(&cache), outdated, "outdated").await, Ok(false));
    look_around(&view(&cache)).await;
    assert!(here.iter().chain(&there).all(|caller| !caller.is_finished()));
    assert_eq!(fill(&view(&remote), renewed, "renewed").await, Ok(true));
    for caller in here.into_iter().chain(there) {
        assert_eq!(occupied(answer(caller).await), bytes("renewed"));
    }
}

async fn a_dropped_vacancy_passes_to_one_waiter_of_another_cache(backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let held = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&remote, "k", 5).await;
    drop(held);
    let (passed_on, callers) = take_over(callers).await;
    look_around(&view(&remote)).await;
    assert!(callers.iter().all(|caller| !caller.is_finished()));
    assert_eq!(fill(&view(&remote), passed_on, "second try").await, Ok(true));
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("second try"));
    }
}

/// Each holder but the last drops its vacancy, and each time exactly one of the remaining callers receives it.
async fn of_all_waiters_of_all_caches_one_takes_over(backend: Backend) {
    let caches = [backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await];
    let mut held = vacancy(&view(&caches[0]), "k").await;
    let mut callers = Vec::new();
    for cache in &caches {
        callers.extend(many_waiting(cache, "k", 4).await);
    }
    while !callers.is_empty() {
        drop(held);
        (held, callers) = take_over(callers).await;
        for cache in &caches {
            look_around(&view(cache)).await;
        }
        assert!(callers.iter().all(|caller| !caller.is_finished()));
    }
    drop(held);
    let sum = |of: fn(&GetOrSetStats) -> u64| caches.iter().map(|cache| of(&cache.stats())).sum::<u64>();
    assert_eq!((sum(|statistics| statistics.waited), sum(|statistics| statistics.abandoned)), (12, 13));
}

async fn a_lease_is_renewed_while_its_holder_lives(backend: Backend) {
    let more = format!("{LONG_WAIT}\nlease = \"1s\"");
    let (cache, remote) = (backend.cache(&more).await, backend.cache(&more).await);
    let held = vacancy(&view(&cache), "k").await;
    let caller = waiting(&remote, "k").await;
    tokio::time::sleep(StdDuration::from_millis(3100)).await;
    assert!(!caller.is_finished());
    assert_eq!(fill(&view(&cache), held, "in time").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("in time"));
    assert_eq!(remote.stats().joined_remotely, 1);
}

/// Each is given back about when its first renewal is due.
async fn a_lease_that_was_given_back_is_not_renewed(mut backend: Backend) {
    let cache = backend.cache(&format!("{LONG_WAIT}\nlease = \"300ms\"")).await;
    for milliseconds in (95..105).chain(95..105) {
        let held = vacancy(&view(&cache), "k").await;
        tokio::time::sleep(StdDuration::from_millis(milliseconds)).await;
        drop(held);
        within(cache.drain()).await;
        look_around(&view(&cache)).await;
        assert_eq!(stored(&mut backend, "k"), b"", "after {milliseconds} ms");
    }
}

async fn a_holder_that_lost_its_lease_lets_the_others_continue(backend: Backend) {
    // The holder notices after a third of it.
    let more = format!("{LONG_WAIT}\nlease = \"3s\"");
    let cache = backend.cache(&more).await;
    let outdated = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 3).await;
    view(&backend.cache("").await).clear("k").await.unwrap();
    let (renewed, callers) = take_over(callers).await;
    assert_eq!(fill(&view(&cache), outdated, "outdated").await, Ok(false));
    assert_eq!(fill(&view(&cache), renewed, "renewed").await, Ok(true));
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("renewed"));
    }
}

/// A lease in a format of a later release, without a process that renews it.
const FOREIGN: &[u8] = b"\0larder-lease:of another kind";

async fn the_lease_of_an_unknown_holder_is_waited_for_until_it_lapses(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let mut client = backend.behind().client();
    cmd("SET").arg("cache:k").arg(FOREIGN).arg("PX").arg(300).exec(&mut client).unwrap();
    let asked = std::time::Instant::now();
    let own = vacancy(&view(&cache), "k").await;
    assert!(asked.elapsed() >= StdDuration::from_millis(250), "{:?}", asked.elapsed());
    assert_eq!(fill(&view(&cache), own, "v").await, Ok(true));
}

async fn an_unlimited_lease_of_an_unknown_holder_is_replaced_when_the_wait_times_out(mut backend: Backend) {
    let cache = view(&backend.cache("wait = \"50ms\"").await);
    cmd("SET").arg("cache:k").arg(FOREIGN).exec(&mut backend.behind().client()).unwrap();
    assert_eq!(cache.get("k").await, Ok(None));
    let own = vacancy(&cache, "k").await;
    assert_eq!(fill(&cache, own, "v").await, Ok(true));
    assert_eq!(cache.get("k").await, Ok(Some(bytes("v"))));
}

/// The holder of the key's lease, and a caller of another cache whose wait has timed out.
async fn holder_and_loose(backend: &Backend) -> [(ScopedCache, Vacancy); 2] {
    let (holder, loose) = (view(&backend.cache("").await), view(&backend.cache("wait = \"50ms\"").await));
    let held = vacancy(&holder, "k").await;
    let own = vacancy(&loose, "k").await;
    [(holder, held), (loose, own)]
}

async fn a_wait_that_ran_out_elsewhere_does_not_overwrite_the_holder_s_value(backend: Backend) {
    let [(holder, held), (loose, own)] = holder_and_loose(&backend).await;
    assert_eq!(fill(&holder, held, "holder's").await, Ok(true));
    assert_eq!(fill(&loose, own, "late").await, Ok(false));
    assert_eq!(loose.get("k").await, Ok(Some(bytes("holder's"))));
}

async fn a_fill_after_a_timed_out_wait_wins_over_the_holder_of_another_cache(backend: Backend) {
    let [(holder, held), (loose, own)] = holder_and_loose(&backend).await;
    assert_eq!(fill(&loose, own, "first").await, Ok(true));
    assert_eq!(fill(&holder, held, "holder's").await, Ok(false));
    assert_eq!(holder.get("k").await, Ok(Some(bytes("first"))));
}

async fn a_fill_after_a_timed_out_wait_is_too_late_after_a_clear_through_another_cache(backend: Backend) {
    let [(holder, held), (loose, own)] = holder_and_loose(&backend).await;
    assert!(!holder.clear("k").await.unwrap());
    assert_eq!(fill(&loose, own, "too late").await, Ok(false));
    assert_eq!(fill(&holder, held, "too late").await, Ok(false));
    assert_eq!(holder.get("k").await, Ok(None));
}

/// The caller is cancelled while its claim is being sent. The lease that the claim takes would never be filled.
async fn a_cancelled_claim_leaves_no_lease_behind(mut backend: Backend) {
    let more = format!("{LONG_WAIT}\nlease = \"10m\"");
    let (cache, remote) = (backend.cache(&more).await, backend.cache(&more).await);
    backend.behind().freeze();
    {
        let caller = view(&cache);
        let mut asking = Box::pin(caller.get_or_set("k"));
        tokio::select! {
            biased;
            answer = &mut asking => panic!("the server does not answer, and yet: {answer:?}"),
            // By then the command has been sent.
            () = tokio::task::yield_now() => {}
        }
    }
    backend.behind().thaw();
    within(cache.drain()).await;
    let _free = vacancy(&view(&remote), "k").await;
}

/// The server is away when the vacancy is dropped, and comes back with all it held.
async fn a_lease_is_released_when_the_server_returns(mut backend: Backend) {
    let more = format!("{LONG_WAIT}\nlease = \"10m\"");
    let cache = backend.cache(&more).await;
    let held = vacancy(&view(&cache), "k").await;
    cmd("SAVE").exec(&mut backend.behind().client()).unwrap();
    lose(&mut backend, &cache).await;
    drop(held);
    within(cache.drain()).await;
    backend.behind().restart();
    let _free = vacancy(&view(&backend.cache(&more).await), "k").await;
}

async fn a_value_from_before_a_clear_is_not_shared_during_an_outage(mut backend: Backend) {
    let cache = backend.cache(&format!("{LONG_WAIT}\ntimeout = \"500ms\"")).await;
    let outdated = vacancy(&view(&cache), "k").await;
    view(&cache).clear("k").await.unwrap();
    let renewed = vacancy(&view(&cache), "k").await;
    let caller = waiting(&cache, "k").await;
    backend.behind().freeze();
    assert!(fill(&view(&cache), outdated, "outdated").await.unwrap_err().is_outage());
    assert!(fill(&view(&cache), renewed, "renewed").await.unwrap_err().is_outage());
    backend.behind().thaw();
    assert_eq!(occupied(answer(caller).await), bytes("renewed"));
}

async fn a_server_without_its_replicas_still_serves_hits(mut backend: Backend) {
    let cache = view(&backend.cache("").await);
    put(&cache, &["k"]).await;
    let mut client = backend.behind().client();
    cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(1).exec(&mut client).unwrap();
    for cache in [cache, view(&backend.cache("").await)] {
        assert_eq!(occupied(cache.get_or_set("k").await), bytes("k"));
        let error = cache.set("k", bytes("v"), Duration::Default).await.unwrap_err();
        assert!(error.is_outage(), "{error:?}");
    }
}

/// The claim is on its way to the server when the clear is sent, and so is no computation yet that the clear could tell
/// of itself.
async fn a_value_claimed_before_a_clear_is_not_shared_during_an_outage(mut backend: Backend) {
    let cache = backend.cache(&format!("{LONG_WAIT}\ntimeout = \"2s\"")).await;
    let (holder, cleaner) = (view(&cache), view(&cache));
    let (held, cleared) = tokio::join!(holder.get_or_set("k"), cleaner.clear("k"));
    let outdated = vacant(held);
    assert_eq!(cleared, Ok(false));
    lose(&mut backend, &cache).await;
    let caller = waiting(&cache, "k").await;
    assert!(fill(&holder, outdated, "outdated").await.unwrap_err().is_outage());
    let renewed = vacant(answer(caller).await);
    assert!(fill(&cleaner, renewed, "renewed").await.unwrap_err().is_outage());
}

async fn a_value_reaches_its_waiters_although_the_connection_was_lost(mut backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let held = vacancy(&view(&cache), "k").await;
    let caller = waiting_remotely(&remote, "k").await;
    let mut client = backend.behind().client();
    cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut client).unwrap();
    within(async {
        while cache.check().await.is_err() || remote.check().await.is_err() {
            tokio::time::sleep(StdDuration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(fill(&view(&cache), held, "computed").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("computed"));
}

/// The waiter takes over from a holder of its own process, and finds that another process was first.
async fn a_wait_for_another_process_that_began_as_one_for_our_own_counts(backend: Backend) {
    let (cache, remote) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
    let outdated = vacancy(&view(&cache), "k").await;
    let caller = waiting(&cache, "k").await;
    view(&remote).clear("k").await.unwrap();
    let held = vacancy(&view(&remote), "k").await;
    drop(outdated);
    within(async {
        while cache.stats().joined_remotely == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fill(&view(&remote), held, "computed").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("computed"));
    let expected = GetOrSetStats { waited: 1, joined_remotely: 1, abandoned: 1, ..GetOrSetStats::default() };
    assert_eq!(cache.stats(), expected);
}

async fn the_statistics_count_the_events(backend: Backend) {
    let (cache, remote) = (backend.cache("wait = \"50ms\"").await, backend.cache(LONG_WAIT).await);
    let held = vacancy(&view(&remote), "k").await;
    let loose = vacancy(&view(&cache), "k").await;
    let expected = GetOrSetStats { waited: 1, joined_remotely: 1, expired: 1, ..GetOrSetStats::default() };
    assert_eq!(cache.stats(), expected);
    assert_eq!(fill(&view(&remote), held, "v").await, Ok(true));
    assert_eq!(remote.stats(), GetOrSetStats { computed: 1, ..GetOrSetStats::default() });
    assert_eq!(fill(&view(&cache), loose, "late").await, Ok(false));
    assert_eq!(cache.stats(), GetOrSetStats { computed: 1, superseded: 1, ..expected });
    drop(vacancy(&view(&cache), "other").await);
    assert_eq!(cache.stats(), GetOrSetStats { computed: 1, superseded: 1, abandoned: 1, ..expected });
}
