//! SIGTERM, Ctrl-C and SIGHUP: `larder run` gives its leases back, and no command ignores them.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use larder_tests::{Kind, Larder, LarderProcess, Server, child_of, wait_for};
use redis::TypedCommands;

/// The configuration of a cache on the server, with a lease that outlasts the test, and time for a busy machine.
fn config(server: &Server, timeout: &str) -> String {
    let sandbox = "[sandbox]\ntimeout = \"1h\"\nmax_cpu_time = \"1h\"\n";
    format!("{}lease = \"1h\"\nwait = \"1h\"\ntimeout = \"{timeout}\"\n{sandbox}", server.cache("c"))
}

/// A listener that takes connections and never answers, and a cache there that waits for it.
fn silent_cache() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cache =
        format!("[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {port}\nconnect_timeout = \"1h\"\n");
    (listener, cache)
}

fn is_leased(server: &Server, key: &str) -> bool {
    server.client().exists(format!("cache:{key}")).unwrap()
}

/// A process whose plugin holds the lease on `k` and waits for input.
fn holder(server: &Server, timeout: &str) -> LarderProcess {
    let mut holder = Larder::run("session").config(&config(server, timeout)).start();
    holder.write_line("take k");
    assert_eq!(holder.read_line(), "vacant");
    assert!(is_leased(server, "k"));
    holder
}

#[test]
fn a_run_gives_back_its_leases_at_a_signal_and_exits_with_128_and_its_number() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for (signal, status) in [("-HUP", 129), ("-INT", 130), ("-TERM", 143)] {
        let holder = holder(&server, "20s");
        holder.signal(signal);
        let run = holder.wait();
        assert_eq!((run.status, run.stderr.as_str()), (Some(status), ""));
        assert!(!is_leased(&server, "k"), "{signal}");
    }
}

#[test]
fn a_signal_ends_a_plugin_that_computes_or_waits_in_a_call() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = config(&server, "20s");
    let spinning = Larder::run("holder").config(&config).arg("spin").start();
    wait_for("it holds the lease", || server.client().exists("cache:held").unwrap().then_some(()));
    server.client().set("cache:go", "").unwrap();
    // It waits for the value that the first one computes.
    let waiting = Larder::run("script").config(&config).arg("get-or-set slow v").start();
    wait_for("it waits for the lease", || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.client()).unwrap();
        list.contains(" cmd=pttl ").then_some(())
    });
    for process in [waiting, spinning] {
        process.terminate();
        assert_eq!(process.wait().status, Some(143));
    }
    assert!(!is_leased(&server, "slow"));
}

#[test]
fn a_signal_ends_a_run_whose_output_is_not_read() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    server.client().set("cache:big", "x".repeat(500_000)).unwrap();
    let (mut command, _folder) = Larder::run("session").config(&config(&server, "20s")).into_command();
    let mut run = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut stdin = run.0.stdin.take().unwrap();
    stdin.write_all(b"take k\nget big\nget big\n").unwrap();
    wait_for("it has read the value that it prints", || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.client()).unwrap();
        list.contains(" cmd=get ").then_some(())
    });
    assert!(is_leased(&server, "k"));
    signal("-TERM", run.0.id());
    assert_eq!(run.exited(), Some(143));
    assert!(!is_leased(&server, "k"));
}

#[test]
fn a_frozen_server_does_not_keep_a_run() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let holder = holder(&server, "200ms");
    let _frozen = server.freeze_until_drop();
    holder.terminate();
    assert_eq!(holder.wait().status, Some(143));
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    // It waits an hour for the release of its lease.
    let holder = holder(&server, "1h");
    let _frozen = server.freeze_until_drop();
    holder.terminate();
    holder.signal("-INT");
    assert_eq!(holder.wait().status, Some(130));
}

#[test]
fn a_signal_ends_a_run_that_has_not_connected_yet() {
    let (listener, config) = silent_cache();
    let run = Larder::run("script").config(&config).arg("get k").start();
    let _connection = listener.accept().unwrap();
    run.terminate();
    assert_eq!(run.wait().status, Some(143));
}

/// As `nohup` and the `&` of a script start a program.
#[test]
fn a_run_that_was_started_to_ignore_a_signal_ignores_it() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let (command, folder) = Larder::run("session").config(&config(&server, "20s")).into_command();
    let mut shell = around(&command, &["sh", "-c", "trap '' HUP INT; exec \"$0\" \"$@\""]);
    let mut run = LarderProcess::start(shell.current_dir(folder.path()), folder);
    run.write_line("take k");
    assert_eq!(run.read_line(), "vacant");
    for signal in ["-HUP", "-INT"] {
        run.signal(signal);
        run.write_line("get k");
        assert_eq!(run.read_line(), "miss");
    }
    run.terminate();
    assert_eq!(run.wait().status, Some(143));
    assert!(!is_leased(&server, "k"));
}

/// The other commands have nothing to give back. A shell that runs them in a loop must see that a signal ended them.
#[test]
fn a_signal_ends_every_other_command_as_if_it_had_no_handler() {
    let (listener, config) = silent_cache();
    for arguments in [&["check"][..], &["cache", "get", "k"]] {
        let command = Larder::new(arguments).config(&config).start();
        let _connection = listener.accept().unwrap();
        command.signal("-INT");
        assert_eq!(command.wait().status, None);
    }
}

#[test]
fn the_first_process_of_a_container_handles_signals() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    if !Command::new("unshare").args(["--pid", "--fork", "true"]).output().is_ok_and(|run| run.status.success()) {
        // Not a failure in CI: only root may do it.
        eprintln!("skipped: `unshare --pid` is not permitted here");
        return;
    }
    let contained = |larder: Larder| {
        let (command, folder) = larder.into_command();
        let mut unshare = around(&command, &["unshare", "--pid", "--fork", "--kill-child"]);
        LarderProcess::start(unshare.current_dir(folder.path()), folder)
    };
    for (name, status) in [("-INT", 130), ("-TERM", 143)] {
        let mut run = contained(Larder::run("session").config(&config(&server, "20s")));
        run.write_line("take k");
        assert_eq!(run.read_line(), "vacant");
        signal(name, child_of(run.id()));
        assert_eq!(run.wait().status, Some(status));
        assert!(!is_leased(&server, "k"));
    }
    let (listener, silent) = silent_cache();
    let check = contained(Larder::new(["check"]).config(&silent));
    let _connection = listener.accept().unwrap();
    signal("-TERM", child_of(check.id()));
    assert_eq!(check.wait().status, Some(143));
}

/// The same command, run by another program.
fn around(command: &Command, by: &[&str]) -> Command {
    let mut outer = Command::new(by[0]);
    outer.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A process that is killed when this value is dropped.
struct Killed(Child);

impl Killed {
    fn exited(&mut self) -> Option<i32> {
        wait_for("it has exited", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _already_dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn signal(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}
