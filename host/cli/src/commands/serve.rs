//! `larder serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use larder_host::config::Route;
use larder_host::serve::Server;
use larder_host::{Config, Error, Runtime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen on; else `addr` of `[serve]`, else 127.0.0.1:8080. Port 0 takes a free one.
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// The address for Prometheus and health checks; else `metrics_addr` of `[serve]`, else none.
    #[arg(long)]
    metrics_addr: Option<SocketAddr>,
    /// The plugin's name in the configuration; else its file's name without the ending.
    #[arg(long, requires = "plugin")]
    name: Option<String>,
    /// Load a plugin anew when its file has changed, as SIGHUP does for all.
    #[arg(long)]
    watch: bool,
    /// A plugin for all requests: a component that exports `wasi:http/incoming-handler`. Else the plugins with a `route`
    /// in the configuration.
    plugin: Option<PathBuf>,
}

impl Serve {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let Self { addr, metrics_addr, name, watch, plugin } = self;
        let addr = addr.unwrap_or(config.serve.addr);
        let metrics_addr = metrics_addr.or(config.serve.metrics_addr);
        let routes = config.routes.clone();
        if plugin.is_none() && routes.is_empty() {
            let reason =
                "there is nothing to serve: name a plugin, or give one a `path` and a `route` in the configuration";
            return Err(Error::Option(reason.to_owned()).into());
        }
        let metrics = match metrics_addr {
            Some(addr) => Some(Metrics::listen(addr).await?),
            None => None,
        };
        let runtime = Runtime::for_requests(config).await?;
        let caches = runtime.caches().clone();
        let plugins = match plugin {
            Some(path) => vec![("/".to_owned(), runtime.load(&path, name.as_deref())?)],
            None => routes
                .into_iter()
                .map(|Route { plugin, path, route, .. }| Ok((route, runtime.load(&path, Some(&plugin))?)))
                .collect::<Result<_, Error>>()?,
        };
        let server = Server::new(runtime, plugins)?;
        // Before anybody can know that we are there and send one.
        let (mut ends, mut ends_again, mut reloads) = (Signals::new()?, Signals::new()?, Signals::new()?);
        let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        if let Some(metrics) = &metrics {
            writeln!(std::io::stdout(), "metrics on http://{}/metrics", metrics.addr()?)?;
        }
        let ending = CancellationToken::new();
        let told = async {
            match metrics {
                Some(metrics) => metrics.run(caches, ending.clone()).await,
                None => std::future::pending().await,
            }
        };
        let watched = async {
            match watch {
                true => server.watch().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server.run(listener, async { ends.end().await; ending.cancel() }) => Ok(ExitCode::SUCCESS),
            // Who asks twice does not want to wait, not even for traces to be sent.
            () = async { ends_again.end().await; ends_again.end().await } => std::process::exit(1),
            never = told => match never {},
            never = watched => match never {},
            () = async { loop { reloads.reload().await; server.reload().await } } => Ok(ExitCode::FAILURE),
        }
    }
}

/// What the operator's signals ask for.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    pub(super) async fn reload(&mut self) {
        if self.hang_up.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    pub(super) async fn end(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// There is no such signal.
    pub(super) async fn reload(&mut self) {
        std::future::pending().await
    }
}
