//! The interface `atomics`: counters.

use std::sync::Arc;

use wasmtime::component::Linker;

use super::super::super::interface::View;
use super::super::Import;
use super::super::bucket::Bucket;
use super::answer;
use crate::cache::{Duration, ScopedCache};

pub(in super::super) fn add<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    linker.instance(&import.name)?.func_wrap_concurrent(
        "increment",
        move |accessor, (bucket, key, delta): (Bucket, String, i64)| {
            let len = key.len();
            let add =
                move |cache: Arc<ScopedCache>| async move { cache.increment(&key, delta, Duration::lasting()).await };
            answer(accessor, view, bucket, len, add, Ok)
        },
    )
}
