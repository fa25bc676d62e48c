//! How the computing process ends, and which process computes next.

use std::time::{Duration, Instant};

use larder_tests::{Larder, LarderProcess, Server};

use super::{
    LONG_LEASE, ask, config, on_every_server, one_computes_for_all, session, sessions, stored, wait_until_waiting,
    waiting,
};

#[test]
fn when_the_lease_of_a_killed_holder_lapses_one_other_computes() {
    on_every_server(|server| {
        let mut holder = session(&server, "lease = \"1s\"\n");
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(3, &server, "lease = \"1s\"\n");
        let lease = stored(&server, "k");
        let killed = Instant::now();
        holder.kill();
        let asked = Instant::now();
        let look = redis::pipe().atomic().cmd("GET").arg("cache:k").cmd("PTTL").arg("cache:k").clone();
        let (found, left): (Option<String>, i64) = look.query(&mut server.client()).unwrap();
        let passed_on = one_computes_for_all(&server, &mut waiters);
        assert!(passed_on - killed <= Duration::from_secs(2), "{:?}", passed_on - killed);
        // Unless this test was held up until the lease had lapsed; and the server counts whole milliseconds.
        if found == lease {
            let left = Duration::from_millis(left.try_into().unwrap());
            assert!(passed_on - asked + Duration::from_millis(5) >= left, "{:?} of {left:?}", passed_on - asked);
        }
    });
}

/// A holder, whose sandbox has a time limit, ends in some way before it fills, and one of those who wait computes at
/// once.
fn a_vacancy_passes_on<T>(server: &Server, limit: &str, end: impl FnOnce(LarderProcess) -> T) {
    // They are up before the holder's time runs.
    let mut waiters = sessions(3, server, LONG_LEASE);
    for waiter in &mut waiters {
        assert_eq!(ask(waiter, "get k"), "miss");
    }
    let limited = format!("{}[sandbox]\ntimeout = \"{limit}\"\n", config(server, LONG_LEASE));
    let mut holder = Larder::run("session").config(&limited).start();
    assert_eq!(ask(&mut holder, "take k"), "vacant");
    waiters.iter_mut().for_each(|waiter| waiter.write_line("take k"));
    wait_until_waiting(server, 3);
    let ended = Instant::now();
    let _ended = end(holder);
    let passed_on = one_computes_for_all(server, &mut waiters);
    assert!(passed_on - ended < Duration::from_secs(30), "{:?}", passed_on - ended);
    waiters.into_iter().for_each(|process| drop(process.succeed()));
}

#[test]
fn a_trap_passes_the_vacancy_to_one_waiter_in_another_process() {
    on_every_server(|server| {
        a_vacancy_passes_on(&server, "10m", |mut holder| {
            holder.write_line("trap");
            let finished = holder.finish();
            assert_eq!(finished.status, Some(1));
            assert!(finished.error_line().contains("plugin `session` trapped"), "{finished:?}");
        });
    });
}

#[test]
fn the_vacancy_of_a_process_that_ends_passes_to_one_waiter_in_another() {
    on_every_server(|server| {
        a_vacancy_passes_on(&server, "10m", LarderProcess::succeed);
    });
}

#[test]
fn a_dropped_vacancy_passes_to_one_waiter_in_another_process() {
    on_every_server(|server| {
        a_vacancy_passes_on(&server, "10m", |mut holder| {
            assert_eq!(ask(&mut holder, "drop k"), "dropped");
            holder
        });
    });
}

#[test]
fn a_time_limit_passes_the_vacancy_to_one_waiter_in_another_process() {
    on_every_server(|server| {
        a_vacancy_passes_on(&server, "3s", |mut holder| {
            assert_eq!(holder.read_line(), "");
            let finished = holder.finish();
            assert_eq!(finished.status, Some(1));
            assert!(finished.error_line().contains("ran longer than 3s"), "{finished:?}");
        });
    });
}
