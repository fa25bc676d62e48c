//! Servers and users without client tracking or scripts, and the commands that waiting costs the server.

use std::time::{Duration, Instant};

use larder_tests::{Larder, Server};

use super::{LONG_LEASE, ask, config, on_every_server, one_computes_for_all, session, waiting};

/// How many commands the server has carried out.
fn commands(client: &mut redis::Connection) -> usize {
    let info: String = redis::cmd("INFO").arg("stats").query(client).unwrap();
    let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.unwrap().trim().parse().unwrap()
}

#[test]
fn waiters_send_few_commands_to_the_server() {
    const WAITERS: usize = 3;
    on_every_server(|server| {
        let mut holder = session(&server, "lease = \"10s\"\n");
        assert_eq!(ask(&mut holder, "take k"), "vacant");
        let mut waiters = waiting(WAITERS, &server, "lease = \"10s\"\n");
        let mut client = server.client();
        let (before, started) = (commands(&mut client), Instant::now());
        std::thread::sleep(Duration::from_secs(3));
        let (sent, seconds) = (commands(&mut client) - before, started.elapsed().as_secs_f64());
        // Each looks once a second, with three commands, and once more when the lease was renewed, all three seconds.
        // Polling would take many times more.
        let most = (WAITERS * 3 * 2) as f64 * (seconds + 1.0);
        assert!(sent as f64 <= most, "{sent} commands in {seconds} s, and at most {most} are due");
        assert_eq!(ask(&mut holder, "fill k held"), "filled true");
        for waiter in &mut waiters {
            assert_eq!(waiter.read_line(), "hit held");
        }
    });
}

/// Adds a user with all rights except `without`, and returns lines in TOML for a cache that uses it.
fn limited_user(server: &Server, without: &str) -> String {
    let mut client = server.client();
    let user = ["SETUSER", "worker", "on", ">s3cret", "~cache:*", "+@all", without];
    let _ok: String = redis::cmd("ACL").arg(&user).query(&mut client).unwrap();
    "username = \"worker\"\npassword = \"s3cret\"\n".to_owned()
}

/// What `larder check` says that the server supports: the column between the round trip and the status.
fn supported(server: &Server, more: &str) -> String {
    let stdout = Larder::new(["check"]).config(&config(server, more)).succeed().stdout;
    let row = stdout.lines().skip_while(|line| !line.starts_with("NAME ")).nth(1).unwrap();
    row.rsplit_once(" ms ")
        .and_then(|(_, end)| end.strip_suffix("ok"))
        .unwrap_or_else(|| panic!("{row}"))
        .trim()
        .to_owned()
}

/// Whether the server has `SET … IFEQ`, by its version.
fn has_ifeq(server: &Server) -> bool {
    let info: String = redis::cmd("INFO").arg("server").query(&mut server.client()).unwrap();
    let version = |name: &str| {
        let version = info.lines().find_map(|line| line.strip_prefix(name))?;
        let mut numbers = version.split('.').map(|number| number.trim().parse::<u32>().unwrap());
        Some((numbers.next().unwrap(), numbers.next().unwrap()))
    };
    match (version("valkey_version:"), version("redis_version:")) {
        (Some(valkey), _) => valkey >= (8, 1),
        (None, Some(redis)) => redis >= (8, 4),
        (None, None) => panic!("{info}"),
    }
}

#[test]
fn check_says_what_the_server_supports() {
    on_every_server(|server| {
        let compare = if has_ifeq(&server) { "IFEQ" } else { "scripts" };
        assert_eq!(supported(&server, ""), format!("{compare}, tracking"));
        assert_eq!(supported(&server, &limited_user(&server, "-client|tracking")), compare);
    });
}

#[test]
fn a_user_without_client_tracking_receives_the_value_by_polling() {
    on_every_server(|server| {
        let more = limited_user(&server, "-client|tracking") + LONG_LEASE;
        for ends_well in [true, false] {
            let mut holder = session(&server, &more);
            assert_eq!(ask(&mut holder, "take k"), "vacant");
            let mut waiters = waiting(3, &server, &more);
            if ends_well {
                assert_eq!(ask(&mut holder, "fill k held"), "filled true");
                for waiter in &mut waiters {
                    assert_eq!(waiter.read_line(), "hit held");
                }
                assert_eq!(ask(&mut holder, "clear k"), "true");
            } else {
                assert_eq!(ask(&mut holder, "drop k"), "dropped");
                one_computes_for_all(&server, &mut waiters);
            }
        }
    });
}

#[test]
fn a_user_without_scripts_is_refused_if_the_server_has_no_ifeq() {
    on_every_server(|server| {
        let more = limited_user(&server, "-@scripting");
        if has_ifeq(&server) {
            assert_eq!(supported(&server, &more), "IFEQ, tracking");
            let mut process = session(&server, &more);
            assert_eq!(ask(&mut process, "get-or-set k v"), "vacant, filled true");
            return;
        }
        let refused = Larder::run("session").config(&config(&server, &more)).fail(1);
        let start = format!(
            "larder: cache `c`: cannot use {} at `127.0.0.1:{}`: it has neither `SET … IFEQ` (Valkey 8.1) nor scripts",
            server.kind().name(),
            server.port()
        );
        assert!(refused.error_line().starts_with(&start), "{}", refused.stderr);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    });
}
