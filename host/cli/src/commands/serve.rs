//! `larder serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use larder_host::config::Route;
use larder_host::serve::{Server, raise_descriptor_limit};
use larder_host::{Config, Error, Runtime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics_server::MetricsServer;
use crate::signals::Signals;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on; port 0 picks a free port [default: `addr` of `[serve]`, or 127.0.0.1:8080]
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// Address of the metrics and health checks [default: `metrics_addr` of `[serve]`, or none]
    #[arg(long, value_name = "ADDR")]
    metrics_addr: Option<SocketAddr>,
    /// Name of the plugin in the configuration [default: its file name without the extension]
    #[arg(long, requires = "plugin")]
    name: Option<String>,
    /// Reload a plugin when its file changes, as SIGHUP reloads all plugins
    #[arg(long)]
    watch: bool,
    /// Component that serves all requests with `wasi:http/incoming-handler` [default: the plugins with a `route`]
    plugin: Option<PathBuf>,
}

impl Serve {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let Self { addr, metrics_addr, name, watch, plugin } = self;
        raise_descriptor_limit();
        let addr = addr.unwrap_or(config.serve.addr);
        let metrics_addr = metrics_addr.or(config.serve.metrics_addr);
        let routes = config.routes.clone();
        if plugin.is_none() && routes.is_empty() {
            let message = "nothing to serve: name a plugin, or give one a `path` and a `route` in the configuration";
            return Err(Error::Option(message.to_owned()).into());
        }
        let metrics = match metrics_addr {
            Some(addr) => Some(MetricsServer::bind(addr).await?),
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
        // Before the address is printed: a supervisor may send a signal as soon as it reads it.
        let (mut shutdown, mut second_shutdown, mut reload) = (Signals::new()?, Signals::new()?, Signals::new()?);
        let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        if let Some(metrics) = &metrics {
            writeln!(std::io::stdout(), "metrics on http://{}/metrics", metrics.addr()?)?;
        }
        let is_shutting_down = CancellationToken::new();
        let serve_metrics = async {
            match metrics {
                Some(metrics) => metrics.run(caches, is_shutting_down.clone()).await,
                None => std::future::pending().await,
            }
        };
        let watch_files = async {
            match watch {
                true => server.watch().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server.run(listener, async { shutdown.shutdown().await; is_shutting_down.cancel() }) => {
                Ok(ExitCode::SUCCESS)
            }
            // A second signal ends the process at once: without a drain, and without the export of traces.
            () = async { second_shutdown.shutdown().await; second_shutdown.shutdown().await } => std::process::exit(1),
            never = serve_metrics => match never {},
            never = watch_files => match never {},
            () = async { loop { reload.hangup().await; server.reload().await } } => Ok(ExitCode::FAILURE),
        }
    }
}
