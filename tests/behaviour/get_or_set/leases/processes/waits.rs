//! What waits meet: a holder that takes long, a wait that runs out, a key that is being computed.

use std::time::{Duration, Instant};

use larder_tests::{Larder, wait_for};

use super::{LONG_LEASE, ask, config, on_every_server, one_computes_for_all, session, sessions, stored, waiting};

#[test]
fn a_process_whose_wait_timed_out_computes_and_the_first_fill_of_both_is_kept() {
    on_every_server(|server| {
        let mut holder = session(&server, "");
        let mut hasty = session(&server, "wait = \"200ms\"\n");
        for is_holder_first in [true, false] {
            assert_eq!(ask(&mut holder, "take k"), "vacant");
            let mut waiters = waiting(2, &server, "");
            assert_eq!(ask(&mut hasty, "take k"), "vacant");
            let (first, second) = if is_holder_first { (&mut holder, &mut hasty) } else { (&mut hasty, &mut holder) };
            assert_eq!(ask(first, "fill k first"), "filled true");
            for waiter in &mut waiters {
                assert_eq!(waiter.read_line(), "hit first");
            }
            assert_eq!(ask(second, "fill k second"), "filled false");
            assert_eq!(stored(&server, "k").as_deref(), Some("first"));
            assert_eq!(ask(&mut holder, "clear k"), "true");
        }
    });
}

#[test]
fn a_clear_invalidates_the_fill_of_a_process_whose_wait_timed_out() {
    on_every_server(|server| {
        let [mut holder, mut other] = [(); 2].map(|()| session(&server, ""));
        let mut hasty = session(&server, "wait = \"200ms\"\n");
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        assert_eq!(ask(&mut hasty, "take k"), "vacant");
        assert_eq!(ask(&mut other, "clear k"), "false");
        assert_eq!(ask(&mut hasty, "fill k hasty"), "filled false");
        assert_eq!(ask(&mut holder, "fill k late"), "filled false");
        assert_eq!(stored(&server, "k"), None);
    });
}

#[test]
fn a_lease_is_renewed_for_as_long_as_the_computation_takes() {
    on_every_server(|server| {
        let mut holder = session(&server, "lease = \"1s\"\n");
        holder.write_line("slow k held 3500");
        wait_for("the holder to begin", || stored(&server, "k"));
        let began = Instant::now();
        let mut waiters = sessions(2, &server, "lease = \"1s\"\n");
        waiters.iter_mut().for_each(|waiter| waiter.write_line("slow k another 0"));
        for waiter in &mut waiters {
            assert_eq!(waiter.read_line(), "received held");
        }
        assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(holder.read_line(), "computed held");
        assert_eq!(stored(&server, "k").as_deref(), Some("\"held\""));
    });
}

#[test]
fn a_key_that_another_process_computes_is_a_miss() {
    on_every_server(|server| {
        let [mut holder, mut other] = [(); 2].map(|()| session(&server, ""));
        assert_eq!(ask(&mut other, "set there x"), "ok");
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        for process in [&mut other, &mut holder] {
            assert_eq!(ask(process, "get k"), "miss");
            assert_eq!(ask(process, "get-many k there k"), "miss hit x miss");
        }
        let operator = |arguments: [&str; 3]| Larder::new(arguments).config(&config(&server, ""));
        assert_eq!(operator(["cache", "get", "there"]).succeed().stdout, "x");
        let missed = operator(["cache", "get", "k"]).fail(1);
        assert_eq!((missed.stdout.as_str(), missed.error_line()), ("", "larder: no value"));
        // The look-up has not ended the computation.
        assert_eq!(ask(&mut holder, "fill k held"), "filled true");
        assert_eq!(ask(&mut other, "get k"), "hit held");
    });
}

#[test]
fn a_value_that_looks_like_a_lease_is_refused() {
    const RULE: &str = "value: must not begin with the bytes that mark a lease";
    on_every_server(|server| {
        let [mut process, mut other] = [(); 2].map(|()| session(&server, LONG_LEASE));
        let refused = format!("error InvalidArgument({RULE:?})");
        for value in ["\0larder-lease:", "\0larder-lease:0123456789abcdef0123456789abcdef"] {
            assert_eq!(ask(&mut process, &format!("set k {value}")), refused);
            assert_eq!(ask(&mut process, &format!("get-or-set k {value}")), format!("vacant, {refused}"));
            assert_eq!(ask(&mut process, "take k"), "vacant");
            let mut waiters = waiting(2, &server, LONG_LEASE);
            assert_eq!(ask(&mut process, &format!("fill k {value}")), refused);
            // Their wait ends as if the vacancy had been dropped.
            one_computes_for_all(&server, &mut waiters);
            assert_eq!(ask(&mut other, "clear k"), "true");

            let mut operator = Larder::new(["cache", "set", "k", "-"]).config(&config(&server, "")).start();
            operator.write_line(value);
            let finished = operator.finish();
            assert_eq!((finished.status, finished.error_line()), (Some(2), format!("larder: {RULE}").as_str()));
            assert_eq!(stored(&server, "k"), None);
        }
        for value in ["\0larder-lease", "larder-lease:", "x\0larder-lease:"] {
            assert_eq!(ask(&mut process, &format!("set k {value}")), "ok");
            assert_eq!(ask(&mut other, "get k"), format!("hit {value}"));
        }
    });
}

#[test]
fn two_processes_that_wait_for_each_other_continue_when_the_wait_times_out() {
    on_every_server(|server| {
        let wait = Duration::from_millis(500);
        let mut two = sessions(2, &server, "wait = \"500ms\"\n");
        for (process, own) in two.iter_mut().zip(["a", "b"]) {
            assert_eq!(ask(process, &format!("take {own}")), "vacant");
        }
        let asked = Instant::now();
        for (process, others) in two.iter_mut().zip(["b", "a"]) {
            process.write_line(&format!("take {others}"));
        }
        for process in &mut two {
            assert_eq!(process.read_line(), "vacant");
        }
        let waited = asked.elapsed();
        assert!((wait..wait + Duration::from_secs(5)).contains(&waited), "{waited:?}");
        for (process, own) in two.iter_mut().zip(["a", "b"]) {
            assert_eq!(ask(process, &format!("fill {own} {own}")), "filled true");
        }
        for (process, others) in two.iter_mut().zip(["b", "a"]) {
            assert_eq!(ask(process, &format!("fill {others} x")), "filled false");
            assert_eq!(ask(process, &format!("get {others}")), format!("hit {others}"));
        }
    });
}
