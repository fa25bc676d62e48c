//! Replies that are lost after the server has executed the command: each write is sent once, and the plugin gets the error.

use larder_tests::{Fault, Kind, Larder, Relay, Server, Side};

/// Runs the operations `before`, loses all further replies of the server, and runs `operation`. Returns what the plugin prints
/// for it, and how often the server has executed a script from then on.
fn without_a_reply(server: &Server, plugin: &str, before: &[&str], operation: &str) -> (String, u64) {
    let relay = Relay::to(server.port());
    let cache = "[caches.cache]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\n";
    let limits = "timeout = \"3s\"\nconnect_timeout = \"3s\"\n[sandbox]\ntimeout = \"2m\"\n";
    let config = format!("{cache}port = {}\n{limits}", relay.port());
    let larder = before.iter().fold(Larder::run(plugin).config(&config), |larder, operation| larder.arg(operation));
    let mut running = larder.arg(operation).start();
    while running.read_line() != "waiting" {}
    let scripts = scripts(server);
    relay.set_fault(Fault::Mute(Side::Server));
    running.write_line("go on");
    let printed = running.succeed().stdout;
    (printed.lines().last().unwrap_or_default().to_owned(), self::scripts(server) - scripts)
}

/// How many scripts the server has executed.
fn scripts(server: &Server) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut server.client()).unwrap();
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls="));
    calls.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

fn value(server: &Server, key: &str) -> Option<String> {
    redis::cmd("GET").arg(format!("cache:{key}")).query(&mut server.client()).unwrap()
}

const LOST: &str = "error: other: timeout: no answer in time; a write may or may not have happened";

#[test]
fn an_increment_whose_reply_is_lost_is_executed_once() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        for (plugin, error) in [("kv_draft", LOST), ("kv_draft2", LOST), ("kv_wasmcloud", "error: timeout")] {
            let add = format!("increment {plugin} 1");
            assert_eq!(without_a_reply(&server, plugin, &[&add, "await"], &add), (error.to_owned(), 1), "{plugin}");
            assert_eq!(value(&server, plugin).as_deref(), Some("2"), "{plugin}");
        }
    }
}

#[test]
fn a_swap_whose_reply_is_lost_is_executed_once() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let swapped = without_a_reply(&server, "kv_draft2", &["set k one"], "swap-awaiting k two");
        assert_eq!((swapped, value(&server, "k").as_deref()), ((LOST.to_owned(), 1), Some("two")));
        let before = ["set l one", "current l", "await"];
        let swapped = without_a_reply(&server, "kv_wasmcloud", &before, "swap l two");
        assert_eq!((swapped, value(&server, "l").as_deref()), (("error: timeout".to_owned(), 1), Some("two")));
    }
}

#[test]
fn a_set_if_not_exists_whose_reply_is_lost_is_executed_once() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let stored = without_a_reply(&server, "kv_wasmcloud", &["exists k", "await"], "set-new k mine");
        assert_eq!((stored, value(&server, "k").as_deref()), (("error: timeout".to_owned(), 1), Some("mine")));
        // A swap of a key that had no value is the same command.
        let stored = without_a_reply(&server, "kv_draft2", &["exists l"], "swap-awaiting l mine");
        assert_eq!((stored, value(&server, "l").as_deref()), ((LOST.to_owned(), 1), Some("mine")));
    }
}
