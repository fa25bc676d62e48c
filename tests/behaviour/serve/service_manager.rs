//! Signals before the host listens, and what it tells a service manager such as systemd.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use larder_tests::{
    Client, HttpResponse, Larder, LarderProcess, ServeProcess, TEST_TIMEOUT, child_of, guest, wait_for,
};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::with(UnixDatagram::bind(path).unwrap())
    }

    fn with(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        Self(socket)
    }

    /// The next message.
    fn read(&self) -> String {
        let mut message = [0; 4096];
        let len = self.0.recv(&mut message).expect("a message comes");
        String::from_utf8(message[..len].to_vec()).unwrap()
    }

    /// Reads that a reload begins, and the time of the message.
    fn read_reload(&self) -> u64 {
        let message = self.read();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{message}"));
        time.parse().unwrap()
    }

    fn has_no_message(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let received = self.0.recv(&mut [0; 4096]);
        self.0.set_nonblocking(false).unwrap();
        received.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A host that is told of a service manager, and the manager.
fn managed(config: &str) -> (Larder, Manager) {
    let larder = Larder::serve().config(config).arg(guest("http"));
    let path = larder.folder().join("notify");
    let manager = Manager::at(&path);
    (larder.env("NOTIFY_SOCKET", path), manager)
}

/// The start of a host waits for this listener, which takes connections and never answers.
fn silent_cache(more: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cache =
        format!("[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {port}\nconnect_timeout = \"1h\"\n");
    (listener, cache + more)
}

#[test]
fn a_host_that_is_asked_to_end_before_it_listens_ends_at_once_with_0() {
    for signal in ["-TERM", "-INT"] {
        let (listener, config) = silent_cache("");
        let (larder, manager) = managed(&config);
        let host = larder.start();
        let _connection = listener.accept().unwrap();
        host.signal(signal);
        let ended = host.wait();
        assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
        assert_eq!(manager.read(), "STOPPING=1");
        assert!(manager.has_no_message());
    }
}

#[test]
fn a_hang_up_before_the_host_listens_is_a_reload_after_the_start() {
    let (listener, config) = silent_cache("start = \"degraded\"\n");
    let (larder, manager) = managed(&config);
    let mut host = larder.start();
    let connection = listener.accept().unwrap();
    host.signal("-HUP");
    // The attempt to connect fails, and the host starts in an outage.
    drop((connection, listener));
    assert!(host.read_line().starts_with("listening on http://"));
    assert_eq!(manager.read(), "READY=1");
    manager.read_reload();
    assert_eq!(manager.read(), "READY=1");
    host.terminate();
    assert_eq!(host.wait().status, Some(0));
}

/// A component that takes a compiler long.
fn slow_to_compile() -> Vec<u8> {
    let function = format!("(func {})", "i32.const 0 if end ".repeat(400_000));
    wat::parse_str(format!(
        "(component (core module $m (func (export \"f\")) {function}) (core instance $i (instantiate $m))
         (func (export \"f\") (canon lift (core func $i \"f\"))))"
    ))
    .unwrap()
}

#[test]
fn a_signal_during_the_compilation_of_a_plugin_ends_the_host_and_its_compiler() {
    let component = slow_to_compile();
    for (command, status) in [("serve", 0), ("run", 143)] {
        let larder = Larder::new([command, "plugin.wasm"]).env("LARDER_COMPILED", "off");
        std::fs::write(larder.folder().join("plugin.wasm"), &component).unwrap();
        let notify = larder.folder().join("notify");
        let _manager = Manager::at(&notify);
        let host: LarderProcess = larder.env("NOTIFY_SOCKET", notify).start();
        let compiler = child_of(host.id());
        // Until then it has the host's program and environment.
        let runs = || {
            let arguments = std::fs::read(format!("/proc/{compiler}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains("compile-plugin")
        };
        wait_for("the compiler runs", || runs().then_some(()));
        let environment = std::fs::read(format!("/proc/{compiler}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"), "{environment:?}");
        host.terminate();
        let ended = host.wait();
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(status), ""));
        wait_for("the compiler has ended", || {
            let status = std::fs::read_to_string(format!("/proc/{compiler}/status")).unwrap_or_default();
            (!status.contains("State:\tR") && !status.contains("State:\tS")).then_some(())
        });
    }
}

#[tokio::test]
async fn the_service_manager_is_told_of_the_start_each_reload_and_the_end() {
    let (larder, manager) = managed("[sandbox]\ntimeout = \"10m\"\n");
    let mut host = ServeProcess::start_with(larder);
    assert_eq!(manager.read(), "READY=1");
    let mut last = 0;
    for _ in 0..2 {
        host.process().signal("-HUP");
        let time = manager.read_reload();
        assert!(time > last, "{time}, {last}");
        last = time;
        assert_eq!(manager.read(), "READY=1");
    }
    // No plugin can reach the socket or learn its name.
    assert_eq!(host.get("/env/NOTIFY_SOCKET").await, HttpResponse::ok(""));
    let client = Client::connect(host.address()).await;
    let running = tokio::spawn(async move { client.get("/doze/2000").await.unwrap() });
    host.expect_line("http: dozing").await;
    host.process().terminate();
    assert_eq!(manager.read(), "STOPPING=1");
    // It is told before the last request has ended.
    assert_eq!(running.await.unwrap(), HttpResponse::ok("dozed"));
    assert!(manager.has_no_message());
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_manager_may_have_a_socket_without_a_path() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("larder-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::with(UnixDatagram::bind_addr(&address).unwrap());
    let larder = Larder::serve().arg(guest("http")).env("NOTIFY_SOCKET", format!("@{name}"));
    let _host = ServeProcess::start_with(larder);
    assert_eq!(manager.read(), "READY=1");
}

#[tokio::test]
async fn a_socket_that_cannot_be_used_is_one_line_in_the_log() {
    for (name, message) in [("vsock:2:9999", "cannot use `NOTIFY_SOCKET`"), ("/nonexistent/notify", "`READY=1`")] {
        let larder = Larder::serve().arg(guest("http")).env("NOTIFY_SOCKET", name);
        let ended = ServeProcess::start_with(larder).terminate().await;
        assert_eq!(ended.status, Some(0));
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
    }
}

#[test]
fn the_watchdog_of_a_service_manager_hears_from_a_host() {
    let (larder, manager) = managed("[sandbox]\ntimeout = \"10m\"\n");
    let mut host = ServeProcess::start_with(larder.env("WATCHDOG_USEC", "50000").env("WATCHDOG_PID", ""));
    assert_eq!(manager.read(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.read(), "WATCHDOG=1");
    }
    host.process().terminate();
}
