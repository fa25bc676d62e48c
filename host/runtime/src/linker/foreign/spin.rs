//! `fermyon:spin/key-value@2.0.0`, which plugins for Spin import.

use wasmtime::component::Linker;

use super::super::cache::CallResult;
use super::super::ctx::LarderView;
use super::super::interface::View;
use super::Import;
use super::answer::{HostResult, answer, to_host_result};
use super::bucket::{Bucket, add_calls};
use super::types::SpinError;
use crate::cache::Duration;

pub(super) fn add<T: Send + 'static>(linker: &mut Linker<T>, import: &Import, view: View<T>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    // It has no compare-and-swap, so an equal value may have the same version.
    add_calls::<T, SpinError>(&mut interface, "store", view, |_| Duration::Default)?;
    let only = import.cache.clone();
    interface.func_wrap(
        "[static]store.open",
        move |mut store, (label,): (String,)| -> HostResult<Bucket, SpinError> {
            let mut view = view(store.data_mut());
            if view.has_all_handles() {
                return Ok((Err(SpinError::StoreTableFull),));
            }
            to_host_result(view.open_bucket(&label, only.as_deref()))
        },
    )?;
    interface.func_wrap_async("[method]store.get-keys", move |mut store, (bucket,): (Bucket,)| {
        answer::<Vec<String>, SpinError>(async move {
            let keys: CallResult<_> = async {
                let (_call, cache) = view(store.data_mut()).begin(&bucket)?;
                let keys = cache.list_all_keys().await;
                view(store.data_mut()).report(&cache, keys)
            }
            .await;
            keys
        })
    })
}

impl LarderView<'_> {
    /// True if the plugin holds as many cache handles as it may.
    fn has_all_handles(&self) -> bool {
        self.ctx.handles.held >= self.ctx.handles.max
    }
}
