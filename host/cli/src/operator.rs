//! The operator's thread of `larder serve`: signals, the metrics port and the end of the process.
//!
//! It has a runtime of its own, so that it makes progress whatever the plugins do on the threads that run them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use larder_host::Caches;
use larder_host::config::BackendConfig;
use larder_host::console::{Stream, flush, write};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::metrics_server::MetricsServer;
use crate::signals::Signals;

/// How long the host may take to shut down beyond the timeouts of its parts: a busy machine delays them.
const SHUTDOWN_SLACK: Duration = Duration::from_secs(3);

/// How long the host may take to export the last traces and to exit after the server has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(7);

/// How long the last line may take to be written before the process is ended.
const LAST_LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the operator's thread tells the server, and the other way round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operator {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub(crate) shutdown: CancellationToken,
    /// Cancelled by the server when it has ended.
    pub(crate) ended: CancellationToken,
    /// Notified by SIGHUP. Signals that arrive before the reload begins are one.
    pub(crate) reload: Arc<Notify>,
}

impl Operator {
    /// Starts the thread, and waits until it handles signals. Call it on the server's runtime.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a thread or a signal handler.
    pub(crate) async fn start(
        metrics: Option<MetricsServer>,
        caches: Caches,
        shutdown_timeout: Duration,
    ) -> std::io::Result<Self> {
        let operator = Self::default();
        let timeout = shutdown_timeout.saturating_add(drain_timeout(&caches)).saturating_add(SHUTDOWN_SLACK);
        let server = Handle::current();
        let (started, is_started) = oneshot::channel();
        let of_thread = operator.clone();
        std::thread::Builder::new().name("larder-operator".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                let signals = Signals::new().and_then(|shutdown| Ok((shutdown, Signals::new()?)));
                let (shutdown, reload) = match signals {
                    Ok(signals) => signals,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _server_waits = started.send(Ok(()));
                let serve_metrics = async {
                    match metrics {
                        Some(metrics) => metrics.run(caches, server, of_thread.shutdown.clone()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    never = serve_metrics => match never {},
                    never = of_thread.watch_reload(reload) => match never {},
                    never = of_thread.watch_shutdown(shutdown, timeout) => match never {},
                }
            });
        })?;
        is_started.await.unwrap_or_else(|_| Err(std::io::Error::other("the operator's thread ended")))?;
        Ok(operator)
    }

    async fn watch_reload(&self, mut signals: Signals) -> Infallible {
        loop {
            signals.hangup().await;
            self.reload.notify_one();
        }
    }

    // Decision: docs/decisions/0057-the-operators-thread-ends-a-host-that-does-not-end.md
    /// Asks the server to shut down, and ends the process if it does not, or at a second signal: without a drain, and
    /// without the export of traces.
    async fn watch_shutdown(&self, mut signals: Signals, timeout: Duration) -> Infallible {
        signals.shutdown().await;
        self.shutdown.cancel();
        let is_late = async {
            if tokio::time::timeout(timeout, self.ended.cancelled()).await.is_ok() {
                tokio::time::sleep(EXIT_TIMEOUT).await;
            }
        };
        tokio::select! {
            () = signals.shutdown() => {}
            () = is_late => {
                let line = "larder: the host did not shut down in time, and was ended with requests running\n";
                write(Stream::Stderr, line.as_bytes());
                flush(LAST_LINE_TIMEOUT);
            }
        }
        std::process::exit(1)
    }
}

/// The maximum time to release pending leases: twice the `timeout` of each cache.
fn drain_timeout(caches: &Caches) -> Duration {
    let timeouts = caches.config().caches.values().map(|cache| match &cache.backend {
        BackendConfig::Server(options) => options.timeout.saturating_mul(2),
        _ => Duration::ZERO,
    });
    timeouts.fold(Duration::ZERO, Duration::saturating_add)
}
