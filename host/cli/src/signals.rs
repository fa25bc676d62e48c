//! The signals of the operating system that end or reload the program, and one that must not end it.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A listener for SIGTERM, SIGINT and SIGHUP. Each listener receives every signal.
///
/// While one exists, and after it, these signals no longer end the process by themselves.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

#[cfg(unix)]
impl Signals {
    /// Installs the handlers. Must be called on a Tokio runtime.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a handler.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next SIGTERM or SIGINT.
    pub(crate) async fn shutdown(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the next SIGHUP.
    pub(crate) async fn hangup(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// Makes a write over the limit on a file's size (`ulimit -f`) fail with an error, as on a full disk. By default its
/// signal ends the process. The signal is handled and not ignored: a program that this one starts inherits neither. Call
/// it on a Tokio runtime.
///
/// # Errors
///
/// If the operating system refuses a handler.
#[cfg(unix)]
pub(crate) fn survive_file_size_limit() -> std::io::Result<()> {
    // The handler stays when the listener is dropped.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// This platform has no such signal.
#[cfg(not(unix))]
pub(crate) fn survive_file_size_limit() -> std::io::Result<()> {
    Ok(())
}

/// A listener for Ctrl-C, the only signal on this platform.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Never fails; has the signature of the variant for Unix.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next Ctrl-C.
    pub(crate) async fn shutdown(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits forever: this platform has no SIGHUP.
    pub(crate) async fn hangup(&mut self) {
        std::future::pending().await
    }
}
