//! The plugin that makes the timed calls, embedded in a wasmtime program. The linker also has empty calls to compare
//! with.

use std::future::ready;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_host::{Caches, LarderCtx, LarderView, add_to_linker};
use larder_tests::guest;
use wasmtime::component::{Component, Instance, InstancePre, Linker, ResourceTable, WasmStr};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// The compiled and linked plugin.
pub(crate) struct Plugin {
    engine: Engine,
    pre: InstancePre<State>,
    caches: Caches,
}

/// An instance of the plugin.
pub(crate) struct PluginInstance {
    store: Store<State>,
    instance: Instance,
}

struct State {
    larder: LarderCtx,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Plugin {
    /// Loads the plugin. With `is_pooled`, wasmtime's pooling allocator reserves the memory of instances in advance.
    pub(crate) fn new(caches: Caches, is_pooled: bool) -> Self {
        let mut config = Config::new();
        // As Larder's engine for components of WASI 0.2.
        config.concurrency_support(false);
        // The `larder` program enables it too, so both compile the plugin to the same code.
        config.epoch_interruption(true);
        if is_pooled {
            let mut pool = PoolingAllocationConfig::new();
            pool.total_component_instances(100).max_memory_size(64 << 20).linear_memory_keep_resident(1 << 20);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        }
        let engine = Engine::new(&config).unwrap();
        let mut linker = Linker::<State>::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        add_to_linker(&mut linker, |state| LarderView { ctx: &mut state.larder, table: &mut state.table }).unwrap();
        let mut host = linker.instance("larder-bench:plugin/host").unwrap();
        host.func_wrap("nothing", |_, (): ()| Ok(())).unwrap();
        host.func_wrap_async("nothing-later", |_, (): ()| Box::new(async { Ok(()) })).unwrap();
        let bytes = Bytes::from_static(&[b'v'; 100 << 10]);
        host.func_wrap_async("bytes", move |_, (_, size): (WasmStr, u32)| {
            Box::new(ready(Ok((Some(bytes.slice(..size as usize)),))))
        })
        .unwrap();
        let component = Component::from_file(&engine, guest("bench_calls")).unwrap();
        let pre = linker.instantiate_pre(&component).unwrap();
        Self { engine, pre, caches }
    }

    pub(crate) async fn instantiate(&self) -> PluginInstance {
        let larder = self.caches.plugin("bench");
        let state = State { larder, wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, state);
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = self.pre.instantiate_async(&mut store).await.unwrap();
        PluginInstance { store, instance }
    }
}

impl PluginInstance {
    /// Repeats a call, and returns the total time.
    pub(crate) async fn time(&mut self, call: &str, size: u32, calls: u32) -> Duration {
        let run = self.instance.get_typed_func::<(&str, u32, u32), ()>(&mut self.store, "run").unwrap();
        let start = Instant::now();
        run.call_async(&mut self.store, (call, size, calls)).await.unwrap();
        start.elapsed()
    }

    /// Repeats a call, and returns the mean time of a call in seconds.
    pub(crate) async fn seconds_per_call(&mut self, call: &str, size: u32, calls: u32) -> f64 {
        self.time(call, size, calls).await.as_secs_f64() / f64::from(calls)
    }
}
