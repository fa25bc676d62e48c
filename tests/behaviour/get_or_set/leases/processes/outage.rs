//! The server crashes, restarts or hangs during a computation.

use std::time::{Duration, Instant};

use larder_tests::{LarderProcess, Server, wait_for};

use super::{
    ask, assert_one_computed, is_outage, next_answer, on_every_server, one_computes_for_all, session, stored, waiting,
};

/// Serves those who have asked for `k` until each has an end that is honest: the vacancy, and a fill that stored or did
/// not or fails; what another one filled; or the outage. Answers the values that are said to be stored.
fn serve_through_an_outage(waiters: &mut [LarderProcess]) -> Vec<String> {
    let (mut certain, mut possible) = (Vec::new(), Vec::new());
    for _ in 0..waiters.len() {
        let (n, answer) = next_answer(waiters);
        if answer == "vacant" {
            let value = format!("v{n}");
            match ask(&mut waiters[n], &format!("fill k {value}")).as_str() {
                "filled true" => certain.push(value),
                "filled false" => {}
                failed => {
                    assert!(is_outage(failed), "{failed}");
                    possible.push(value);
                }
            }
        } else if let Some(value) = answer.strip_prefix("hit ") {
            assert!(certain.iter().chain(&possible).any(|filled| filled == value), "no process has filled {value}");
        } else {
            assert!(is_outage(&answer), "{answer}");
        }
    }
    certain
}

/// Asserts that all processes reach the server again, and that one computes for all, for a new key and for `k`.
fn all_recover(server: &Server, processes: &mut [LarderProcess]) {
    for (n, process) in processes.iter_mut().enumerate() {
        wait_for("the cache to work again", || (ask(process, &format!("set back{n} 1")) == "ok").then_some(()));
        assert_eq!(ask(process, &format!("get back{n}")), "hit 1");
    }
    // A claim whose reply was lost holds the key for the duration of its lease, and no longer.
    let answer = ask(&mut processes[0], "get-or-set k x");
    assert!(answer == "vacant, filled true" || answer.starts_with("hit "), "{answer}");
    assert_eq!(ask(&mut processes[0], "clear k"), "true");
    for key in ["fresh", "k"] {
        for (n, process) in processes.iter_mut().enumerate() {
            process.write_line(&format!("slow {key} again{n} 100"));
        }
        let answers: Vec<String> = processes.iter_mut().map(LarderProcess::read_line).collect();
        assert_one_computed(server, key, &answers);
    }
}

/// A server dies during a computation that two other processes wait for. It is back at once, or when all have been
/// served without it.
fn a_server_dies(on_outage: &str, is_back_at_once: bool) {
    on_every_server(|mut server| {
        let more = format!("timeout = \"2s\"\nlease = \"1s\"\non_outage = \"{on_outage}\"\n");
        let mut holder = session(&server, &more);
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(2, &server, &more);
        server.kill();
        if is_back_at_once {
            server.restart();
        }
        let filled = serve_through_an_outage(&mut waiters);
        if !is_back_at_once {
            assert!(filled.is_empty(), "{filled:?}");
            server.restart();
        }
        assert!(filled.len() <= 1, "{filled:?}");
        // The key that held its lease is gone.
        let late = ask(&mut holder, "fill k late");
        assert!(late == "filled false" || is_outage(&late), "{late}");
        if let Some(value) = filled.first() {
            assert_eq!(stored(&server, "k").as_ref(), Some(value));
        }
        waiters.push(holder);
        all_recover(&server, &mut waiters);
    });
}

#[test]
fn no_waiter_hangs_when_the_server_dies_and_plugins_continue() {
    a_server_dies("miss", false);
}

#[test]
fn no_waiter_hangs_when_the_server_dies_and_reads_report_it() {
    a_server_dies("error", false);
}

#[test]
fn no_waiter_hangs_when_the_server_restarts() {
    a_server_dies("miss", true);
    a_server_dies("error", true);
}

#[test]
fn no_waiter_hangs_when_the_server_is_frozen_for_longer_than_the_lease() {
    on_every_server(|server| {
        let more = "timeout = \"1s\"\nlease = \"1s\"\n";
        let mut holder = session(&server, more);
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(2, &server, more);
        let frozen = Instant::now();
        server.freeze();
        // The waiters do not hang with the server.
        let filled = serve_through_an_outage(&mut waiters);
        assert!(filled.is_empty(), "{filled:?}");
        std::thread::sleep(Duration::from_millis(1500).saturating_sub(frozen.elapsed()));
        server.thaw();
        let late = ask(&mut holder, "fill k late");
        assert!(late == "filled false" || is_outage(&late), "{late}");
        waiters.push(holder);
        all_recover(&server, &mut waiters);
    });
}

#[test]
fn waiters_are_served_when_a_frozen_server_continues() {
    on_every_server(|server| {
        // The timeout is longer than the freeze, so no call fails.
        let more = "timeout = \"20s\"\nlease = \"1s\"\n";
        let mut holder = session(&server, more);
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(2, &server, more);
        server.freeze();
        std::thread::sleep(Duration::from_millis(1500));
        server.thaw();
        one_computes_for_all(&server, &mut waiters);
        // Its lease lapsed, and the key has got another's value since.
        assert_eq!(ask(&mut holder, "fill k late"), "filled false");
        waiters.push(holder);
        all_recover(&server, &mut waiters);
    });
}
