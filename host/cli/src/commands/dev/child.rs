//! A child process that leads a process group, so that it ends together with all processes that it has started.

// Not `tokio::process`: no other part needs that feature, and all dependants of tokio would be compiled for it.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How often the process is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long the process may take to end when it is asked to. A plugin's leases are given back in this time.
pub(in crate::commands) const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A running process. Dropping this value kills its group.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    is_reaped: bool,
}

impl Process {
    /// Starts a command without standard input.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such program, or why the system cannot start it.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // Ctrl-C in a terminal is for this program, which ends the group.
            command.process_group(0);
        }
        Ok(Self { child: command.spawn()?, is_reaped: false })
    }

    /// Waits for the end of the process. It goes on if the future is dropped.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.is_reaped = true;
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the group to end, waits for its leader, and kills what is left of the group.
    pub(super) async fn end(mut self) {
        self.ask_to_end();
        let ended = async {
            while !self.has_ended() {
                tokio::time::sleep(POLL).await;
            }
        };
        let _late = tokio::time::timeout(END_TIMEOUT, ended).await;
        self.kill();
        let _reaped = tokio::time::timeout(END_TIMEOUT, self.wait()).await;
    }
}

#[cfg(unix)]
impl Process {
    /// True if the leader has ended. It is not reaped: as long as it is not, no other process gets its id.
    fn has_ended(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let leader = WaitId::Pid(rustix::process::Pid::from_child(&self.child));
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.is_reaped || !matches!(waitid(leader, look), Ok(None))
    }

    fn ask_to_end(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if !self.is_reaped {
            let group = rustix::process::Pid::from_child(&self.child);
            // It may have ended.
            let _sent = rustix::process::kill_process_group(group, signal);
        }
    }
}

#[cfg(not(unix))]
impl Process {
    fn has_ended(&mut self) -> bool {
        self.is_reaped || !matches!(self.child.try_wait(), Ok(None))
    }

    /// This platform has no such signal.
    fn ask_to_end(&mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        let _sent = self.child.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
            let _reaped = self.child.try_wait();
        }
    }
}
