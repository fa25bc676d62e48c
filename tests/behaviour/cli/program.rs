//! The `larder` program beside running plugins: its configuration's place, `check`, `cache`, and the compiled plugins
//! it keeps.

use larder_tests::{Kind, Larder, Server};
use redis::TypedCommands;

#[test]
fn the_configuration_is_the_options_then_the_variables_then_the_folders_then_one_ram_cache() {
    let ram = |name: &str| format!("[caches.{name}]\ntype = \"ram\"\n");
    let names = |larder: Larder| {
        std::fs::write(larder.folder().join("by-option.toml"), ram("by-option")).unwrap();
        std::fs::write(larder.folder().join("by-variable.toml"), ram("by-variable")).unwrap();
        let run = larder.succeed();
        let row = run.stdout.lines().nth(3).unwrap().to_owned();
        row.split_whitespace().next().unwrap().to_owned()
    };
    let option = || Larder::new(["--config", "by-option.toml", "check"]);
    let none = || Larder::new(["check"]);
    let variable = |larder: Larder| larder.env("LARDER_CONFIG", "by-variable.toml");
    assert_eq!(names(variable(option()).config(&ram("by-folder"))), "by-option");
    assert_eq!(names(Larder::new(["check", "--config", "by-option.toml"]).config(&ram("by-folder"))), "by-option");
    assert_eq!(names(variable(none()).config(&ram("by-folder"))), "by-variable");
    assert_eq!(names(none().config(&ram("by-folder"))), "by-folder");
    assert_eq!(names(none().env("LARDER_CONFIG", "").config(&ram("by-folder"))), "by-folder");
    assert_eq!(names(none()), "ram");
}

#[test]
fn check_prints_a_row_for_each_cache_and_succeeds_if_all_are_reachable() {
    let (Some(valkey), Some(redis)) = (Server::start(Kind::Valkey), Server::start(Kind::Redis)) else { return };
    let ram = "default = \"ram\"\n[caches.ram]\ntype = \"ram\"\n".to_owned();
    let config = ram + &valkey.cache("pages") + "db = 2\nprefix = \"app:\"\n" + &redis.cache("sessions");
    let run = Larder::new(["check"]).config(&config).succeed();
    assert_eq!(run.stderr, "");
    let [file, caches, servers] = run.stdout.splitn(3, "\n\n").collect::<Vec<_>>()[..] else {
        panic!("{}", run.stdout)
    };
    assert!(file.starts_with("configuration: ") && file.ends_with("larder.toml"), "{file}");
    let rows: Vec<&str> = caches.lines().collect();
    assert_eq!(rows.len(), 4, "{}", run.stdout);
    let (pages, sessions) = (format!("127.0.0.1:{}/2", valkey.port()), format!("127.0.0.1:{}/0", redis.port()));
    for (row, words) in rows.iter().zip([
        &["NAME", "TYPE", "ADDRESS", "SERVER", "STATUS"][..],
        &["pages", "valkey", &pages, "app:", "Valkey", "ms", "ok"],
        &["ram (default)", "ram", "64.0 MiB", "ok"],
        &["sessions", "redis", &sessions, "cache:", "Redis", "ms", "ok"],
    ]) {
        for word in words {
            assert!(row.contains(word), "`{word}` is not in: {row}");
        }
    }
    let rows: Vec<&str> = servers.lines().collect();
    let (pages, sessions) = (format!("127.0.0.1:{}", valkey.port()), format!("127.0.0.1:{}", redis.port()));
    for (row, words) in rows.iter().zip([
        &["CACHE", "SERVER", "ROLE", "MEMORY", "EVICTION", "PERSISTENCE", "TRACKING", "COMMANDS"][..],
        &["pages", &pages, "primary", "no limit", "noeviction", "none", "yes", "15 of 15"],
        &["sessions", &sessions, "primary", "no limit", "noeviction", "none", "yes", "14 of 14"],
    ]) {
        for word in words {
            assert!(row.contains(word), "`{word}` is not in: {row}");
        }
    }
    let advice = format!("advice: cache `pages`: the server at `{pages}`: `maxmemory` is not set, ");
    assert!(rows[4].starts_with(&advice), "{}", run.stdout);
}

#[test]
fn check_fails_if_a_cache_cannot_be_reached_and_names_it() {
    let Some(server) = Server::start_with(Kind::Valkey, &["--requirepass", "s3cret"]) else { return };
    let config = format!(
        "default = \"up\"\n{}password = \"s3cret\"\n{}password = \"wr0ng-guess\"\n\
         db = 1\n[caches.down]\ntype = \"redis\"\nhost = \"127.0.0.1\"\nport = 1\npassword = \"s3cret\"\n",
        server.cache("up"),
        server.cache("locked"),
    );
    let run = Larder::new(["check"]).config(&config).fail(1);
    let status = |name: &str| {
        let row = run.stdout.lines().find(|row| row.starts_with(name)).unwrap_or_else(|| panic!("{}", run.stdout));
        row.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!((status("up").as_str(), status("down").as_str(), status("locked").as_str()), ("ok", "failed", "failed"));
    let locked = format!("larder: cache `locked`: cannot log in to Valkey at `127.0.0.1:{}`: ", server.port());
    let complaints: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(complaints.len(), 2, "{}", run.stderr);
    assert!(complaints[0].starts_with("larder: cache `down`: cannot reach Redis at `127.0.0.1:1`: "), "{}", run.stderr);
    assert!(complaints[1].starts_with(&locked), "{}", run.stderr);
    for secret in ["s3cret", "wr0ng-guess"] {
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{run:#?}");
    }
}

#[test]
fn check_lists_what_each_plugin_may_do_and_fails_if_its_file_is_not_a_component() {
    let config = "unlisted_plugins = \"deny\"\n[plugins.shop]\npath = \"shop.wasm\"\nroute = \"/\"\nnamespace = \"s\"\n\
                  outgoing_hosts = [\"*.example.com:8443\"]\n[plugins.reader]\naccess = \"read-only\"\n";
    let check = |file: Option<&[u8]>| {
        let larder = Larder::new(["check"]).config(config);
        if let Some(bytes) = file {
            std::fs::write(larder.folder().join("shop.wasm"), bytes).unwrap();
        }
        larder
    };
    let run = check(Some(&wat::parse_str("(component)").unwrap())).succeed();
    for words in [
        &["reader", "all", "read-only", "none"][..],
        &["shop", "all", "read-write", "*.example.com:8443", "/", "shop.wasm", "ok"],
        &["(others)", "none", "read-write"],
    ] {
        let row = run.stdout.lines().find(|row| row.starts_with(words[0])).unwrap_or_else(|| panic!("{}", run.stdout));
        for word in words {
            assert!(row.contains(word), "`{word}` is not in: {row}");
        }
    }
    let run = check(None).fail(1);
    assert!(run.error_line().contains("shop.wasm`: No such file or directory"), "{}", run.stderr);
    let run = check(Some(&wat::parse_str("(module)").unwrap())).fail(1);
    assert!(run.error_line().contains("this is a core WebAssembly module, not a component"), "{}", run.stderr);
    let run = Larder::new(["check"]).succeed();
    assert!(run.stdout.starts_with("configuration: no file, so there is one RAM cache"), "{}", run.stdout);
}

#[test]
fn larder_cache_reports_an_outage_instead_of_a_miss() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        // A replica that has lost its primary and must not serve outdated values.
        let mut client = server.client();
        redis::cmd("CONFIG").arg(&["SET", "replica-serve-stale-data", "no"]).exec(&mut client).unwrap();
        redis::cmd("REPLICAOF").arg(&["127.0.0.1", "1"]).exec(&mut client).unwrap();
        let run = Larder::new(["cache", "get", "k"]).config(&server.cache("c")).fail(1);
        assert!(run.stderr.contains("larder: cache `c`: MASTERDOWN "), "{}", run.stderr);
    }
}

fn cache(config: &str, arguments: &[&str]) -> Larder {
    Larder::new(["cache"].iter().chain(arguments)).config(config)
}

#[test]
fn larder_cache_reads_clears_and_stores() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c") + "default_expire = 600\n[plugins.script]\nnamespace = \"own\"\n";
        let cache = |arguments: &[&str]| cache(&config, arguments);
        let left = |key: &str| redis::cmd("PTTL").arg(key).query::<i64>(&mut server.client()).unwrap();

        assert_eq!(cache(&["set", "user:1", "John"]).succeed().stdout, "");
        assert!((540_000..=600_000).contains(&left("cache:user:1")));
        cache(&["set", "user:1", "Ada", "--duration", "30s"]).succeed();
        assert!((1..=30_000).contains(&left("cache:user:1")));
        cache(&["set", "user:2", "Eve", "--duration", "unlimited"]).succeed();
        assert_eq!(left("cache:user:2"), -1);
        // The bytes and nothing else, not even an end of line.
        assert_eq!(cache(&["get", "user:1"]).succeed().stdout, "Ada");

        Larder::run("script").config(&config).arg("set user:1 scoped").succeed();
        assert_eq!(cache(&["get", "user:1", "--namespace", "own"]).succeed().stdout, "scoped");
        assert_eq!(cache(&["--cache", "c", "get", "user:1"]).succeed().stdout, "Ada");

        assert_eq!(cache(&["clear-pattern", "user:*"]).succeed().stdout, "2\n");
        assert_eq!(cache(&["--namespace", "own", "clear", "user:1"]).succeed().stdout, "");
        cache(&["set", "a", "1"]).succeed();
        assert_eq!(cache(&["clear-all"]).succeed().stdout, "1\n");
        assert_eq!(cache(&["clear-all"]).succeed().stdout, "0\n");
        assert_eq!(server.client().keys("*").unwrap().len(), 0);
    }
}

#[test]
fn a_value_is_read_from_standard_input_for_a_dash() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let mut set = cache(&server.cache("c"), &["set", "text", "-"]).start();
    set.write_line("two");
    set.write_line("lines");
    set.succeed();
    assert_eq!(cache(&server.cache("c"), &["get", "text"]).succeed().stdout, "two\nlines\n");
}

#[test]
fn keys_are_listed_up_to_a_limit_and_by_a_pattern() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c");
        let mut client = server.client();
        for n in 0..30 {
            client.set(format!("cache:user:{n}"), "v").unwrap();
        }
        client.set("cache:page", "v").unwrap();
        client.set("other:k", "v").unwrap();
        client.set("cache:ns\u{1f}k", "v").unwrap();
        let list = |arguments: &[&str]| {
            let run = cache(&config, &[&["keys"], arguments].concat()).succeed();
            let mut keys: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
            keys.sort();
            (keys, run.stderr)
        };
        let (all, stderr) = list(&[]);
        assert_eq!((all.len(), all[0].as_str(), stderr.as_str()), (31, "page", ""));
        assert_eq!(list(&["page*"]).0, ["page"]);
        assert_eq!(list(&["user:2?"]).0.len(), 10);
        assert_eq!(list(&["nothing*"]), (vec![], String::new()));
        let (some, stderr) = list(&["user:*", "--limit", "7"]);
        assert_eq!(some.len(), 7);
        assert_eq!(stderr, "larder: only the first 7 keys: raise `--limit`, or name a narrower pattern\n");
        // As many as there are.
        assert_eq!(list(&["page", "--limit", "1"]).0, ["page"]);
    }
}

#[test]
fn info_shows_the_size_and_the_life_of_a_value_or_a_lease() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("c") + "max_value_bytes = 100\n";
        let mut client = server.client();
        let info = |key: &str| cache(&config, &["info", key]);
        client.set("cache:stays", "12345").unwrap();
        assert_eq!(info("stays").succeed().stdout, "value of 5 B, does not expire\n");
        client.set_ex("cache:goes", "", 1000).unwrap();
        let goes = info("goes").succeed().stdout;
        assert!(goes.starts_with("value of 0 B, expires in 16m "), "{goes}");
        client.set("cache:large", "x".repeat(2000)).unwrap();
        assert_eq!(info("large").succeed().stdout, "value of 2.0 KiB, does not expire\n");
        let mut holder = Larder::run("session").config(&config).start();
        holder.write_line("take k");
        holder.read_line();
        let lease = info("k").succeed().stdout;
        assert!(lease.starts_with("lease of a caller that computes the value, lapses in "), "{lease}");
        let nothing = info("nothing").fail(1);
        assert_eq!((nothing.stdout.as_str(), nothing.error_line()), ("", "larder: no value"));
        assert!(info("a\nb").fail(2).error_line().contains("key: must not hold control characters"));
    }
}

#[test]
fn a_miss_is_status_1_with_nothing_on_standard_output() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for operation in ["get", "clear"] {
        let run = cache(&server.cache("c"), &[operation, "nothing"]).fail(1);
        assert_eq!((run.stdout.as_str(), run.error_line()), ("", "larder: no value"));
    }
}

#[test]
fn an_invalid_cache_command_is_status_2_with_a_reason() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config =
        format!("default = \"ram\"\n[caches.ram]\ntype = \"ram\"\n{}max_value_bytes = 10\n", server.cache("c"));
    let long = "x".repeat(11);
    for (arguments, words) in [
        (&["get", "k"][..], "cache `ram` is a RAM cache: only the process that has it can reach it"),
        (&["--cache", "none", "get", "k"], "there is no cache `none`, only `c`, `ram`"),
        (&["--cache", "c", "get", ""], "key: must not be empty"),
        (&["--cache", "c", "get", "a\nb"], "key: must not hold control characters"),
        (&["--cache", "c", "clear-pattern", ""], "pattern: must not be empty"),
        (&["--cache", "c", "--namespace", "", "clear-all"], "namespace: must not be empty"),
        (&["--cache", "c", "set", "k", &long], "value of 11 bytes is over the limit: 10"),
    ] {
        let run = cache(&config, arguments).fail(2);
        assert!(run.error_line().contains(words), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn the_program_calls_itself_by_its_name() {
    let short = format!("larder {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(Larder::new(["-V"]).succeed().stdout, format!("{short}\n"));
    let long = Larder::new(["--version"]).succeed().stdout;
    let lines: Vec<&str> = long.lines().collect();
    // A build that names a commit has it in brackets.
    assert!(lines[0] == short || lines[0].starts_with(&format!("{short} (")), "{long}");
    let interfaces = ["larder:cache/cache@0.1.1", "larder:cache/cache-async@0.1.1"];
    let lock = larder_tests::repository::read("Cargo.lock");
    let wasmtime =
        lock.split("\nname = \"wasmtime\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!((lines[1], &lines[2..]), (format!("wasmtime {wasmtime}").as_str(), &interfaces[..]), "{long}");
}
