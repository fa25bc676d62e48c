//! docs/migrating.md, step by step, between real servers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use larder_tests::documents::blocks;
use larder_tests::repository::read;
use larder_tests::{Kind, Larder, Server, TEST_TIMEOUT, wait_for};
use redis::Commands;

/// The first words of the scripts in the guide that these tests follow.
pub(super) const GUIDED: [&str; 4] = ["old=", SAVE, APPEND, REPLICATE];
const SAVE: &str = "redis-cli -h redis.example.com SAVE\n";
const APPEND: &str = "valkey-cli CONFIG SET appendonly yes\n";
const REPLICATE: &str = "valkey-cli REPLICAOF redis.example.com 6379\n";

/// Runs the guide's script with these first words against the given servers, and returns its output.
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

/// A Redis with two values in it.
fn old_server(arguments: &[&str]) -> Option<Server> {
    let server = Server::start_with(Kind::Redis, arguments)?;
    let script = Larder::run("script").config(&server.cache("shared"));
    script.arg("set user:1 John 100000").arg("set for-ever x unlimited").succeed();
    Some(server)
}

/// [`old_server`], if a Valkey reads the files of this Redis by the guide's table of versions.
fn old_server_with_files_for_valkey(arguments: &[&str]) -> Option<Server> {
    let old = old_server(arguments)?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut old.client()).unwrap();
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
    if (numbers.next(), numbers.next()) > (Some(7), Some(2)) {
        // Not a missing server: Valkey refuses these files, as `valkey_does_not_start_with_an_rdb_file_of_redis_7_4` holds.
        eprintln!("larder: Valkey does not read the files of Redis {version}, so they cannot be moved");
        return None;
    }
    Some(old)
}

/// Saves a Redis into the RDB file of a new folder, by the guide.
fn save(old: &Server) -> tempfile::TempDir {
    let printed = follow(SAVE, old, None);
    let lines: Vec<&str> = printed.lines().collect();
    let [_, "dir", from, "dbfilename", file] = lines[..] else { panic!("{printed}") };
    let to = tempfile::TempDir::new().unwrap();
    std::fs::copy(PathBuf::from(from).join(file), to.path().join("dump.rdb")).unwrap();
    to
}

/// A plugin reads the values that were stored, and they still expire.
fn assert_arrived(server: &Server) {
    let run = Larder::run("script").config(&server.cache("shared")).arg("get user:1").arg("get for-ever");
    assert_eq!(run.succeed().stdout, "hit John\nhit x\n");
    let left: i64 = redis::cmd("PTTL").arg("cache:user:1").query(&mut server.client()).unwrap();
    assert!((1..=100_000).contains(&left), "{left} ms are left");
}

/// The folder of a server's files.
fn folder(server: &Server) -> PathBuf {
    let answer: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("dir").query(&mut server.client()).unwrap();
    answer[1].clone().into()
}

#[test]
fn an_rdb_file_of_redis_moves_the_values_and_an_aof_can_be_turned_on() {
    for kind in [Kind::Valkey, Kind::ValkeyWithIfeq] {
        let Some(old) = old_server_with_files_for_valkey(&[]) else { return };
        let to = save(&old);
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
fn an_aof_of_redis_moves_the_values() {
    let Some(mut old) = old_server_with_files_for_valkey(&["--appendonly", "yes"]) else { return };
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
fn replication_from_redis_moves_the_values() {
    for kind in [Kind::Valkey, Kind::ValkeyWithIfeq] {
        let Some(old) = old_server_with_files_for_valkey(&[]) else { return };
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

/// The version of the RDB format that Redis 7.4 writes, as in the first bytes of a file: `REDIS0012`.
const REFUSED_FORMAT: &[u8] = b"0012";

/// Raises the version of the format in an RDB file to that of Redis 7.4, unless it is that or a later one.
fn raise_format(file: &Path) {
    let mut content = std::fs::read(file).unwrap();
    let version = content.strip_prefix(b"REDIS").and_then(|rest| rest.get(..REFUSED_FORMAT.len())).unwrap();
    if version < REFUSED_FORMAT {
        content[b"REDIS".len()..][..REFUSED_FORMAT.len()].copy_from_slice(REFUSED_FORMAT);
        std::fs::write(file, content).unwrap();
    }
}

/// It logs what the guide quotes.
#[test]
fn valkey_does_not_start_with_an_rdb_file_of_redis_7_4() {
    let Some(old) = old_server(&[]) else { return };
    let folder = save(&old);
    raise_format(&folder.path().join("dump.rdb"));
    let log = folder.path().join("log");
    if !Kind::Valkey.is_installed() {
        return;
    }
    let mut valkey = Command::new(Kind::Valkey.program());
    valkey.args(["--port", "0", "--appendonly", "no", "--dir"]).arg(folder.path());
    valkey.arg("--unixsocket").arg(folder.path().join("socket"));
    let mut valkey = valkey.stdin(Stdio::null()).stdout(File::create(&log).unwrap()).spawn().unwrap();
    let deadline = Instant::now() + TEST_TIMEOUT;
    while valkey.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _has_exited_already = valkey.kill();
    let status = valkey.wait().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("Can't handle RDB format version"), "{log}");
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
