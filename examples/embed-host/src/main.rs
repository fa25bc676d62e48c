//! A program with its own wasmtime engine that gives its plugins a cache: `embed-host PLUGIN.wasm`.
//!
//! It runs the plugin twice, each time in a new sandbox. The second run finds the values that the first one stored.

use anyhow::{Context, Result};
use larder_host::{Caches, Config, LarderCtx, LarderView, add_to_linker};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// The state of one plugin instance.
struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    larder: LarderCtx,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: embed-host PLUGIN.wasm")?;

    // Once per program: the caches and the linker.
    let config = Config::from_toml(
        r#"
        [caches.ram]
        type = "ram"
        max_bytes = "16MiB"
        "#,
    )?;
    let caches = Caches::connect(config).await?;
    let engine = Engine::default();
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    add_to_linker(&mut linker, |state| LarderView { ctx: &mut state.larder, table: &mut state.table })?;
    let plugin = CommandPre::new(linker.instantiate_pre(&Component::from_file(&engine, path)?)?)?;

    // Once per run: a store with the plugin's context.
    for run in 1..=2 {
        println!("run {run}");
        let state = State {
            wasi: WasiCtx::builder().inherit_stdout().build(),
            table: ResourceTable::new(),
            larder: caches.plugin("plugin"),
        };
        let mut store = Store::new(&engine, state);
        store.set_hostcall_fuel(caches.largest_call());
        let command = plugin.instantiate_async(&mut store).await?;
        let outcome = command.wasi_cli_run().call_run(&mut store).await?;
        anyhow::ensure!(outcome.is_ok(), "the plugin failed");
    }

    // Before the program ends: wait until the leases of unfinished computations are released.
    caches.drain().await;
    Ok(())
}
