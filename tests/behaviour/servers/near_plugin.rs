//! Plugins on a cache with a near tier: the program, its configuration, and the calls of the interface.

use larder_tests::{Kind, Larder, Server, wait_for};

fn reads(server: &Server) -> u64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.client()).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

/// Once with near hits and once without, and a plugin cannot tell.
#[test]
fn a_plugin_gets_the_same_answers_and_the_server_fewer_reads() {
    for kind in Kind::ALL {
        for (near, is_near) in [("", false), ("near = { max_staleness = \"60s\" }\n", true)] {
            let Some(server) = Server::start(kind) else { continue };
            let config = format!("{}timeout = \"20s\"\n{near}[sandbox]\ntimeout = \"5m\"\n", server.cache("c"));
            let mut session = Larder::run("session").config(&config).start();
            let mut ask = |operation: &str| {
                session.write_line(operation);
                session.read_line()
            };
            assert_eq!(ask("get k"), "miss");
            assert_eq!(ask("set k v"), "ok");
            assert_eq!(ask("get k"), "hit v");
            let before = reads(&server);
            for _ in 0..50 {
                assert_eq!(ask("get k"), "hit v");
            }
            // The announcement of the plugin's own write may have poisoned the first fetch.
            let reads = reads(&server) - before;
            assert!(if is_near { reads <= 1 } else { reads == 50 }, "{reads} reads");
            // Within seconds, though the values may be a minute old.
            redis::cmd("SET").arg("cache:k").arg("w").exec(&mut server.client()).unwrap();
            wait_for("the announcement", || (ask("get k") == "hit w").then_some(()));
            session.succeed();
        }
    }
}
