//! The scenarios of the specification: defaults, storing, expiry, clearing, many caches, many workers.

use std::path::Path;
use std::time::Duration;

use larder_host::Config;
use larder_host::config::BackendConfig;
use larder_tests::{Kind, Larder, Server, on_every_backend};
use redis::TypedCommands;

#[test]
fn a_server_cache_with_no_keys_but_its_type_has_the_promised_defaults() {
    for kind in Kind::ALL {
        let text = format!("[caches.c]\ntype = \"{}\"\n", kind.type_name());
        let config = Config::parse(&text, "larder.toml", Path::new(""), &|_| None).unwrap();
        assert_eq!(config.default, "c");
        let cache = &config.caches["c"];
        let BackendConfig::Server(options) = &cache.backend else { panic!("{cache:?}") };
        assert_eq!((options.deployment.to_string().as_str(), options.db), ("localhost:6379", 0));
        assert_eq!(options.prefix, "cache:");
        assert_eq!(cache.policy.default_expire, Some(Duration::from_secs(300)));
    }
}

#[test]
fn host_port_db_prefix_and_default_expire_are_honoured() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c") + "db = 1\nprefix = \"app:\"\ndefault_expire = 600\n";
        let run = Larder::run("script").config(&config).arg("set user:123 John").arg("set brief x 60000").succeed();
        assert_eq!(run.stdout, "ok\nok\n");

        let mut client = server.client_of_db(1);
        assert_eq!(client.get("app:user:123").unwrap().as_deref(), Some("John"));
        let (default, own) = (pttl(&mut client, "app:user:123"), pttl(&mut client, "app:brief"));
        assert!((540_000..=600_000).contains(&default), "{default}");
        assert!((1..=60_000).contains(&own), "{own}");
        assert_eq!(client.keys("*").unwrap().len(), 2);
        assert_eq!(server.client().keys("*").unwrap().len(), 0);
    }
}

fn pttl(client: &mut redis::Connection, key: &str) -> i64 {
    redis::cmd("PTTL").arg(key).query(client).unwrap()
}

#[test]
fn an_unlimited_value_has_no_expiry_on_the_server_unless_there_is_a_max_expire() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c");
        Larder::run("script").config(&config).arg("set for-ever x unlimited").succeed();
        assert_eq!(pttl(&mut server.client(), "cache:for-ever"), -1);
        let bounded = config + "max_expire = \"1m\"\n";
        let script = Larder::run("script").config(&bounded);
        script.arg("set for-ever x unlimited").arg("set default x").arg("set long x 3600000").succeed();
        for key in ["cache:for-ever", "cache:default", "cache:long"] {
            let left = pttl(&mut server.client(), key);
            assert!((1..=60_000).contains(&left), "{key}: {left}");
        }
    }
}

#[test]
fn a_value_comes_back_as_it_was_stored() {
    on_every_backend(|config| assert_eq!(Larder::run("values").config(config).succeed().stdout, "as stored\n"));
}

/// More than the default limit of wasmtime for one call.
#[test]
fn a_value_within_a_limit_of_200_mib_is_stored() {
    let config = "[caches.c]\ntype = \"ram\"\nmax_bytes = \"1GiB\"\nmax_value_bytes = \"200MiB\"\n\
                  [sandbox]\nmax_memory = \"1GiB\"\n";
    let run = Larder::run("script").config(config).arg("set-large k 157286400").arg("clear k").succeed();
    assert_eq!(run.stdout, "ok\ntrue\n");
}

#[test]
fn a_value_set_for_two_seconds_is_gone_after_them() {
    on_every_backend(|config| assert_eq!(Larder::run("expires").config(config).succeed().stdout, "expired\n"));
}

#[test]
fn clear_removes_one_key() {
    on_every_backend(|config| {
        let script = Larder::run("script").config(config).arg("set test:key 1").arg("set test:* 2");
        let script = script.arg("clear test:*").arg("get test:key").arg("clear test:key").arg("get test:key");
        let run = script.arg("clear test:key").succeed();
        assert_eq!(run.stdout, "ok\nok\ntrue\nhit 1\ntrue\nmiss\nfalse\n");
    });
}

#[test]
fn clear_pattern_removes_what_matches_and_nothing_else() {
    on_every_backend(|config| {
        let mut script = Larder::run("script").config(config);
        for key in ["user:1", "user:2", "user:3", "post:1"] {
            script = script.arg(format!("set {key} x"));
        }
        let run = script.arg("clear-pattern user:*").arg("get-many user:1 user:2 user:3 post:1").succeed();
        assert_eq!(run.stdout, "ok\n".repeat(4) + "3\nmiss miss miss hit x\n");
    });
}

#[test]
fn clear_all_removes_everything_from_the_cache() {
    on_every_backend(|config| {
        let script = Larder::run("script").config(config).arg("set user:1 x").arg("set post:1 y");
        let run = script.arg("clear-all").arg("get-many user:1 post:1").arg("clear-all").succeed();
        assert_eq!(run.stdout, "ok\nok\n2\nmiss miss\n0\n");
    });
}

/// The second prefix is one that, not escaped, would be a glob for the keys of others.
#[test]
fn clear_all_leaves_foreign_keys_in_the_same_database() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut client = server.client();
        for (prefix, foreign) in
            [("cache:", ["cache", "cachet:1", "Cache:1", "session:1"]), ("[a-z]*:", ["x:1", "ab:1", "[a-z]x:1", ":"])]
        {
            let config = format!("{}prefix = \"{prefix}\"\n", server.cache("c"));
            for key in foreign {
                client.set(key, "foreign").unwrap();
            }
            let script = Larder::run("script").config(&config).arg("set 1 x").arg("set user:1 y");
            let run = script.arg("clear-pattern *1").arg("set 1 x").arg("clear-all").succeed();
            assert_eq!(run.stdout, "ok\nok\n2\nok\n1\n", "{prefix}");
            for key in foreign {
                assert_eq!(client.get(key).unwrap().as_deref(), Some("foreign"), "{prefix} cleared {key}");
            }
        }
        assert_eq!(client.keys("*").unwrap().len(), 8);
    }
}

#[test]
fn of_two_caches_each_is_reached_by_name_and_the_default_without_one() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = format!("default = \"ram\"\n[caches.ram]\ntype = \"ram\"\n{}", server.cache("valkey"));
    let first = Larder::run("script").config(&config).arg("set where default");
    let first = first.arg("open ram").arg("get where").arg("set ram-only 1");
    let first = first.arg("open valkey").arg("get where").arg("get ram-only").arg("set where valkey");
    let first = first.arg("open-default").arg("get where").succeed();
    assert_eq!(first.stdout, "ok\nhit default\nok\nmiss\nmiss\nok\nhit default\n");
    assert_eq!(server.client().keys("*").unwrap(), ["cache:where"]);

    let second = Larder::run("script").config(&config).arg("get where").arg("open ram").arg("get ram-only");
    let second = second.arg("open valkey").arg("get where").succeed();
    assert_eq!(second.stdout, "miss\nmiss\nhit valkey\n");
}

#[test]
fn an_async_closure_computes_on_a_miss_and_not_on_a_hit() {
    assert_eq!(Larder::run("async_compute").succeed().stdout, "1 computations\n");
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let first = Larder::run("async_compute").config(&server.cache("c")).succeed();
        assert_eq!(first.stdout, "1 computations\n");
        let left = pttl(&mut server.client(), "cache:key");
        assert!((1..=30_000).contains(&left), "{left}");
        assert_eq!(server.client().get("cache:key").unwrap().as_deref(), Some("\"value\""));
        let second = Larder::run("async_compute").config(&server.cache("c")).succeed();
        assert_eq!(second.stdout, "0 computations\n");
    }
}

#[test]
fn four_workers_receive_the_value_that_the_first_computed() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let worker = |n: u32| {
            let mut worker = Larder::run("session").config(&server.cache("c")).start();
            worker.write_line("get nothing");
            assert_eq!(worker.read_line(), "miss");
            (n, worker)
        };
        // All four are running before the first of them computes.
        let mut workers: Vec<_> = (1..=4).map(worker).collect();
        for (n, worker) in &mut workers {
            worker.write_line(&format!("compute report by-{n}"));
            assert_eq!(worker.read_line(), "computed by-1", "worker {n}");
        }
        for (_, worker) in workers {
            worker.succeed();
        }
    }
}
