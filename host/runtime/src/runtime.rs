//! The engine, the linker and the caches together: runs plugins, each in a sandbox of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{Instrument, info_span};
use wasmtime::Store;
use wasmtime::component::{ResourceTable, ResourceTableError};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx};

use crate::caches::Caches;
use crate::command::Command;
use crate::compiler::CompilerProcess;
#[cfg(feature = "serve")]
use crate::config::Serve;
use crate::config::{Config, Sandbox};
use crate::console::Stream;
use crate::engines::Engines;
use crate::error::Error;
use crate::invoke::{Export, Invocation, functions};
use crate::loading::Loader;
#[cfg(feature = "serve")]
use crate::outgoing::Http;
pub use crate::plugin::Plugin;
use crate::plugin_state::PluginState;
use crate::sandbox::{DirQuota, Files, MemoryLimit, Output, OutputLimit, Shares, Turns, within_cpu_time};

/// Runs plugins: commands, or single exported functions.
pub struct Runtime {
    engines: Engines,
    loader: Loader,
    caches: Caches,
    sandbox: Sandbox,
    turns: Arc<Turns>,
    #[cfg(feature = "serve")]
    serve: Serve,
}

/// How a [`Runtime`] allocates instances and compiles plugins. Start from [`RuntimeOptions::default`] or
/// [`RuntimeOptions::for_requests`] and set the fields that differ.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// The maximum number of instances at a time. Memory for them is reserved, so that one is created quickly, and more
    /// cannot run. Defaults to none: instances are allocated one by one, without a maximum.
    pub instances: Option<usize>,
    /// The program that compiles plugins within `max_compile_memory` and `compile_timeout` of `[sandbox]`. Defaults to
    /// none: this process compiles them, and neither its memory nor its time is bounded. Then only the file is:
    /// `max_plugin_bytes`, components nested at most 100 deep, and 200,000 functions of at most 1 MiB each. A file within
    /// these bounds can still take gigabytes and minutes. Name a program if you load files that you do not trust.
    pub compiler: Option<CompilerProcess>,
    /// Called if the compilation of a plugin takes longer than half a second. Defaults to none.
    pub on_slow_compilation: Option<OnSlowCompilation>,
}

/// Gets the file of a plugin that is being compiled, and true if its compiled form will be kept for the next start. It is
/// called on a thread of its own and should only print a line.
pub type OnSlowCompilation = fn(&Path, bool);

impl RuntimeOptions {
    /// The options for the HTTP server of the feature `serve`: at most `max_concurrent_requests` instances.
    pub fn for_requests(config: &Config) -> Self {
        Self { instances: Some(config.serve.max_concurrent_requests), ..Self::default() }
    }
}

/// What a run of a plugin may use besides the caches. The plugin has no access to anything else on the machine.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The arguments, without the program name. Defaults to none.
    pub args: Vec<String>,
    /// Environment variables. They take precedence over those of the plugin's table in the configuration. Defaults to
    /// none.
    pub env: Vec<(String, String)>,
    /// Directories of the machine, each with the path at which the plugin sees it. Defaults to none.
    pub dirs: Vec<(PathBuf, String)>,
}

/// How a plugin ended, if it was not stopped and did not trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The function returned.
    Returned(T),
    // Decision: docs/decisions/0018-the-exit-status-of-a-plugin-is-0-or-1.md
    /// The plugin called `exit` with this status.
    Exited(i32),
}

/// Why a plugin did not return.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It called `exit` with this status.
    Exited(i32),
    /// It trapped or was stopped.
    Failed(Error),
}

/// The standard streams of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    /// The host's streams.
    Inherited,
    /// No input, and the host's output with the plugin's name before each line.
    #[cfg(feature = "serve")]
    Prefixed,
}

impl Runtime {
    /// Sets up the engine and connects all caches of the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] if a cache cannot be used; the operator must correct the configuration or the server.
    /// [`Error::Engine`] if this machine cannot run wasmtime.
    pub async fn new(config: Config) -> Result<Self, Error> {
        Self::with_options(config, RuntimeOptions::default()).await
    }

    /// As [`Runtime::new`], for the HTTP server of the feature `serve`. Memory for `max_concurrent_requests` instances
    /// is reserved, and more cannot run at a time.
    ///
    /// # Errors
    ///
    /// As [`Runtime::new`].
    pub async fn for_requests(config: Config) -> Result<Self, Error> {
        let options = RuntimeOptions::for_requests(&config);
        Self::with_options(config, options).await
    }

    /// As [`Runtime::new`], with options. Await it on the tokio runtime that will run the plugins: as many of them compute
    /// at a time as that runtime has worker threads.
    ///
    /// # Errors
    ///
    /// As [`Runtime::new`].
    pub async fn with_options(config: Config, options: RuntimeOptions) -> Result<Self, Error> {
        let sandbox = config.sandbox;
        #[cfg(feature = "serve")]
        let serve = config.serve;
        let caches = Caches::connect(config).await?;
        // The runs share the threads of the runtime that this is called on.
        let turns = Turns::new(tokio::runtime::Handle::current().metrics().num_workers());
        let engines = Engines::new(options.instances, sandbox)?;
        let loader = Loader::new(&sandbox, options.compiler, options.on_slow_compilation);
        Ok(Self {
            engines,
            loader,
            caches,
            sandbox,
            turns,
            #[cfg(feature = "serve")]
            serve,
        })
    }

    /// The turn of a new instance among those that compute.
    #[cfg(feature = "serve")]
    pub(crate) fn turn(&self, plugin: &Plugin) -> crate::sandbox::Turn {
        self.turns.turn(plugin.name_shared())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn max_cpu_time(&self) -> std::time::Duration {
        self.sandbox.max_cpu_time
    }

    /// True if a run that begins now gets its turn at once.
    #[cfg(feature = "serve")]
    pub(crate) fn is_calm(&self) -> bool {
        self.turns.are_free()
    }

    /// The maximum time of a run.
    #[cfg(feature = "serve")]
    pub(crate) fn timeout(&self) -> std::time::Duration {
        self.sandbox.timeout
    }

    /// The number of runs that can compute at the same time.
    #[cfg(feature = "serve")]
    pub(crate) fn threads(&self) -> usize {
        self.turns.count()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn serve(&self) -> &Serve {
        &self.serve
    }

    /// The caches of all plugins.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Loads and compiles a plugin. Its name is `name`, or the file name without extension. Blocks the thread while it
    /// reads and compiles; in an async program call it in a task that may block. Without a
    /// [compiler process](RuntimeOptions::compiler) the memory and time of compiling are not bounded.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] if the file cannot be read, exceeds a limit of `[sandbox]`, is not a valid component, or imports
    /// something this host does not provide. The plugin's author must fix it, or the operator must raise the limit.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Plugin, Error> {
        Plugin::load(&self.loader, &self.engines, self.caches.config(), path, name)
    }

    /// Runs a command component and returns its exit status. The plugin's output goes to stdout and stderr of the
    /// process without loss: the plugin waits while it is not read, and a plugin that was not stopped has ended when its
    /// output is written. No thread waits. Poll the future until it completes, or drop it: one that is kept without being
    /// polled may hold the turn of a worker thread that other runs wait for.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] for a component that is not a command, and [`Error::Trap`]; the plugin's author must fix it.
    /// [`Error::Option`] for invalid options. [`Error::Stopped`] if the plugin exceeds a limit of `[sandbox]`.
    pub async fn run(&self, plugin: &Plugin, options: &RunOptions) -> Result<i32, Error> {
        let command = Command::of(plugin).ok_or_else(|| {
            let functions = functions(plugin.pre().engine(), plugin.pre().component());
            let reason = match functions.as_slice() {
                _ if plugin.serves_http() => format!("it is not a command but serves HTTP; {}", serve_it(plugin)),
                [] => "it exports no functions: build it from a program with a `main`, or export one".to_owned(),
                some => format!("it is not a command; call one of its functions with `--invoke`: {}", list(some)),
            };
            plugin.load_error(&reason)
        })?;
        let outcome = self.in_sandbox(plugin, options, async |store| command.run(store).await).await;
        // The `main` of a plugin that serves HTTP may be there for the linker alone.
        let outcome = outcome.map_err(|error| match error {
            Error::Trap { plugin: name, reason } if plugin.serves_http() => {
                Error::Trap { plugin: name, reason: format!("{reason}; it also serves HTTP: {}", serve_it(plugin)) }
            }
            other => other,
        })?;
        Ok(match outcome {
            Outcome::Returned(Ok(())) => 0,
            Outcome::Returned(Err(())) => 1,
            Outcome::Exited(status) => status,
        })
    }

    /// Calls one exported function as [`Runtime::run`] runs a command, written as `f("x", 1)` with [WAVE] values. The
    /// result is in the same notation, and `Err` if the function returned an error.
    ///
    /// [WAVE]: https://github.com/bytecodealliance/wasm-tools/tree/main/crates/wasm-wave
    ///
    /// # Errors
    ///
    /// [`Error::Invoke`] if the call does not match a function of the plugin; the caller must correct it.
    /// [`Error::Option`] for invalid options. [`Error::Trap`]; the plugin's author must fix it. [`Error::Stopped`] if
    /// the plugin exceeds a limit of `[sandbox]`.
    pub async fn invoke(
        &self,
        plugin: &Plugin,
        options: &RunOptions,
        call: &str,
    ) -> Result<Outcome<Result<String, String>>, Error> {
        let component = plugin.pre().component();
        let invocation = Invocation::parse(plugin.pre().engine(), component, call)
            .map_err(|reason| Error::Invoke { call: call.to_owned(), reason })?;
        self.in_sandbox(plugin, options, async |store| {
            let instance = plugin.pre().instantiate_async(&mut *store).await?;
            invocation.call(&instance, store).await
        })
        .await
    }

    /// Runs the job in a new store, within the limits of the sandbox.
    async fn in_sandbox<T>(
        &self,
        plugin: &Plugin,
        options: &RunOptions,
        job: impl AsyncFnOnce(&mut Store<PluginState>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, Error> {
        let mut store = self.store(plugin, options, Console::Inherited)?;
        let span = info_span!(target: "larder_host::run", "run", plugin = plugin.name());
        let ended = self.within_limits(plugin, &mut store, job).instrument(span).await;
        let output = Arc::clone(&store.data().output);
        // The plugin has ended: a reader that stalls does not keep its memory and its vacancies.
        drop(store);
        // A plugin that was stopped has used its time, and must not wait for its reader.
        if !matches!(ended, Err(Error::Stopped { .. })) {
            output.written().await;
        }
        ended
    }

    /// Runs the job until it completes or exceeds a limit, and counts the run by its outcome.
    pub(crate) async fn within_limits<T>(
        &self,
        plugin: &Plugin,
        store: &mut Store<PluginState>,
        job: impl AsyncFnOnce(&mut Store<PluginState>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, Error> {
        let run = plugin.metrics().begin();
        let outcome = self.until_complete(plugin, store, job).await;
        run.end(match &outcome {
            Ok(Outcome::Returned(_)) => "returned",
            Ok(Outcome::Exited(_)) => "exited",
            Err(Error::Stopped { limit, .. }) => limit,
            Err(_) => "trapped",
        });
        outcome
    }

    async fn until_complete<T>(
        &self,
        plugin: &Plugin,
        store: &mut Store<PluginState>,
        job: impl AsyncFnOnce(&mut Store<PluginState>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, Error> {
        let turn = self.turns.turn(plugin.name_shared());
        let job = within_cpu_time(self.sandbox.max_cpu_time, turn, job(store));
        // In a block, so that a job that does not wait sets no timer. Not constrained: a job may use up Tokio's budget of its
        // task at each poll.
        let timeout = tokio::task::unconstrained(async { tokio::time::sleep(self.sandbox.timeout).await });
        let ended = tokio::select! {
            biased;
            ended = job => ended,
            () = timeout => return Err(self.timed_out(plugin)),
        };
        match ended {
            Some(Ok(returned)) => Ok(Outcome::Returned(returned)),
            Some(Err(error)) => match self.failure(plugin, store.data(), &error) {
                Failure::Exited(status) => Ok(Outcome::Exited(status)),
                Failure::Failed(error) => Err(error),
            },
            None => Err(self.out_of_cpu_time(plugin)),
        }
    }

    /// The error of a run that took too long.
    pub(crate) fn timed_out(&self, plugin: &Plugin) -> Error {
        let timeout = humantime::format_duration(self.sandbox.timeout);
        stopped(plugin, "timeout", format!("it ran longer than {timeout}"))
    }

    /// The error of a run that used too much processor time.
    pub(crate) fn out_of_cpu_time(&self, plugin: &Plugin) -> Error {
        let max = humantime::format_duration(self.sandbox.max_cpu_time);
        stopped(plugin, "max_cpu_time", format!("it used more than {max} of processor time"))
    }

    /// Why a plugin did not return.
    pub(crate) fn failure(&self, plugin: &Plugin, state: &PluginState, error: &wasmtime::Error) -> Failure {
        if let Some(I32Exit(status)) = error.downcast_ref() {
            return Failure::Exited(*status);
        }
        if state.output.is_exceeded() {
            let max = bytesize::ByteSize(self.sandbox.max_output);
            return Failure::Failed(stopped(plugin, "max_output", format!("it tried to write more than {max}")));
        }
        let reason = error.root_cause().to_string();
        let is_full = matches!(error.downcast_ref(), Some(ResourceTableError::Full));
        if is_full || state.memory.is_exceeded {
            let max = bytesize::ByteSize(self.sandbox.max_memory);
            let reason = format!("it requested more than {max} of memory: {reason}");
            return Failure::Failed(stopped(plugin, "max_memory", reason));
        }
        Failure::Failed(Error::Trap { plugin: plugin.name().to_owned(), reason })
    }

    pub(crate) fn store(
        &self,
        plugin: &Plugin,
        options: &RunOptions,
        console: Console,
    ) -> Result<Store<PluginState>, Error> {
        let output = OutputLimit::new(self.sandbox.max_output);
        let shares = Shares::new(self.sandbox.max_memory);
        let wasi = new_wasi(plugin, options, console, &output, shares)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(shares.entries());
        let mut larder_table = ResourceTable::new();
        larder_table.set_max_capacity(self.sandbox.max_handles.saturating_add(self.sandbox.max_vacancies));
        let state = PluginState {
            wasi,
            table,
            larder: self.caches.plugin(plugin.name()),
            larder_table,
            memory: MemoryLimit::new(self.sandbox.max_memory, self.sandbox.loading),
            shares,
            files: Files::default(),
            dir_quota: Arc::new(DirQuota::new(self.sandbox.max_dir_bytes, plugin.metrics().refused_writes.clone())),
            output,
            #[cfg(feature = "serve")]
            http: Http::new(plugin.outgoing(), shares),
            #[cfg(feature = "serve")]
            charged: 0,
        };
        let mut store = Store::new(plugin.pre().engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.caches.largest_call());
        store.set_max_component_handles(shares.component_handles());
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(shares.tasks());
        }
        // A computing plugin yields at each tick, so that its timeout is checked and other tasks run.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        Ok(store)
    }
}

fn stopped(plugin: &Plugin, limit: &'static str, reason: String) -> Error {
    Error::Stopped { plugin: plugin.name().to_owned(), limit, reason }
}

fn new_wasi(
    plugin: &Plugin,
    options: &RunOptions,
    console: Console,
    output: &Arc<OutputLimit>,
    shares: Shares,
) -> Result<WasiCtx, Error> {
    let mut wasi = WasiCtx::builder();
    wasi.max_random_size(u64::try_from(shares.random()).unwrap_or(u64::MAX));
    // A socket would take a file descriptor of the host, even if no address may be reached.
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    match console {
        Console::Inherited => {
            wasi.inherit_stdin();
            wasi.stdout(Output::new(Stream::Stdout, output)).stderr(Output::new(Stream::Stderr, output));
        }
        #[cfg(feature = "serve")]
        Console::Prefixed => {
            let prefixed = |to| Output::prefixed(to, output, plugin.name_shared());
            wasi.stdout(prefixed(Stream::Stdout)).stderr(prefixed(Stream::Stderr));
        }
    }
    let is_overridden = |name: &str| options.env.iter().any(|(option, _)| option == name);
    let env: Vec<_> = plugin.env().iter().filter(|(name, _)| !is_overridden(name)).collect();
    wasi.arg(plugin.name()).args(&options.args).envs(&env).envs(&options.env);
    for (host, guest) in &options.dirs {
        wasi.preopened_dir(host, guest, FsPerms::ReadWrite).map_err(|error| {
            Error::Option(format!("cannot open directory `{}`: {}", host.display(), error.root_cause()))
        })?;
    }
    Ok(wasi.build())
}

/// What to type for a plugin that serves HTTP.
fn serve_it(plugin: &Plugin) -> String {
    format!("type `larder serve {}`", plugin.path().display())
}

fn list(exports: &[Export]) -> String {
    exports.iter().map(|export| format!("`{export}`")).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("caches", &self.caches).field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}
