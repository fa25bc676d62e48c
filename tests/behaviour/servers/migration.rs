//! Valkey and Redis are interchangeable, except for the `type` of the cache.

use std::collections::BTreeMap;

use larder_tests::{Kind, Larder, Server};
use redis::TypedCommands;

/// What a cache holds on its server: each key's bytes, and whether it expires.
fn dump(server: &Server) -> BTreeMap<Vec<u8>, (Vec<u8>, bool)> {
    let mut client = server.client();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let entry = |key: Vec<u8>| {
        let value: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut client).unwrap();
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut client).unwrap();
        (key, (value, left > 0))
    };
    keys.into_iter().map(entry).collect()
}

/// One of each operation.
fn work(server: &Server, type_name: &str) -> String {
    let config = server.cache_of_type("shared", type_name) + "[plugins.scoped]\nnamespace = \"own\"\n";
    let mut script = Larder::run("script").config(&config);
    for operation in [
        "set user:1 John",
        "set käse öl",
        "set brief x 60000",
        "set for-ever x unlimited",
        "set a*b x",
        "get-or-set computed 42",
        "get-or-set computed 43",
        "get-many user:1 missing computed",
        "set gone x",
        "clear gone",
        "clear gone",
        "set old:1 x",
        "set old:2 x",
        "clear-pattern old:?",
        "get brief",
    ] {
        script = script.arg(operation);
    }
    let shared = script.succeed().stdout;
    let scoped = Larder::run_with(&["--name", "scoped"], "script").config(&config);
    let scoped = scoped.arg("set mine x").arg("get user:1").succeed().stdout;
    let values = Larder::run("values").config(&config).succeed().stdout;
    shared + &scoped + &values
}

#[test]
fn the_same_plugin_works_the_same_when_the_type_goes_from_redis_to_valkey() {
    let (Some(redis), Some(valkey)) = (Server::start(Kind::Redis), Server::start(Kind::Valkey)) else { return };
    let before = work(&redis, "redis");
    let after = work(&valkey, "valkey");
    assert_eq!(before, after);
    let (before, after) = (dump(&redis), dump(&valkey));
    for key in ["cache:user:1", "cache:käse", "cache:for-ever", "cache:a*b", "cache:computed", "cache:own\x1fmine"] {
        assert!(before.contains_key(key.as_bytes()), "{key}: {:?}", before.keys());
    }
    assert!(before == after, "{:?}\n{:?}", before.keys(), after.keys());
}

#[test]
fn either_type_works_with_either_server_and_leaves_the_same() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let first = work(&server, "redis");
        let held = dump(&server);
        server.client().flushdb().unwrap();
        assert_eq!(work(&server, "valkey"), first, "{kind:?}");
        assert!(dump(&server) == held, "{kind:?}");
    }
}

#[test]
fn a_cache_of_either_type_reads_and_clears_values_of_the_other() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let (redis, valkey) = (server.cache_of_type("c", "redis"), server.cache_of_type("c", "valkey"));
    Larder::run("script").config(&redis).arg("set shared:data 42").succeed();
    let after = Larder::run("script").config(&valkey).arg("get shared:data").arg("clear-all").succeed();
    assert_eq!(after.stdout, "hit 42\n1\n");
    let back = Larder::run("script").config(&redis).arg("get shared:data").succeed();
    assert_eq!(back.stdout, "miss\n");
}
