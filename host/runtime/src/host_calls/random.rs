//! `wasi:random`: the random bytes of one call are limited, and computed in parts.

use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::random::{insecure, random};
use wasmtime_wasi::random::WasiRandomCtx;

use super::interface;
use crate::plugin_state::PluginState;

/// The random bytes that are computed before other tasks get a turn: about a millisecond of work.
const PART: u64 = 64 << 10;

type Generate = fn(&mut WasiRandomCtx, u64) -> wasmtime::Result<Vec<u8>>;

pub(super) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    let secure: Generate = <WasiRandomCtx as random::Host>::get_random_bytes;
    let fast: Generate = <WasiRandomCtx as insecure::Host>::get_insecure_random_bytes;
    for (interface, function, generate) in [
        (interface!("random/random"), "get-random-bytes", secure),
        (interface!("random/insecure"), "get-insecure-random-bytes", fast),
    ] {
        linker.instance(interface)?.func_wrap_async(function, move |mut store, (len,): (u64,)| {
            Box::new(async move { Ok((random_bytes(store.data_mut(), len, generate).await?,)) })
        })?;
    }
    Ok(())
}

async fn random_bytes(state: &mut PluginState, len: u64, generate: Generate) -> wasmtime::Result<Vec<u8>> {
    let max = state.shares.random();
    let wanted = usize::try_from(len).unwrap_or(usize::MAX);
    if wanted > max {
        let reason =
            format!("one call returns at most {max} random bytes (`max_memory` / 16, at most 1 MiB), not {len}");
        return Err(wasmtime::Error::msg(reason));
    }
    let mut bytes = Vec::with_capacity(wanted);
    while bytes.len() < wanted {
        let left = u64::try_from(wanted.saturating_sub(bytes.len())).unwrap_or(u64::MAX);
        bytes.extend(generate(state.wasi.random(), left.min(PART))?);
        if left > PART {
            tokio::task::yield_now().await;
        }
    }
    Ok(bytes)
}
