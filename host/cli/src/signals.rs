//! The signals of the operating system that end or reload the program, and one that must not end it.

/// A signal that ends or reloads the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP: the terminal was closed, or the operator asks for a reload.
    Hangup,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM, as a service manager sends it.
    Terminate,
}

impl Signal {
    /// The number of the signal, which is the same on all systems.
    fn number(self) -> u8 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// The exit status of a program that handles the signal and ends: 128 and its number, as shells report one that it
    /// killed.
    pub(crate) fn exit_status(self) -> u8 {
        self.number().saturating_add(128)
    }

    /// Ends the process as if the signal had no handler, so that a shell that runs a loop ends it too. Process 1 of a
    /// container cannot be killed by a signal of its own, and exits.
    pub(crate) fn end_process(self) -> ! {
        #[cfg(unix)]
        if std::process::id() != 1 {
            let _ended = signal_hook::low_level::emulate_default_handler(self.number().into());
        }
        std::process::exit(self.exit_status().into())
    }
}

pub(crate) use platform::{Signals, is_ignored, survive_file_size_limit};

#[cfg(unix)]
mod platform {
    use tokio::signal::unix::{SignalKind, signal};

    use super::Signal;

    /// A listener for SIGTERM, SIGINT and SIGHUP. While it exists, and after it, they do not end the process by
    /// themselves.
    #[derive(Debug)]
    pub(crate) struct Signals {
        terminate: tokio::signal::unix::Signal,
        interrupt: tokio::signal::unix::Signal,
        hangup: tokio::signal::unix::Signal,
    }

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

        /// Waits for the next signal. Signals of one kind that arrive before it is called are one.
        pub(crate) async fn next(&mut self) -> Signal {
            tokio::select! {
                biased;
                Some(()) = self.terminate.recv() => Signal::Terminate,
                Some(()) = self.interrupt.recv() => Signal::Interrupt,
                Some(()) = self.hangup.recv() => Signal::Hangup,
                else => std::future::pending().await,
            }
        }
    }

    /// True if the process was started with the signal ignored, as `nohup` starts one. Call it before the handlers are
    /// installed. Known on Linux only.
    pub(crate) fn is_ignored(signal: Signal) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        mask.checked_shr(u32::from(signal.number()).saturating_sub(1)).is_some_and(|mask| mask & 1 == 1)
    }

    /// Makes a write over the limit on a file's size (`ulimit -f`) fail with an error, as on a full disk. By default its
    /// signal ends the process. The signal is handled and not ignored: a program that this one starts inherits neither.
    /// Must be called on a Tokio runtime.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a handler.
    pub(crate) fn survive_file_size_limit() -> std::io::Result<()> {
        // The handler stays when the listener is dropped.
        signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
    }
}

#[cfg(not(unix))]
mod platform {
    use super::Signal;

    /// A listener for Ctrl-C, the only signal on this platform.
    #[derive(Debug)]
    pub(crate) struct Signals;

    impl Signals {
        /// Never fails; has the signature of the variant for Unix.
        pub(crate) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        /// Waits for the next Ctrl-C.
        pub(crate) async fn next(&mut self) -> Signal {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
            Signal::Interrupt
        }
    }

    /// False: this platform starts no process with a signal ignored.
    pub(crate) fn is_ignored(_signal: Signal) -> bool {
        false
    }

    /// This platform has no such signal.
    pub(crate) fn survive_file_size_limit() -> std::io::Result<()> {
        Ok(())
    }
}
