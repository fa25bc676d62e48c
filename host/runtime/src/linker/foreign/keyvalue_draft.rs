//! `wasi:keyvalue@0.2.0-draft`: cursors and counters are `u64`.

use wasmtime::component::{Linker, WasmStr};

use super::super::cache::CallError;
use super::super::interface::View;
use super::super::wit;
use super::Import;
use super::answer::{answer, invalid};
use super::bucket::{self, increment, list};
use super::types::{Error, NumberedKeys};
use crate::cache::ListCursor;

/// The interface `store`.
pub(super) fn add_store<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = bucket::add_store(linker, import, view)?;
    interface.func_wrap_async("[method]bucket.list-keys", move |mut store, (bucket, cursor): (_, Option<u64>)| {
        answer::<NumberedKeys, Error>(async move {
            let page = list(&mut store, view, bucket, cursor.and_then(ListCursor::new)).await?;
            Ok(NumberedKeys { keys: page.keys, cursor: page.next.map(ListCursor::number) })
        })
    })
}

/// The interface `atomics`. The numbers of a cache are `i64`.
pub(super) fn add_atomics<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.func_wrap_async("increment", move |mut store, (bucket, key, delta): (_, WasmStr, u64)| {
        answer::<u64, Error>(async move {
            let delta = i64::try_from(delta).map_err(|_| invalid("delta: must not be over 9223372036854775807"))?;
            let sum = increment(&mut store, view, bucket, key, delta).await?;
            u64::try_from(sum).map_err(|_| {
                CallError::Plugin(wit::Error::Other(format!("the sum was stored, but it is negative: {sum}")))
            })
        })
    })
}
