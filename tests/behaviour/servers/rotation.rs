//! Passwords and certificates that change while the host runs: calls succeed again without a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use larder_tests::imitation::{imitate, usual_reply};
use larder_tests::{Authority, Certificate, Cluster, Kind, Larder, LarderProcess, Sentinels, Server, wait_for};
use redis::Connection;

/// A running host that reads its password from a file.
struct Host {
    session: LarderProcess,
    file: PathBuf,
}

impl Host {
    /// Starts `larder run` with this cache. In it, `PASSWORD` becomes the path of a file with this password.
    fn start(cache: &str, password: &str) -> Self {
        let run = Larder::run("session");
        let file = run.folder().join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let cache = cache.replace("PASSWORD", &file.display().to_string());
        let more = "on_outage = \"error\"\n[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n";
        let session = run.config(&format!("{cache}{more}")).env("LARDER_LOG", "warn").start();
        Self { session, file }
    }

    fn ask(&mut self, operation: &str) -> String {
        self.session.write_line(operation);
        self.session.read_line()
    }

    /// Replaces the file as tools do that write secrets.
    fn write(&self, password: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{password}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Waits until a call succeeds. Until then, calls fail as during an outage.
    fn recovers(&mut self) {
        wait_for("calls succeed again", || match self.ask("set k v").as_str() {
            "ok" => Some(()),
            failed => {
                assert!(["error Unavailable", "error Timeout"].contains(&failed), "{failed}");
                None
            }
        });
        assert_eq!(self.ask("get k"), "hit v");
    }

    /// Waits until a call fails because the server cannot be used.
    fn is_locked_out(&mut self) {
        wait_for("calls fail", || (self.ask("set k v") == "error Unavailable").then_some(()));
    }

    /// Ends the plugin, and returns the log.
    fn end(self) -> String {
        self.session.succeed().stderr
    }
}

/// Puts something else in the place of a file, which does not exist at the time.
type Break = fn(&Path);

fn fifo(file: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
}

fn run(client: &mut Connection, command: &str) {
    let mut words = command.split(' ');
    redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).exec(client).unwrap();
}

/// Closes all connections but that of the test, as a server does when it restarts or an administrator asks for it.
fn disconnect_all(client: &mut Connection) {
    run(client, "CLIENT KILL TYPE normal SKIPME yes");
}

/// Waits until the server has refused this number of logins more.
fn wait_for_refused_logins(client: &mut Connection, more: u64) {
    let connections = |client: &mut Connection| {
        let info: String = redis::cmd("INFO").arg("stats").query(client).unwrap();
        let field = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        field.trim().parse::<u64>().unwrap()
    };
    let before = connections(client);
    wait_for("the host tries again", || (connections(client) >= before + more).then_some(()));
}

#[test]
fn a_new_password_is_read_from_its_file_at_the_next_connection() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--requirepass", "old"]) else { continue };
        let mut client = server.client();
        let mut host = Host::start(&(server.cache("c") + "password_file = \"PASSWORD\"\n"), "old");
        assert_eq!(host.ask("set k v"), "ok");
        host.write("new");
        run(&mut client, "CONFIG SET requirepass new");
        disconnect_all(&mut client);
        host.recovers();
        host.end();
    }
}

/// The administrator changes the server first. The log says once why calls fail, not at each attempt.
#[test]
fn a_password_that_is_refused_is_tried_again_until_its_file_is_right() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_with(kind, &["--requirepass", "old"]) else { continue };
        let mut client = server.client();
        let mut host = Host::start(&(server.cache("c") + "password_file = \"PASSWORD\"\n"), "old");
        assert_eq!(host.ask("set k v"), "ok");
        let start = Instant::now();
        run(&mut client, "CONFIG SET requirepass new-s3cret");
        disconnect_all(&mut client);
        host.is_locked_out();
        wait_for_refused_logins(&mut client, 5);
        // A refused connection is closed.
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut client).unwrap();
        assert!(clients.lines().count() <= 3, "{clients}");
        host.write("new-s3cret");
        host.recovers();
        let log = host.end();
        let warned =
            log.lines().filter(|line| line.contains("it was reached, but refused the user name or password")).count();
        let minutes = usize::try_from(start.elapsed().as_secs() / 60).unwrap();
        assert!((1..=minutes + 1).contains(&warned), "{log}");
        assert!(log.contains("`password_file` = ") && log.contains("still trying"), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

/// A server without a password accepts any, so the file can be there first.
#[test]
fn a_password_can_be_introduced() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let mut client = server.client();
        let mut host = Host::start(&(server.cache("c") + "password_file = \"PASSWORD\"\n"), "new");
        assert_eq!(host.ask("set k v"), "ok");
        run(&mut client, "CONFIG SET requirepass new");
        disconnect_all(&mut client);
        host.recovers();
        host.end();
    }
}

/// The steps of the guide. No call fails while both passwords are valid.
#[test]
fn a_user_has_two_passwords_while_one_replaces_the_other() {
    for kind in Kind::ALL {
        let acl = ["--user", "worker", "on", ">old", "~cache:*", "+@all", "--requirepass", "admin"];
        let Some(server) = Server::start_with(kind, &acl) else { continue };
        let mut client = server.client();
        let login = "username = \"worker\"\npassword_file = \"PASSWORD\"\n";
        let mut host = Host::start(&(server.cache("c") + login), "old");
        assert_eq!(host.ask("set k v"), "ok");
        run(&mut client, "ACL SETUSER worker >new");
        run(&mut client, "CLIENT KILL USER worker");
        host.recovers();
        host.write("new");
        run(&mut client, "CLIENT KILL USER worker");
        host.recovers();
        run(&mut client, "ACL SETUSER worker <old");
        run(&mut client, "CLIENT KILL USER worker");
        host.recovers();
        let log = host.end();
        assert!(!log.contains("refused"), "{log}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_read_again() {
    let Some(server) = Server::start_with(Kind::Valkey, &["--requirepass", "s3cret"]) else { return };
    let mut client = server.client();
    let breaks: [(&str, Break); 6] = [
        ("No such file", |_| {}),
        ("it is not a regular file", fifo),
        ("it is longer than 64 KiB", |file| std::fs::File::create(file).unwrap().set_len(3 << 30).unwrap()),
        ("it is empty", |file| std::fs::write(file, "").unwrap()),
        ("byte order mark", |file| std::fs::write(file, "\u{feff}s3cret\n").unwrap()),
        ("it has several lines", |file| std::fs::write(file, "s3cret\nnew\n").unwrap()),
    ];
    for (reason, break_file) in breaks {
        let mut host = Host::start(&(server.cache("c") + "password_file = \"PASSWORD\"\n"), "s3cret");
        assert_eq!(host.ask("set k v"), "ok");
        std::fs::remove_file(&host.file).unwrap();
        break_file(&host.file);
        disconnect_all(&mut client);
        host.is_locked_out();
        host.write("s3cret");
        host.recovers();
        let log = host.end();
        let warned = log.lines().find(|line| line.contains("still trying")).unwrap_or_else(|| panic!("{log}"));
        assert!(warned.contains("`password_file`: cannot read `") && warned.contains(reason), "{reason}: {log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[test]
fn a_new_password_reaches_all_nodes_of_a_cluster() {
    let options = ["--requirepass", "old", "--masterauth", "old"];
    let Some(cluster) = Cluster::start_with(Kind::Valkey, &options) else { return };
    let mut clients: Vec<Connection> = cluster.nodes.iter().map(Server::client).collect();
    let mut host = Host::start(&(cluster.cache("c") + "password_file = \"PASSWORD\"\n"), "old");
    let set_all = |host: &mut Host| {
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            wait_for("all nodes are reached again", || (host.ask(&format!("set {key} v")) == "ok").then_some(()));
        }
    };
    set_all(&mut host);
    host.write("new");
    for client in &mut clients {
        run(client, "CONFIG SET requirepass new masterauth new");
    }
    clients.iter_mut().for_each(disconnect_all);
    set_all(&mut host);
    host.end();
}

#[test]
fn new_passwords_of_a_primary_and_of_its_sentinels_are_read_from_their_files() {
    for kind in Kind::ALL {
        let lines = [
            &format!("sentinel auth-pass {} old", Sentinels::MASTER),
            "requirepass guard",
            "sentinel sentinel-pass guard",
            "user scout on >old-scout resetchannels +@all",
        ];
        let Some(watched) = Sentinels::start_with(kind, &["--requirepass", "old", "--masterauth", "old"], &lines)
        else {
            continue;
        };
        // Sentinels and servers disagree about the password for a moment, which is no reason for a failover.
        watched.raise_down_after();
        let mut clients: Vec<Connection> = watched.servers.iter().map(Server::client).collect();
        let scout = "username = \"scout\", password_file = \"PASSWORD-scout\" }";
        let cache = watched.cache("c").replace(" }", &format!(", {scout}")) + "password_file = \"PASSWORD\"\n";
        let run_with_files = |cache: &str| {
            let run = Larder::run("session");
            let file = run.folder().join("password");
            std::fs::write(file.with_file_name("password-scout"), "old-scout\n").unwrap();
            std::fs::write(&file, "old\n").unwrap();
            let cache = cache.replace("PASSWORD", &file.display().to_string());
            let more = "on_outage = \"error\"\n[sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n";
            let session = run.config(&format!("{cache}{more}")).env("LARDER_LOG", "warn").start();
            Host { session, file }
        };
        let mut host = run_with_files(&cache);
        assert_eq!(host.ask("set k v"), "ok");
        std::fs::write(host.file.with_file_name("password-scout"), "new-scout\n").unwrap();
        watched.ask_all(&["ACL", "SETUSER", "scout", ">new-scout", "<old-scout"]);
        host.write("new");
        watched.ask_all(&["SENTINEL", "SET", Sentinels::MASTER, "auth-pass", "new"]);
        for client in &mut clients {
            run(client, "CONFIG SET requirepass new masterauth new");
        }
        disconnect_all(&mut clients[0]);
        host.recovers();
        host.end();
    }
}

/// Some servers and proxies end a login while the connection stays open: the token of a managed service has expired.
#[test]
fn an_open_connection_whose_login_has_ended_is_replaced() {
    for refusal in ["-NOAUTH Authentication required.\r\n", "-WRONGPASS invalid username-password pair\r\n"] {
        let password = Arc::new(Mutex::new("old".to_owned()));
        let logins: Mutex<Vec<String>> = Mutex::default();
        let current = Arc::clone(&password);
        let port = imitate(move |connection, words| {
            let mut logins = logins.lock().unwrap();
            let connections = logins.len().max(connection + 1);
            logins.resize(connections, String::new());
            let current = current.lock().unwrap();
            if words[0] == "HELLO" {
                logins[connection] =
                    words.iter().skip_while(|word| *word != "AUTH").nth(2).cloned().unwrap_or_default();
            }
            let is_refused = words[0] != "PING" && logins[connection] != *current;
            Some(if is_refused { refusal.to_owned() } else { usual_reply(words) })
        });
        let cache = format!(
            "[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {port}\npassword_file = \"PASSWORD\"\n"
        );
        let mut host = Host::start(&cache, "old");
        assert_eq!(host.ask("set k v"), "ok");
        host.write("new");
        *password.lock().unwrap() = "new".to_owned();
        wait_for("calls succeed again", || match host.ask("set k v").as_str() {
            "ok" => Some(()),
            failed => {
                assert!(["error Unavailable", "error Timeout"].contains(&failed), "{failed}");
                None
            }
        });
        let log = host.end();
        assert!(log.contains("cannot serve: ") && log.contains("lost the connection"), "{log}");
    }
}

/// The keys of a table with TLS and a client certificate.
fn secured(server: &Server, ca_file: &Path, client: &Certificate) -> String {
    let Certificate { cert_file, key_file } = client;
    let files = [("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)];
    let files = files.map(|(key, file)| format!("{key} = \"{}\"\n", file.display()));
    format!("{}tls = true\n{}", server.cache("c"), files.concat())
}

/// The steps of the guide: both authorities are trusted on both sides while the certificates are replaced.
#[test]
fn the_certificates_of_both_sides_are_replaced() {
    let (old, new) = (Authority::new(), Authority::new());
    for kind in Kind::ALL {
        let certificate = old.issue("127.0.0.1");
        let options = old.server_options(&certificate, true);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let Some(server) = Server::start_with(kind, &options) else { continue };
        let mut client = server.client();
        let folder = tempfile::TempDir::new().unwrap();
        let file = |name: &str| folder.path().join(name);
        let ours = Certificate { cert_file: file("larder.pem"), key_file: file("larder.key") };
        let copy = |from: &Path, to: &Path| {
            std::fs::copy(from, to).unwrap();
        };
        let issued = old.issue("larder.example.com");
        copy(&issued.cert_file, &ours.cert_file);
        copy(&issued.key_file, &ours.key_file);
        copy(&old.ca_file(), &file("ca.pem"));
        let mut host = Host::start(&secured(&server, &file("ca.pem"), &ours), "");
        assert_eq!(host.ask("set k v"), "ok");

        // 1. Both sides trust both authorities.
        let both = [std::fs::read(old.ca_file()).unwrap(), std::fs::read(new.ca_file()).unwrap()].concat();
        std::fs::write(file("ca.pem"), &both).unwrap();
        std::fs::write(file("server-ca.pem"), &both).unwrap();
        run(&mut client, &format!("CONFIG SET tls-ca-cert-file {}", file("server-ca.pem").display()));
        disconnect_all(&mut client);
        host.recovers();
        // 2. The host's certificate. Between the two files they do not match, and the host tries again.
        let renewed = new.issue("larder.example.com");
        copy(&renewed.cert_file, &ours.cert_file);
        disconnect_all(&mut client);
        host.is_locked_out();
        copy(&renewed.key_file, &ours.key_file);
        host.recovers();
        // 3. The server's certificate.
        let renewed = new.issue("127.0.0.1");
        let (cert, key) = (renewed.cert_file.display(), renewed.key_file.display());
        run(&mut client, &format!("CONFIG SET tls-cert-file {cert} tls-key-file {key}"));
        disconnect_all(&mut client);
        host.recovers();
        // 4. The old authority is trusted no more.
        copy(&new.ca_file(), &file("ca.pem"));
        run(&mut client, &format!("CONFIG SET tls-ca-cert-file {}", new.ca_file().display()));
        disconnect_all(&mut client);
        host.recovers();
        let log = host.end();
        assert!(log.contains("`cert_file` = `") && log.contains("still trying"), "{log}");
    }
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named_and_read_again() {
    let authority = Authority::new();
    let options = authority.server_options(&authority.issue("127.0.0.1"), false);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some(server) = Server::start_with(Kind::Valkey, &options) else { return };
    let mut client = server.client();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("ca.pem");
    let right = std::fs::read(authority.ca_file()).unwrap();
    let breaks: [(&str, Break); 3] = [
        ("No such file", |_| {}),
        ("it is not a regular file", fifo),
        ("it is longer than 4096 KiB", |file| std::fs::File::create(file).unwrap().set_len(3 << 30).unwrap()),
    ];
    for (reason, break_file) in breaks {
        std::fs::write(&file, &right).unwrap();
        let cache = format!("{}tls = true\nca_file = \"{}\"\n", server.cache("c"), file.display());
        let mut host = Host::start(&cache, "");
        assert_eq!(host.ask("set k v"), "ok");
        std::fs::remove_file(&file).unwrap();
        break_file(&file);
        disconnect_all(&mut client);
        host.is_locked_out();
        std::fs::remove_file(&file)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .unwrap();
        std::fs::write(&file, &right).unwrap();
        host.recovers();
        let log = host.end();
        assert!(log.contains("`ca_file` = `") && log.contains(reason), "{reason}: {log}");
    }
}
