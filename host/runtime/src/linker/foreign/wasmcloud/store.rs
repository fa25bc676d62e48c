//! The interface `store`.

use std::sync::Arc;

use wasmtime::component::{Accessor, Linker};

use super::super::super::interface::View;
use super::super::Import;
use super::super::bucket::Bucket;
use super::{HostFuture, to_host_result};

pub(in super::super) fn add<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let only = import.cache.clone();
    let mut interface = linker.instance(&import.name)?;
    interface
        .func_wrap_concurrent("open", move |accessor, (identifier,)| open(accessor, view, identifier, only.clone()))
}

fn open<T: Send + 'static>(
    accessor: &Accessor<T>,
    view: View<T>,
    identifier: String,
    only: Option<Arc<str>>,
) -> HostFuture<'_, Bucket> {
    Box::pin(async move {
        let opened = accessor.with(|mut access| {
            let mut view = view(access.data_mut());
            let opened = view.open_bucket(&identifier, only.as_deref()).and_then(|bucket| view.limit_answers(bucket));
            opened.inspect_err(|error| view.ctx.log_lost_reason(only.as_deref().unwrap_or(&identifier), error))
        });
        to_host_result(opened.map(Ok))
    })
}
