//! Values of other programs above the limit: the host does not read them into memory.

#![cfg(target_os = "linux")]

use larder_tests::{Kind, Larder, LarderProcess, Server};

/// What the process may use at its peak. Measured: 21 MiB for one that reads small values.
const BOUND: u64 = 100 << 20;

/// Stores a value of this many bytes under a plugin's key.
fn put(server: &Server, key: &str, bytes: usize) {
    let mut client = server.client();
    redis::cmd("SETRANGE").arg(format!("cache:{key}")).arg(bytes - 1).arg("x").exec(&mut client).unwrap();
}

fn session(server: &Server, more: &str) -> LarderProcess {
    // On a busy machine half a gigabyte takes its time.
    let sandbox = "[sandbox]\ntimeout = \"2m\"\n";
    Larder::run("session").config(&format!("{}timeout = \"30s\"\n{more}{sandbox}", server.cache("c"))).start()
}

fn says(run: &mut LarderProcess, operation: &str, answer: &str) {
    run.write_line(operation);
    assert_eq!(run.read_line(), answer, "{operation}");
}

fn ends_small(run: LarderProcess) {
    let peak = run.peak_memory();
    run.succeed();
    assert!(peak < BOUND, "{} MiB at its peak", peak >> 20);
}

#[test]
fn half_a_gigabyte_on_the_server_is_not_read_into_memory() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    put(&server, "huge", 512 << 20);
    let mut run = session(&server, "");
    for operation in ["get huge", "get-many small huge small", "get-or-set huge v"] {
        says(&mut run, operation, "error ValueTooLarge(1048576)");
        // The connection is in order behind it.
        says(&mut run, "get small", "miss");
    }
    says(&mut run, "set small v", "ok");
    says(&mut run, "get-many small none", "hit v miss");
    says(&mut run, "clear huge", "true");
    says(&mut run, "get huge", "miss");
    ends_small(run);
}

#[test]
fn max_value_bytes_bounds_what_is_read_and_what_is_over_it_can_be_replaced() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut run = session(&server, "max_value_bytes = 1000\n");
        for (bytes, is_too_large) in [(1000, false), (1001, true), (64 << 10, true), ((64 << 10) + 1, true)] {
            put(&server, "k", bytes);
            for operation in ["get k", "get-many none k", "get-or-set k v"] {
                run.write_line(operation);
                let answer = run.read_line();
                assert_eq!(answer == "error ValueTooLarge(1000)", is_too_large, "{operation} of {bytes}: {answer:.80}");
            }
        }
        says(&mut run, "set k v", "ok");
        says(&mut run, "get k", "hit v");
        put(&server, "k", 2000);
        says(&mut run, "clear-pattern k*", "1");
        run.succeed();
    }
}

#[test]
fn a_batch_above_8_mib_is_not_read_into_memory() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        put(&server, "k", 1 << 20);
        let mut run = session(&server, "");
        says(&mut run, &format!("get-many{}", " k".repeat(1024)), "error ValueTooLarge(8388608)");
        says(&mut run, "get none", "miss");
        let peak = run.peak_memory();
        run.succeed();
        // What the bound lets through is there twice for a moment: as it came, and as values.
        assert!(peak < BOUND + (16 << 20), "{} MiB at its peak", peak >> 20);
    }
}

#[test]
fn a_key_that_is_too_long_to_be_taken_does_not_stop_a_clear() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut client = server.client();
        let foreign = format!("cache:{}", "k".repeat(200 << 10));
        redis::cmd("SET").arg(&foreign).arg("theirs").exec(&mut client).unwrap();
        let mut run = session(&server, "max_value_bytes = 1000\n");
        says(&mut run, "set k v", "ok");
        says(&mut run, "clear-all", "1");
        says(&mut run, "get k", "miss");
        run.succeed();
        assert!(redis::TypedCommands::exists(&mut client, &foreign).unwrap());
    }
}
