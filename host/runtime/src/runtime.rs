//! Assembly: engine, linker and caches, and one plugin run from start to end in a sandbox of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{Instrument, info_span};
use wasmtime::component::{InstancePre, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxView, WasiView};

use crate::caches::Caches;
#[cfg(feature = "serve")]
use crate::config::Serve;
use crate::config::{Config, Sandbox, Variables};
use crate::engine::{Pool, load_component, new_engine};
use crate::error::Error;
#[cfg(feature = "serve")]
use crate::file_version::FileVersion;
use crate::invoke::{Call, Export, functions};
use crate::linker::{LarderCtx, LarderView, add_to_linker};
#[cfg(feature = "serve")]
use crate::outgoing::{Http, Outgoing};
use crate::runs::Runs;
use crate::sandbox::{MemoryBound, Output, OutputBound, Stdio, within_cpu_time};
#[cfg(feature = "serve")]
use crate::trace::TraceContext;

/// Runs plugins: commands, or one exported function.
pub struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    caches: Caches,
    sandbox: Sandbox,
    #[cfg(feature = "serve")]
    serve: Serve,
}

/// A plugin: loaded, compiled, and with all its imports found.
pub struct Plugin {
    name: String,
    path: PathBuf,
    pre: InstancePre<State>,
    figures: Runs,
    env: Variables,
    #[cfg(feature = "serve")]
    outgoing: Arc<Outgoing>,
    #[cfg(feature = "serve")]
    version: FileVersion,
}

/// What a run of a plugin is given beside its caches. Nothing else of the machine is in its reach.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Arguments, without the program's name.
    pub args: Vec<String>,
    /// Environment variables, beside those of the plugin's table in the configuration, which they go before.
    pub env: Vec<(String, String)>,
    /// Folders of the machine, each with the name by which the plugin sees it.
    pub dirs: Vec<(PathBuf, String)>,
}

/// How a plugin ended, when it was not cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The function came back.
    Returned(T),
    // Decision: docs/decisions/0018-the-exit-status-of-a-plugin-is-0-or-1.md
    /// The plugin called `exit` with this status.
    Exited(i32),
}

/// What a store holds.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    larder: LarderCtx,
    memory: MemoryBound,
    output: Arc<OutputBound>,
    #[cfg(feature = "serve")]
    http: Http,
}

/// What a plugin's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    /// The host's own.
    Own,
    /// No input, and the host's output with the plugin's name in front of each line.
    #[cfg(feature = "serve")]
    Shared,
}

/// What the resource table of a store holds beside cache handles and vacancies: files, streams, clocks.
const MAX_WASI_RESOURCES: usize = 10_000;

impl State {
    /// The plugin's own requests are part of the trace.
    #[cfg(feature = "serve")]
    pub(crate) fn set_trace(&mut self, trace: Option<TraceContext>) {
        self.http.set_trace(trace);
    }

    fn larder(&mut self) -> LarderView<'_> {
        LarderView { ctx: &mut self.larder, table: &mut self.table }
    }
}

/// Before the fields go, and with them what the plugin was writing.
#[cfg(feature = "serve")]
impl Drop for State {
    fn drop(&mut self) {
        self.http.end();
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[cfg(feature = "serve")]
impl wasmtime_wasi_http::WasiHttpView for State {
    fn http(&mut self) -> wasmtime_wasi_http::WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
    }
}

impl Runtime {
    /// Sets up the engine and connects every cache of the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`], [`Error::Engine`].
    pub async fn new(config: Config) -> Result<Self, Error> {
        Self::with_pool(config, None).await
    }

    /// [`Runtime::new`] with room set aside for `max_concurrent_requests` of `[serve]` instances at a time, and for no
    /// more: for the server of the feature `serve`.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`], [`Error::Engine`].
    pub async fn for_requests(config: Config) -> Result<Self, Error> {
        let pool = Pool { instances: config.serve.max_concurrent_requests, max_memory: config.sandbox.max_memory };
        Self::with_pool(config, Some(pool)).await
    }

    async fn with_pool(config: Config, pool: Option<Pool>) -> Result<Self, Error> {
        let sandbox = config.sandbox;
        #[cfg(feature = "serve")]
        let serve = config.serve;
        let caches = Caches::connect(config).await?;
        let engine = new_engine(pool)?;
        let mut linker = Linker::new(&engine);
        let set_up = |error: wasmtime::Error| Error::Engine(error.to_string());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(set_up)?;
        #[cfg(feature = "serve")]
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(set_up)?;
        add_to_linker(&mut linker, State::larder).map_err(set_up)?;
        Ok(Self {
            engine,
            linker,
            caches,
            sandbox,
            #[cfg(feature = "serve")]
            serve,
        })
    }

    #[cfg(feature = "serve")]
    pub(crate) fn serve(&self) -> &Serve {
        &self.serve
    }

    /// The caches that the plugins share.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Loads a plugin. Its name is `name`, else the file's without its ending.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], also for a component that imports what this host has not.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Plugin, Error> {
        // Before it is read, so that what is written meanwhile is a change.
        #[cfg(feature = "serve")]
        let version = FileVersion::of(path);
        let component = load_component(&self.engine, path)?;
        let pre = self.linker.instantiate_pre(&component).map_err(|error| {
            let reason = format!("it needs what this host has not: {error:#}");
            Error::Load { path: path.display().to_string(), reason }
        })?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(Plugin {
            path: path.to_owned(),
            pre,
            figures: Runs::of(&name),
            env: self.caches.config().grant(&name).env,
            #[cfg(feature = "serve")]
            outgoing: Arc::new(Outgoing::new(&name, self.caches.config())),
            #[cfg(feature = "serve")]
            version,
            name,
        })
    }

    /// Runs a command component to its end and answers its exit status.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] for a component that is no command; [`Error::Option`], [`Error::Trap`], [`Error::Stopped`].
    pub async fn run(&self, plugin: &Plugin, options: &RunOptions) -> Result<i32, Error> {
        let command = CommandPre::new(plugin.pre.clone()).map_err(|_| {
            let functions = functions(&self.engine, plugin.pre.component());
            let reason = match functions.as_slice() {
                [] => "it exports no function, not even a `main`".to_owned(),
                some => format!("it is no command; call one of its functions with `--invoke`: {}", list(some)),
            };
            plugin.unfit(&reason)
        })?;
        let ending = self
            .in_sandbox(plugin, options, async |store| {
                let command = command.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await
            })
            .await?;
        Ok(match ending {
            Outcome::Returned(Ok(())) => 0,
            Outcome::Returned(Err(())) => 1,
            Outcome::Exited(status) => status,
        })
    }

    /// Calls one exported function, written as `f("x", 1)` with [WAVE] values, and answers its result in the same
    /// notation: `Err` where the function returned an error.
    ///
    /// [WAVE]: https://github.com/bytecodealliance/wasm-tools/tree/main/crates/wasm-wave
    ///
    /// # Errors
    ///
    /// [`Error::Invoke`] for a call that does not fit the plugin; [`Error::Option`], [`Error::Trap`],
    /// [`Error::Stopped`].
    pub async fn invoke(
        &self,
        plugin: &Plugin,
        options: &RunOptions,
        call: &str,
    ) -> Result<Outcome<Result<String, String>>, Error> {
        let component = plugin.pre.component();
        let call = Call::parse(&self.engine, component, call)
            .map_err(|reason| Error::Invoke { call: call.to_owned(), reason })?;
        self.in_sandbox(plugin, options, async |store| {
            let instance = plugin.pre.instantiate_async(&mut *store).await?;
            call.make(&instance, store).await
        })
        .await
    }

    /// The job in a store of its own, bounded in memory, time and output.
    async fn in_sandbox<T>(
        &self,
        plugin: &Plugin,
        options: &RunOptions,
        job: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, Error> {
        let mut store = self.store(plugin, options, Console::Own)?;
        let span = info_span!(target: "larder_host::run", "run", plugin = plugin.name);
        self.within_bounds(plugin, &mut store, job).instrument(span).await
    }

    /// The job, until it ends or a bound does, counted by its end.
    pub(crate) async fn within_bounds<T>(
        &self,
        plugin: &Plugin,
        store: &mut Store<State>,
        job: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, Error> {
        let run = plugin.figures.begin();
        let ended = self.until_its_end(plugin, store, job).await;
        run.end(match &ended {
            Ok(Outcome::Returned(_)) => "returned",
            Ok(Outcome::Exited(_)) => "exited",
            Err(Error::Stopped { bound, .. }) => bound,
            Err(_) => "trapped",
        });
        ended
    }

    async fn until_its_end<T>(
        &self,
        plugin: &Plugin,
        store: &mut Store<State>,
        job: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, Error> {
        let stopped = |bound, reason| Error::Stopped { plugin: plugin.name.clone(), bound, reason };
        let job = within_cpu_time(self.sandbox.max_cpu_time, job(store));
        let error = match tokio::time::timeout(self.sandbox.timeout, job).await {
            Ok(Some(Ok(returned))) => return Ok(Outcome::Returned(returned)),
            Ok(Some(Err(error))) => error,
            Ok(None) => {
                let max = humantime::format_duration(self.sandbox.max_cpu_time);
                return Err(stopped("max_cpu_time", format!("it computed longer than {max}")));
            }
            Err(_elapsed) => {
                let timeout = humantime::format_duration(self.sandbox.timeout);
                return Err(stopped("timeout", format!("it ran longer than {timeout}")));
            }
        };
        if let Some(I32Exit(status)) = error.downcast_ref() {
            return Ok(Outcome::Exited(*status));
        }
        if store.data().output.is_exceeded() {
            let max = bytesize::ByteSize(self.sandbox.max_output);
            return Err(stopped("max_output", format!("it wanted to write more than {max}")));
        }
        let reason = error.root_cause().to_string();
        if store.data().memory.is_exceeded {
            let max = bytesize::ByteSize(self.sandbox.max_memory);
            return Err(stopped("max_memory", format!("it wanted more memory than {max}: {reason}")));
        }
        Err(Error::Trap { plugin: plugin.name.clone(), reason })
    }

    pub(crate) fn store(&self, plugin: &Plugin, options: &RunOptions, console: Console) -> Result<Store<State>, Error> {
        let mut wasi = WasiCtx::builder();
        let output = OutputBound::new(self.sandbox.max_output);
        match console {
            Console::Own => {
                wasi.inherit_stdin();
                wasi.stdout(Output::new(Stdio::Stdout, &output)).stderr(Output::new(Stdio::Stderr, &output));
            }
            #[cfg(feature = "serve")]
            Console::Shared => {
                let named = |to| Output::named(to, &output, &plugin.name);
                wasi.stdout(named(Stdio::Stdout)).stderr(named(Stdio::Stderr));
            }
        }
        // What a run is given goes before what the configuration says.
        let is_given = |name: &str| options.env.iter().any(|(given, _)| given == name);
        let env: Vec<_> = plugin.env.iter().filter(|(name, _)| !is_given(name)).collect();
        wasi.arg(&plugin.name).args(&options.args).envs(&env).envs(&options.env);
        for (host, guest) in &options.dirs {
            wasi.preopened_dir(host, guest, FsPerms::ReadWrite).map_err(|error| {
                Error::Option(format!("cannot open folder `{}`: {}", host.display(), error.root_cause()))
            })?;
        }
        let mut table = ResourceTable::new();
        let ours = self.sandbox.max_handles.saturating_add(self.sandbox.max_vacancies);
        table.set_max_capacity(ours.saturating_add(MAX_WASI_RESOURCES));
        let state = State {
            wasi: wasi.build(),
            table,
            larder: self.caches.plugin(&plugin.name),
            memory: MemoryBound::new(self.sandbox.max_memory),
            output,
            #[cfg(feature = "serve")]
            http: Http::new(&plugin.outgoing),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.caches.largest_call());
        // Every tick a spinning plugin yields, so that its timeout and other tasks have their turn.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        Ok(store)
    }
}

impl Plugin {
    /// Its name, by which it is granted what it may do.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How its file was when it was read.
    #[cfg(feature = "serve")]
    pub(crate) fn version(&self) -> FileVersion {
        self.version
    }

    #[cfg(feature = "serve")]
    pub(crate) fn pre(&self) -> &InstancePre<State> {
        &self.pre
    }

    /// The error of a plugin that is not what was asked for.
    pub(crate) fn unfit(&self, reason: &str) -> Error {
        Error::Load { path: self.path.display().to_string(), reason: reason.to_owned() }
    }
}

fn list(exports: &[Export]) -> String {
    exports.iter().map(|export| format!("`{export}`")).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("caches", &self.caches).field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}
