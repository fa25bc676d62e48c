//! Servers that answer and cannot serve: paused, loading, or with a disk that is full.

use larder_tests::{Kind, Larder, LarderProcess, Server, wait_for};

fn session(server: &Server) -> LarderProcess {
    let more = "on_outage = \"error\"\n[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n";
    Larder::run("session").config(&format!("{}{more}", server.cache("c"))).start()
}

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

fn recovers(session: &mut LarderProcess) {
    wait_for("the cache to work again", || (ask(session, "set back 1") == "ok").then_some(()));
    assert_eq!(ask(session, "get back"), "hit 1");
}

#[test]
fn a_paused_server_is_waited_for_within_the_deadline() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut session = session(&server);
        assert_eq!(ask(&mut session, "set k v"), "ok");
        let mut client = server.client();
        redis::cmd("CLIENT").arg(&["PAUSE", "2000", "ALL"]).exec(&mut client).unwrap();
        assert_eq!(ask(&mut session, "get k"), "error Timeout");
        assert_eq!(ask(&mut session, "set k w"), "error Timeout");
        recovers(&mut session);
        session.succeed();
    }
}

#[test]
fn a_server_that_refuses_writes_serves_reads_until_the_next_write() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut session = session(&server);
        assert_eq!(ask(&mut session, "set k v"), "ok");
        let mut client = server.client();
        redis::cmd("CLIENT").arg(&["PAUSE", "60000", "WRITE"]).exec(&mut client).unwrap();
        assert_eq!(ask(&mut session, "get k"), "hit v");
        // What comes behind it on the connection waits with it.
        assert_eq!(ask(&mut session, "set k w"), "error Timeout");
        redis::cmd("CLIENT").arg("UNPAUSE").exec(&mut client).unwrap();
        recovers(&mut session);
        session.succeed();
    }
}

#[test]
fn a_server_that_loads_its_data_is_unavailable_until_it_has() {
    for kind in Kind::ALL {
        // What it has acknowledged it has on disk.
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        // A key takes it 20 ms, and it answers in between.
        let slow = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"];
        let Some(mut server) = Server::start_with(kind, &[durable, slow].concat()) else { continue };
        let mut session = session(&server);
        for n in 0..100 {
            assert_eq!(ask(&mut session, &format!("set k{n} v{n}")), "ok");
        }
        server.kill();
        let restarted = std::thread::scope(|scope| {
            let restarting = scope.spawn(|| server.restart());
            let mut seen = 0;
            while !restarting.is_finished() {
                let answer = ask(&mut session, "get k7");
                assert!(["hit v7", "error Unavailable", "error Timeout"].contains(&answer.as_str()), "{answer}");
                seen += 1;
            }
            seen
        });
        assert!(restarted > 0);
        recovers(&mut session);
        assert_eq!(ask(&mut session, "get k7"), "hit v7");
        session.succeed();
    }
}

#[test]
fn a_server_whose_disk_is_full_serves_reads_and_refuses_writes() {
    for kind in Kind::ALL {
        let aof = ["--appendonly", "yes", "--appendfsync", "everysec"];
        let Some(server) = Server::start_with_file_limit(kind, 256, &aof) else { continue };
        let mut session = session(&server);
        assert_eq!(ask(&mut session, "set k v"), "ok");
        let large = "x".repeat(1000);
        let refused = (0..2000).map(|n| ask(&mut session, &format!("set k{n} {large}"))).find(|answer| answer != "ok");
        let refused = refused.unwrap_or_else(|| {
            wait_for("the server to see that its disk is full", || {
                Some(ask(&mut session, "set more 1")).filter(|answer| answer != "ok")
            })
        });
        assert_eq!(refused, "error Unavailable");
        assert_eq!(ask(&mut session, "get k"), "hit v");
        assert_eq!(ask(&mut session, "clear k"), "error Unavailable");
        assert_eq!(ask(&mut session, "get k"), "hit v");
        session.succeed();
    }
}
