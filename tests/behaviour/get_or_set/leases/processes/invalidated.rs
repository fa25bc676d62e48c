//! A set or clear by one process invalidates a computation in another.

use larder_tests::Larder;

use super::{LONG_LEASE, ask, config, on_every_server, one_computes_for_all, session, stored, waiting};

#[test]
fn a_clear_in_another_process_invalidates_a_computation_that_began_before_it() {
    on_every_server(|server| {
        let [mut holder, mut other] = [(); 2].map(|()| session(&server, ""));
        for (clear, answer) in [("clear k", "false"), ("clear-pattern [j-l]", "0"), ("clear-all", "0")] {
            assert_eq!(ask(&mut holder, "take k"), "vacant");
            assert!(stored(&server, "k").is_some_and(|lease| lease.starts_with("\0larder-lease:")));
            // What is removed is no value, and does not count.
            assert_eq!(ask(&mut other, clear), answer, "{clear}");
            assert_eq!(ask(&mut holder, "fill k late"), "filled false", "{clear}");
            assert_eq!(stored(&server, "k"), None, "{clear}");
            assert_eq!(ask(&mut holder, "get k"), "miss", "{clear}");
        }
    });
}

#[test]
fn a_value_set_by_another_process_during_the_computation_stays() {
    on_every_server(|server| {
        let [mut holder, mut other] = [(); 2].map(|()| session(&server, ""));
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(2, &server, "");
        assert_eq!(ask(&mut other, "set k newer"), "ok");
        for waiter in &mut waiters {
            assert_eq!(waiter.read_line(), "hit newer");
        }
        assert_eq!(ask(&mut holder, "fill k late"), "filled false");
        assert_eq!(stored(&server, "k").as_deref(), Some("newer"));
        assert_eq!(ask(&mut holder, "get k"), "hit newer");
    });
}

#[test]
fn after_a_clear_the_waiters_compute_again_and_once() {
    on_every_server(|server| {
        for clear in ["clear k", "clear-pattern k*", "clear-all"] {
            for is_filled_first in [false, true] {
                let [mut holder, mut other] = [(); 2].map(|()| session(&server, LONG_LEASE));
                assert_eq!(ask(&mut holder, "take k"), "vacant");
                let mut waiters = waiting(3, &server, LONG_LEASE);
                ask(&mut other, clear);
                if is_filled_first {
                    assert_eq!(ask(&mut holder, "fill k late"), "filled false", "{clear}");
                }
                one_computes_for_all(&server, &mut waiters);
                if !is_filled_first {
                    assert_eq!(ask(&mut holder, "fill k late"), "filled false", "{clear}");
                }
                assert_eq!(stored(&server, "k").as_deref(), Some("heir's"), "{clear}");
                assert_eq!(ask(&mut other, "clear k"), "true");
            }
        }
    });
}

/// A clear by an operator is sent by another process, which has ended when the waiters ask again.
#[test]
fn a_clear_by_an_operator_invalidates_a_computation_too() {
    on_every_server(|server| {
        let mut holder = session(&server, LONG_LEASE);
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(2, &server, LONG_LEASE);
        let cleared = Larder::new(["cache", "clear-all"]).config(&config(&server, "")).succeed();
        assert_eq!(cleared.stdout, "0\n");
        one_computes_for_all(&server, &mut waiters);
        assert_eq!(ask(&mut holder, "fill k late"), "filled false");
    });
}
