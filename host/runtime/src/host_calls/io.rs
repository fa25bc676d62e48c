//! `wasi:io/poll`: the number of pollables of one call is limited.

use wasmtime::component::{Linker, Resource, WasmList};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io::poll::Host;

use super::interface;
use crate::plugin_state::PluginState;

/// The maximum number of pollables of one call, including repetitions.
const MAX_POLLABLES: usize = 1024;

pub(super) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    linker.instance(interface!("io/poll"))?.func_wrap_async(
        "poll",
        |mut store, (list,): (WasmList<Resource<DynPollable>>,)| {
            Box::new(async move {
                if list.len() > MAX_POLLABLES {
                    let reason = format!("`poll` takes at most {MAX_POLLABLES} pollables, but got {}", list.len());
                    return Err(wasmtime::Error::msg(reason));
                }
                let pollables = list.iter(&mut store)?.collect::<wasmtime::Result<Vec<_>>>()?;
                Ok((store.data_mut().table.poll(pollables).await?,))
            })
        },
    )
}
