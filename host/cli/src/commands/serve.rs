//! `larder serve`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use larder_host::config::{Route, parse_address};
use larder_host::console::{self, Stream};
use larder_host::runtime::RuntimeOptions;
use larder_host::serve::{Server, raise_descriptor_limit};
use larder_host::{Caches, Config, Error, Runtime};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::allocator::fix_thresholds;
use crate::commands::compile_plugin;
use crate::compiling;
use crate::listening::cannot_listen;
use crate::metrics_server::MetricsServer;
use crate::operator::{OnSignal, Operator, drain_timeout};
use crate::recorder::Recorder;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    addresses: Addresses,
    /// Name of the plugin in the configuration [default: its file name without the extension]
    #[arg(long, requires = "plugin")]
    name: Option<String>,
    /// Reload a plugin when its file changes, as SIGHUP reloads all plugins
    #[arg(long)]
    watch: bool,
    /// Component that serves all requests with `wasi:http`. An instance of WASI 0.3 answers `reuse.concurrent` of them at the
    /// same time [default: the plugins with a `route`]
    plugin: Option<PathBuf>,
}

/// The addresses of a server.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Addresses {
    /// Address to listen on; port 0 picks a free port [default: `addr` of `[serve]`, or 127.0.0.1:8080]
    #[arg(long, value_parser = parse_address)]
    addr: Option<SocketAddr>,
    /// Address of the metrics and health checks [default: `metrics_addr` of `[serve]`, or none]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    metrics_addr: Option<SocketAddr>,
}

/// A server whose port is bound. It answers only while [`Serving::run`] is polled.
pub(super) struct Serving {
    server: Server,
    caches: Caches,
    watches: bool,
}

impl Serve {
    /// Serves one plugin at all paths.
    pub(super) fn one(plugin: PathBuf, name: Option<String>, addresses: Addresses) -> Self {
        Self { addresses, name, watch: false, plugin: Some(plugin) }
    }

    pub(crate) async fn run(self, config: Config, operator: &Operator) -> anyhow::Result<ExitCode> {
        let (serving, listener) = self.start(config, operator, OnSignal::ShutDownServer, None).await?;
        serving.run(listener, operator).await;
        Ok(ExitCode::SUCCESS)
    }

    /// Loads the plugins and binds the ports. From then on a signal does what `on_signal` says. The metrics port needs a
    /// recorder: the one that is given, or else a new one.
    pub(super) async fn start(
        self,
        config: Config,
        operator: &Operator,
        on_signal: fn(Duration) -> OnSignal,
        recorder: Option<Recorder>,
    ) -> anyhow::Result<(Serving, TcpListener)> {
        let Self { addresses: Addresses { addr, metrics_addr }, name, watch, plugin } = self;
        raise_descriptor_limit();
        fix_thresholds(config.sandbox.max_memory);
        let addr = addr.unwrap_or(config.serve.addr);
        let metrics_addr = metrics_addr.or(config.serve.metrics_addr);
        let shutdown_timeout = config.serve.shutdown_timeout;
        let routes = config.routes.clone();
        if plugin.is_none() && routes.is_empty() {
            let message = "nothing to serve: name a plugin, or give one a `path` and a `route` in the configuration";
            return Err(Error::Option(message.to_owned()).into());
        }
        let metrics = match metrics_addr {
            Some(addr) => Some(MetricsServer::bind(addr, recorder.map_or_else(Recorder::install, Ok)?)?),
            None => None,
        };
        let mut options = RuntimeOptions::for_requests(&config);
        options.compiler = compile_plugin::process();
        options.on_slow_compilation = compiling::notice();
        let runtime = Runtime::with_options(config, options).await?;
        let caches = runtime.caches().clone();
        let plugins = match plugin {
            Some(path) => vec![("/".to_owned(), runtime.load(&path, name.as_deref())?)],
            None => routes
                .into_iter()
                .map(|Route { plugin, path, route, .. }| Ok((route, runtime.load(&path, Some(&plugin))?)))
                .collect::<Result<_, Error>>()?,
        };
        let server = Server::new(runtime, plugins)?;
        let metrics_addr = metrics.as_ref().map(MetricsServer::addr).transpose()?;
        let listener = TcpListener::bind(addr).await.map_err(|error| cannot_listen(addr, "--addr", &error))?;
        let mut lines = format!("listening on http://{}\n", listener.local_addr()?);
        if let Some(addr) = metrics_addr {
            lines.push_str(&format!("metrics on http://{addr}/metrics\n"));
        }
        // Before the address is printed: a supervisor may send a signal as soon as it reads it.
        operator.on_signal(on_signal(shutdown_timeout.saturating_add(drain_timeout(&caches))));
        if let Some(metrics) = metrics {
            operator.spawn(metrics.run(caches.clone(), Handle::current(), operator.shutdown.clone()));
        }
        console::write(Stream::Stdout, lines.as_bytes());
        let service_manager = &operator.service_manager;
        service_manager.ready();
        operator.spawn({
            let (service_manager, server) = (Arc::clone(service_manager), Handle::current());
            async move { service_manager.keep_alive(server).await }
        });
        Ok((Serving { server, caches, watches: watch }, listener))
    }
}

impl Serving {
    /// Answers requests until a signal ends the program, and then shuts down.
    pub(super) async fn run(&self, listener: TcpListener, operator: &Operator) {
        let Self { server, watches, .. } = self;
        let watch_files = async {
            match watches {
                true => server.watch().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server.run(listener, operator.shutdown.cancelled()) => {}
            never = watch_files => match never {},
            never = reload_on_hangup(server, operator) => match never {},
        }
    }

    /// Reloads the plugins, or logs why the previous versions are kept.
    pub(super) async fn reload(&self) {
        self.server.reload().await;
    }

    /// The caches of the plugins.
    pub(super) fn caches(&self) -> &Caches {
        &self.caches
    }
}

/// Reloads all plugins at each SIGHUP, also at one during a reload: a plugin that takes long must not keep the others
/// from being reloaded.
async fn reload_on_hangup(server: &Server, operator: &Operator) -> Infallible {
    let Operator { reload: hangup, service_manager, .. } = operator;
    hangup.notified().await;
    loop {
        service_manager.reloading();
        tokio::select! {
            () = server.reload() => {
                service_manager.ready();
                hangup.notified().await;
            }
            () = hangup.notified() => {}
        }
    }
}
