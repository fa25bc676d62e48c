//! Sentinel names the primary, at the start and after a failover.

use larder_tests::{Authority, Kind, Larder, LarderProcess, Sentinels, Server, wait_for};

use larder_tests::documents::rights_after;

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

/// The replication section of a server's `INFO`; empty while its role changes.
fn replication(server: &Server) -> String {
    let said = server.try_client().and_then(|mut client| redis::cmd("INFO").arg("replication").query(&mut client).ok());
    said.unwrap_or_default()
}

fn recovers(session: &mut LarderProcess, value: &str) {
    wait_for("the new primary to be found", || match ask(session, &format!("set k {value}")).as_str() {
        "ok" => Some(()),
        refused => {
            assert!(["error Timeout", "error Unavailable"].contains(&refused), "{refused}");
            None
        }
    });
    assert_eq!(ask(session, "get k"), format!("hit {value}"));
}

/// The sentinels, and a session that has found the new primary after the first one was killed.
fn after_a_failover(kind: Kind) -> Option<(Sentinels, LarderProcess)> {
    let watched = Sentinels::start(kind)?;
    let cache = watched.cache("c");
    Some(kill_the_primary(watched, &cache))
}

fn kill_the_primary(mut watched: Sentinels, cache: &str) -> (Sentinels, LarderProcess) {
    let config = format!("{cache}[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n");
    let mut session = Larder::run("session").config(&config).start();
    assert_eq!(ask(&mut session, "set k first"), "ok");
    let check = Larder::new(["check"]).config(&config).succeed();
    assert!(check.stdout.contains("main of sentinel 127.0.0.1:"), "{}", check.stdout);
    // One sentinel less, the first one in the configuration.
    watched.kill_the_first_sentinel();
    watched.servers[0].kill();
    watched.wait_for_primary(1);
    recovers(&mut session, "second");
    let stored = redis::TypedCommands::get(&mut watched.servers[1].client(), "cache:k").unwrap();
    assert_eq!(stored.as_deref(), Some("second"));
    (watched, session)
}

#[test]
fn a_new_primary_is_found_through_the_sentinels_of_redis() {
    if let Some((_watched, session)) = after_a_failover(Kind::Redis) {
        session.succeed();
    }
}

#[test]
fn a_new_primary_is_found_through_the_sentinels_of_a_newer_valkey() {
    if let Some((_watched, session)) = after_a_failover(Kind::ValkeyWithIfeq) {
        session.succeed();
    }
}

/// The old one comes back as a replica, and then is made the primary again by agreement.
#[test]
fn a_new_primary_is_found_through_the_sentinels_and_the_old_one_again() {
    let Some((mut watched, mut session)) = after_a_failover(Kind::Valkey) else { return };
    watched.servers[0].restart();
    watched.raise_down_after();
    wait_for("the old primary to follow the new one", || {
        replication(&watched.servers[0]).contains("master_link_status:up").then_some(())
    });
    recovers(&mut session, "third");
    wait_for("the sentinels to fail over", || {
        watched.fail_over();
        replication(&watched.servers[0]).contains("role:master").then_some(())
    });
    watched.wait_for_primary(0);
    recovers(&mut session, "fourth");
    session.succeed();
}

/// As when its machine hangs: the connections stay and nobody answers. When it goes on it is a replica.
fn assert_found_while_the_old_one_is_frozen(kind: Kind) {
    let Some(watched) = Sentinels::start(kind) else { return };
    let more = "on_outage = \"error\"\n[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n";
    let mut session = Larder::run("session").config(&format!("{}{more}", watched.cache("c"))).start();
    assert_eq!(ask(&mut session, "set k first"), "ok");
    watched.servers[0].freeze();
    watched.wait_for_primary(1);
    recovers(&mut session, "second");
    watched.servers[0].thaw();
    watched.raise_down_after();
    wait_for("the old primary to follow the new one", || {
        replication(&watched.servers[0]).contains("master_link_status:up").then_some(())
    });
    assert_eq!(ask(&mut session, "get k"), "hit second");
    assert_eq!(ask(&mut session, "set k third"), "ok");
    let stored = redis::TypedCommands::get(&mut watched.servers[1].client(), "cache:k").unwrap();
    assert_eq!(stored.as_deref(), Some("third"));
    session.succeed();
}

#[test]
fn a_new_primary_of_valkey_is_found_while_the_old_one_is_frozen() {
    assert_found_while_the_old_one_is_frozen(Kind::Valkey);
}

#[test]
fn a_new_primary_of_redis_is_found_while_the_old_one_is_frozen() {
    assert_found_while_the_old_one_is_frozen(Kind::Redis);
}

#[test]
fn a_name_that_no_sentinel_knows_stops_the_start_with_one_clear_line() {
    let Some(watched) = Sentinels::start(Kind::Valkey) else { return };
    let unknown = watched.cache("c").replace("\"main\"", "\"mian\"");
    let run = Larder::run("script").config(&unknown).fail(1);
    let start = "larder: cache `c`: cannot find Valkey at `mian of sentinel 127.0.0.1:";
    assert!(run.error_line().starts_with(start), "{}", run.stderr);
    assert!(run.error_line().ends_with("knows no master of that name"), "{}", run.stderr);
    let nobody = "[caches.c]\ntype = \"redis\"\nsentinel = { master = \"main\", nodes = [\"127.0.0.1:1\"] }\n";
    let run = Larder::run("script").config(nobody).fail(1);
    assert!(run.error_line().contains("the sentinel at `127.0.0.1:1`: Connection refused"), "{}", run.stderr);
}

/// The servers have one password, the sentinels another, and all speak TLS.
fn is_found_over_tls_with_passwords(kind: Kind) {
    let authority = Authority::new();
    let tls = authority.server_options(&authority.issue("127.0.0.1"), false);
    let lines = tls.chunks(2).map(|option| format!("{} {}", option[0].trim_start_matches("--"), option[1]));
    let secrets = format!("sentinel auth-pass {} s3cret-server", Sentinels::MASTER);
    let secrets = [&secrets, "requirepass s3cret-guard", "sentinel sentinel-pass s3cret-guard", "tls-replication yes"];
    let lines: Vec<String> = lines.chain(secrets.map(str::to_owned)).collect();
    let options = ["--requirepass", "s3cret-server", "--masterauth", "s3cret-server", "--tls-replication", "yes"];
    let options: Vec<&str> = options.into_iter().chain(tls.iter().map(String::as_str)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let Some(watched) = Sentinels::start_with(kind, &options, &lines) else { return };

    let tls = format!("password = \"s3cret-server\"\ntls = true\nca_file = \"{}\"\n", authority.ca_file().display());
    let with = |password: &str| watched.cache("c").replace(" }", &format!(", password = \"{password}\" }}")) + &tls;
    let run = Larder::run("script").config(&with("s3cret-guess")).env("LARDER_LOG", "trace").fail(1);
    assert!(run.stderr.contains("larder: cache `c`: cannot find "), "{}", run.stderr);
    assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    let cache = with("s3cret-guard");
    let (_watched, session) = kill_the_primary(watched, &cache);
    session.succeed();
}

#[test]
fn a_new_primary_is_found_over_tls_with_passwords_of_valkey() {
    is_found_over_tls_with_passwords(Kind::Valkey);
}

#[test]
fn a_new_primary_is_found_over_tls_with_passwords_of_redis() {
    is_found_over_tls_with_passwords(Kind::Redis);
}

/// Servers and sentinels ask for a user each, who has the rights that the guide names and no others.
fn is_found_by_users_of_the_access_lists(kind: Kind) {
    let rights = rights_after("A user with restricted rights (ACL) needs");
    let mut options = vec!["--requirepass", "s3cret-server", "--masterauth", "s3cret-server"];
    options.extend(["--user", "worker", "on", ">s3cret-worker", "~cache:*", "resetchannels", "-@all"]);
    options.extend(rights.iter().map(String::as_str));
    let scout = rights_after("A user of the sentinels with restricted rights needs").join(" ");
    let lines = [
        &format!("sentinel auth-pass {} s3cret-server", Sentinels::MASTER),
        "requirepass s3cret-guard",
        "sentinel sentinel-pass s3cret-guard",
        &format!("user scout on >s3cret-scout resetchannels -@all {scout}"),
    ];
    let Some(watched) = Sentinels::start_with(kind, &options, &lines) else { return };

    let with = |name: &str, password: &str| {
        let user = format!("username = \"{name}\", password = \"{password}\"");
        let table = watched.cache("c").replace(" }", &format!(", {user} }}"));
        format!("{table}username = \"worker\"\npassword = \"s3cret-worker\"\n")
    };
    for unknown in [with("scout", "s3cret-guard"), with("scouts", "s3cret-scout")] {
        let run = Larder::run("script").config(&unknown).env("LARDER_LOG", "trace").fail(1);
        assert!(run.stderr.contains("larder: cache `c`: cannot find "), "{}", run.stderr);
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    }
    let cache = with("scout", "s3cret-scout");
    let (_watched, session) = kill_the_primary(watched, &cache);
    session.succeed();
}

#[test]
fn a_new_primary_is_found_by_users_of_the_access_lists_of_valkey() {
    is_found_by_users_of_the_access_lists(Kind::Valkey);
}

#[test]
fn a_new_primary_is_found_by_users_of_the_access_lists_of_redis() {
    is_found_by_users_of_the_access_lists(Kind::Redis);
}

#[test]
fn a_new_primary_is_found_by_users_of_the_access_lists_of_a_newer_valkey() {
    is_found_by_users_of_the_access_lists(Kind::ValkeyWithIfeq);
}
