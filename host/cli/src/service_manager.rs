//! Tells a service manager, such as systemd with `Type=notify`, that the host is ready, reloads, stops, or makes progress.
//!
//! The manager names a datagram socket in the environment variable `NOTIFY_SOCKET`. No plugin and no compiler process
//! gets this variable.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

/// How long a message may wait for room in the manager's socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager that started the program, if it wants to be told.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<socket::ManagerSocket>,
    /// The manager ends the program if it hears nothing for this long (`WatchdogSec` of systemd).
    watchdog: Option<Duration>,
    /// A host that stops is not ready again, such as after a reload that began before.
    is_stopping: AtomicBool,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. An empty variable is as if it were absent.
    pub(crate) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|time| time.parse().ok());
        Self {
            socket: socket::ManagerSocket::from_environment(),
            watchdog: watchdog.filter(|time| *time > 0).map(Duration::from_micros),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Reports that the host serves requests, after its start or a reload.
    pub(crate) fn ready(&self) {
        if !self.is_stopping.load(Ordering::Relaxed) {
            self.send("READY=1");
        }
    }

    /// Reports that a reload begins. [`ServiceManager::ready`] ends it.
    pub(crate) fn reloading(&self) {
        if !self.is_stopping.load(Ordering::Relaxed) {
            // In one message: systemd 253 and later tells by the time whether a reload is the one that it asked for.
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", socket::monotonic_microseconds()));
        }
    }

    /// Reports that the host shuts down.
    pub(crate) fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.send("STOPPING=1");
    }

    /// Tells the manager twice in each interval of its watchdog that the threads of `server` make progress. Without a
    /// watchdog it waits forever.
    pub(crate) async fn keep_alive(&self, server: Handle) -> Infallible {
        let Some(interval) = self.watchdog.and_then(|watchdog| watchdog.checked_div(2)) else {
            return std::future::pending().await;
        };
        loop {
            if server.spawn(std::future::ready(())).await.is_ok() {
                self.send("WATCHDOG=1");
            }
            tokio::time::sleep(interval).await;
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message)
        {
            tracing::warn!("cannot tell the service manager `{}`: {error}", message.lines().next().unwrap_or_default());
        }
    }
}

#[cfg(unix)]
mod socket {
    use std::io;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// The socket of the service manager, and its address.
    #[derive(Debug)]
    pub(super) struct ManagerSocket(UnixDatagram, SocketAddr);

    impl ManagerSocket {
        /// The socket that `NOTIFY_SOCKET` names. If it cannot be used, the program runs without it: the log says why.
        pub(super) fn from_environment() -> Option<Self> {
            let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
            match Self::open(&name) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    crate::log_line::print_error(&format!("cannot use `NOTIFY_SOCKET`: {error}"));
                    None
                }
            }
        }

        fn open(name: &std::ffi::OsStr) -> io::Result<Self> {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(super::SEND_TIMEOUT))?;
            Ok(Self(socket, address(name)?))
        }

        pub(super) fn send(&self, message: &str) -> io::Result<()> {
            self.0.send_to_addr(message.as_bytes(), &self.1).map(|_| ())
        }
    }

    /// A path, or a name after `@` in the abstract namespace of Linux.
    fn address(name: &std::ffi::OsStr) -> io::Result<SocketAddr> {
        use std::os::unix::ffi::OsStrExt;
        match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name),
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => {
                use std::os::linux::net::SocketAddrExt;
                SocketAddr::from_abstract_name(name)
            }
            _ => Err(io::Error::other("it must be a path or, on Linux, a name after `@`")),
        }
    }

    /// The system's monotonic clock, which the service manager reads too.
    pub(super) fn monotonic_microseconds() -> u64 {
        let Ok(time) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else { return 0 };
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0).saturating_mul(1_000_000);
        seconds.saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000)
    }
}

/// This system has no such service manager.
#[cfg(not(unix))]
mod socket {
    #[derive(Debug)]
    pub(super) enum ManagerSocket {}

    impl ManagerSocket {
        pub(super) fn from_environment() -> Option<Self> {
            None
        }

        pub(super) fn send(&self, _message: &str) -> std::io::Result<()> {
            match *self {}
        }
    }

    pub(super) fn monotonic_microseconds() -> u64 {
        0
    }
}
