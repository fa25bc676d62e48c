//! docs/migrating.md, step by step, between real servers.

use std::path::PathBuf;
use std::process::Command;

use larder_tests::documents::blocks;
use larder_tests::repository::read;
use larder_tests::{Kind, Larder, Server, wait_for};
use redis::Commands;

/// How the guide's scripts begin that these tests follow.
pub(super) const GUIDED: [&str; 4] = ["old=", SAVE, APPEND, REPLICATE];
const SAVE: &str = "redis-cli -h redis.example.com SAVE\n";
const APPEND: &str = "valkey-cli CONFIG SET appendonly yes\n";
const REPLICATE: &str = "valkey-cli REPLICAOF redis.example.com 6379\n";

/// Runs the script of the guide that begins so, with our servers for those in it, and answers what it prints.
fn follow(beginning: &str, old: &Server, new: Option<&Server>) -> String {
    let scripts = blocks(&read("docs/migrating.md"), "sh");
    let script = scripts.into_iter().find(|script| script.starts_with(beginning)).unwrap();
    let port = |server: &Server| server.port().to_string();
    let mut script = script
        .replace("-h redis.example.com", &format!("-p {}", port(old)))
        .replace("redis.example.com 6379", &format!("127.0.0.1 {}", port(old)));
    if let Some(new) = new {
        script = script
            .replace("-h valkey.example.com", &format!("-p {}", port(new)))
            .replace("valkey-cli CONFIG", &format!("valkey-cli -p {} CONFIG", port(new)))
            .replace("valkey-cli INFO", &format!("valkey-cli -p {} INFO", port(new)))
            .replace("valkey-cli REPLICAOF", &format!("valkey-cli -p {} REPLICAOF", port(new)));
    }
    let output = Command::new("sh").arg("-c").arg(&script).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A Redis whose files a Valkey reads, by the guide's table, with a value in it.
fn old_server(arguments: &[&str]) -> Option<Server> {
    let server = Server::start_with(Kind::Redis, arguments)?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut server.client()).unwrap();
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
    if (numbers.next(), numbers.next()) > (Some(7), Some(2)) {
        eprintln!("skipped: Redis {version} writes files that no Valkey reads");
        return None;
    }
    let script = Larder::run("script").config(&server.cache("shared"));
    script.arg("set user:1 John 100000").arg("set for-ever x unlimited").succeed();
    Some(server)
}

/// A plugin finds what it stored, and it still expires.
fn assert_arrived(server: &Server) {
    let run = Larder::run("script").config(&server.cache("shared")).arg("get user:1").arg("get for-ever");
    assert_eq!(run.succeed().stdout, "hit John\nhit x\n");
    let left: i64 = redis::cmd("PTTL").arg("cache:user:1").query(&mut server.client()).unwrap();
    assert!((1..=100_000).contains(&left), "{left} ms are left");
}

/// Where a server keeps its files.
fn folder(server: &Server) -> PathBuf {
    let answer: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("dir").query(&mut server.client()).unwrap();
    answer[1].clone().into()
}

#[test]
fn an_rdb_file_takes_the_values_along_and_an_aof_can_follow() {
    for kind in [Kind::Valkey, Kind::ValkeyWithIfeq] {
        let Some(old) = old_server(&[]) else { return };
        let printed = follow(SAVE, &old, None);
        let lines: Vec<&str> = printed.lines().collect();
        let [_, "dir", from, "dbfilename", file] = lines[..] else { panic!("{printed}") };
        let to = tempfile::TempDir::new().unwrap();
        std::fs::copy(PathBuf::from(from).join(file), to.path().join("dump.rdb")).unwrap();
        let to = to.path().to_str().unwrap();
        let Some(mut new) = Server::start_with(kind, &["--dir", to, "--appendonly", "no"]) else { return };
        assert_arrived(&new);

        follow(APPEND, &old, Some(&new));
        wait_for("the append-only file", || {
            let info: String = redis::cmd("INFO").arg("persistence").query(&mut new.client()).unwrap();
            info.contains("aof_rewrite_in_progress:0").then_some(())
        });
        new.kill();
        let Some(again) = Server::start_with(kind, &["--dir", to, "--appendonly", "yes"]) else { return };
        assert_arrived(&again);
    }
}

#[test]
fn an_aof_takes_the_values_along() {
    let Some(mut old) = old_server(&["--appendonly", "yes"]) else { return };
    let from = folder(&old).join("appendonlydir");
    old.kill();
    let to = tempfile::TempDir::new().unwrap();
    let copied = to.path().join("appendonlydir");
    std::fs::create_dir(&copied).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copied.join(entry.file_name())).unwrap();
    }
    let arguments = ["--dir", to.path().to_str().unwrap(), "--appendonly", "yes"];
    let Some(new) = Server::start_with(Kind::Valkey, &arguments) else { return };
    assert_arrived(&new);
}

#[test]
fn replication_takes_the_values_along() {
    for kind in [Kind::Valkey, Kind::ValkeyWithIfeq] {
        let Some(old) = old_server(&[]) else { return };
        let Some(new) = Server::start(kind) else { return };
        let () = new.client().set("cache:before", "discarded").unwrap();
        follow(REPLICATE, &old, Some(&new));
        wait_for("the replica", || {
            let info: String = redis::cmd("INFO").arg("replication").query(&mut new.client()).unwrap();
            info.contains("master_link_status:up").then_some(())
        });
        assert!(redis::cmd("SET").arg("k").arg("v").query::<()>(&mut new.client()).is_err(), "it takes writes already");
        let output =
            Command::new("valkey-cli").args(["-p", &new.port().to_string(), "REPLICAOF", "NO", "ONE"]).output();
        assert!(output.unwrap().status.success());
        assert_arrived(&new);
        assert!(!new.client().exists::<_, bool>("cache:before").unwrap());
    }
}

#[test]
fn the_copy_loop_of_the_migration_guide_copies_values_and_durations() {
    let Some(old) = Server::start(Kind::Redis) else { return };
    let Some(new) = Server::start(Kind::Valkey) else { return };
    let (mut from, mut to) = (old.client(), new.client());
    let binary: &[u8] = b"\x00\xff\r\n";
    let () = from.set("cache:binary", binary).unwrap();
    let () = from.pset_ex("cache:short lived", "v", 100_000).unwrap();
    let () = from.set("cache:kept", "old").unwrap();
    let () = to.set("cache:kept", "new").unwrap();
    let () = from.set("other:1", "v").unwrap();

    follow("old=", &old, Some(&new));

    assert_eq!(to.get::<_, Vec<u8>>("cache:binary").unwrap(), binary);
    assert_eq!(to.pttl::<_, i64>("cache:binary").unwrap(), -1);
    let left: i64 = to.pttl("cache:short lived").unwrap();
    assert!((1..=100_000).contains(&left), "{left} ms are left");
    assert_eq!(to.get::<_, String>("cache:kept").unwrap(), "new");
    assert!(!to.exists::<_, bool>("other:1").unwrap());
}
