//! The operator's thread: signals, the metrics port, the service manager, and the end of the process.
//!
//! It is started before the command line is read, and has a runtime of its own, so that it makes progress whatever the
//! plugins do on the threads that run them.

// Decision: docs/decisions/0057-the-operators-thread-ends-a-host-that-does-not-end.md

use std::convert::Infallible;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use larder_host::Caches;
use larder_host::config::BackendConfig;
use larder_host::console::{Stream, flush, write};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::service_manager::ServiceManager;
use crate::signals::{Signal, Signals, is_ignored};

/// How long the program may take to shut down beyond the timeouts of its parts: a busy machine delays them.
const SHUTDOWN_SLACK: Duration = Duration::from_secs(3);

/// How long the program may take to export the last traces and to exit after its command has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(7);

/// How long the last line may take to be written before the process is ended.
const LAST_LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a signal does. A signal that arrived earlier is handled as soon as it does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// The command line is not read yet, so signals wait.
    Wait,
    /// It ends the process, as if it had no handler.
    End,
    /// `larder run` has no lease to give back: the process exits with 128 and the number of the signal.
    Exit,
    /// `larder serve` does not listen yet: the process exits with 0, and SIGHUP is a reload after the start.
    ExitServer,
    /// The command shuts down within this time, and gives its leases back.
    ShutDown(Duration),
    /// The server shuts down within this time, and SIGHUP is a reload.
    ShutDownServer(Duration),
}

impl OnSignal {
    fn is_server(self) -> bool {
        matches!(self, Self::ExitServer | Self::ShutDownServer(_))
    }
}

/// What the operator's thread tells the program, and the other way round.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    /// Cancelled by the first signal that ends the program.
    pub(crate) shutdown: CancellationToken,
    /// Cancelled when the command has ended.
    pub(crate) ended: CancellationToken,
    /// Notified by SIGHUP. Signals that arrive before the reload begins are one.
    pub(crate) reload: Arc<Notify>,
    pub(crate) service_manager: Arc<ServiceManager>,
    on_signal: watch::Sender<OnSignal>,
    signal: Arc<OnceLock<Signal>>,
    runtime: Handle,
}

impl Operator {
    /// Starts the thread, and waits until it handles signals.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a thread or a signal handler.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (started, is_started) = mpsc::channel();
        std::thread::Builder::new().name("larder-operator".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                let ignored = [Signal::Hangup, Signal::Interrupt].map(|signal| is_ignored(signal).then_some(signal));
                let signals = match Signals::new() {
                    Ok(signals) => signals,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let operator = Self {
                    shutdown: CancellationToken::new(),
                    ended: CancellationToken::new(),
                    reload: Arc::default(),
                    service_manager: Arc::new(ServiceManager::from_environment()),
                    on_signal: watch::Sender::new(OnSignal::Wait),
                    signal: Arc::default(),
                    runtime: Handle::current(),
                };
                let _program_waits = started.send(Ok(operator.clone()));
                match operator.watch(signals, ignored).await {}
            });
        })?;
        is_started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the operator's thread ended")))
    }

    /// Sets what a signal does from here on.
    pub(crate) fn on_signal(&self, does: OnSignal) {
        self.on_signal.send_replace(does);
    }

    /// Runs a task on the operator's thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = Infallible> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Waits for the signal that ends the program.
    pub(crate) async fn ending(&self) -> Signal {
        self.shutdown.cancelled().await;
        // It is set before.
        self.signal.get().copied().unwrap_or(Signal::Terminate)
    }

    /// Handles the signals. Those that the process was started to ignore are still ignored, except by a server.
    async fn watch(&self, mut signals: Signals, ignored: [Option<Signal>; 2]) -> Infallible {
        let mut on_signal = self.on_signal.subscribe();
        let (mut hangup, mut end) = (false, None);
        loop {
            let does = *on_signal.borrow_and_update();
            if does != OnSignal::Wait && std::mem::take(&mut hangup) {
                match does.is_server() {
                    true => self.reload.notify_one(),
                    false => end = end.or(Some(Signal::Hangup)),
                }
            }
            let is_handled = |signal: Signal| does.is_server() || !ignored.contains(&Some(signal));
            match (does, end.filter(|signal| is_handled(*signal))) {
                (OnSignal::Wait, _) | (_, None) => {}
                (OnSignal::End, Some(signal)) => {
                    flush(LAST_LINE_TIMEOUT);
                    signal.end_process();
                }
                (OnSignal::Exit, Some(signal)) => {
                    flush(LAST_LINE_TIMEOUT);
                    std::process::exit(signal.exit_status().into());
                }
                (OnSignal::ExitServer, Some(_)) => {
                    self.service_manager.stopping();
                    flush(LAST_LINE_TIMEOUT);
                    std::process::exit(0);
                }
                (OnSignal::ShutDown(timeout) | OnSignal::ShutDownServer(timeout), Some(first)) => {
                    let second = async {
                        loop {
                            match signals.next().await {
                                Signal::Hangup if does.is_server() => {}
                                signal if is_handled(signal) => return signal,
                                _ => {}
                            }
                        }
                    };
                    self.shut_down(first, second, timeout, does.is_server()).await
                }
            }
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Hangup => hangup = true,
                    // One that is not handled does not take the place of one that is.
                    signal => end = end.filter(|first| is_handled(*first)).or(Some(signal)),
                },
                Ok(()) = on_signal.changed() => {}
            }
        }
    }

    /// Asks the program to shut down, and ends the process if it does not, or at a second signal: without a drain, and
    /// without the export of traces.
    async fn shut_down(
        &self,
        first: Signal,
        second: impl Future<Output = Signal>,
        timeout: Duration,
        is_server: bool,
    ) -> ! {
        self.service_manager.stopping();
        let _first = self.signal.set(first);
        self.shutdown.cancel();
        let is_late = async {
            let timeout = timeout.saturating_add(SHUTDOWN_SLACK);
            if tokio::time::timeout(timeout, self.ended.cancelled()).await.is_ok() {
                tokio::time::sleep(EXIT_TIMEOUT).await;
            }
        };
        let signal = tokio::select! {
            second = second => second,
            () = is_late => {
                let line = match is_server {
                    true => "larder: the host did not shut down in time, and was ended with requests running\n",
                    false => "larder: the command did not end in time, and was ended\n",
                };
                write(Stream::Stderr, line.as_bytes());
                flush(LAST_LINE_TIMEOUT);
                first
            }
        };
        std::process::exit(if is_server { 1 } else { signal.exit_status().into() })
    }
}

/// The maximum time to release pending leases: twice the `timeout` of each cache.
pub(crate) fn drain_timeout(caches: &Caches) -> Duration {
    let timeouts = caches.config().caches.values().map(|cache| match &cache.backend {
        BackendConfig::Server(options) => options.timeout.saturating_mul(2),
        _ => Duration::ZERO,
    });
    timeouts.fold(Duration::ZERO, Duration::saturating_add)
}
