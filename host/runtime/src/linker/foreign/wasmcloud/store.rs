//! The interface `store`.

use wasmtime::component::{Accessor, Linker};

use super::super::super::interface::View;
use super::super::bucket::Bucket;
use super::{HostFuture, to_host_result};

pub(in super::super) fn add<T: Send + 'static>(
    linker: &mut Linker<T>,
    name: &'static str,
    view: View<T>,
) -> wasmtime::Result<()> {
    let open = move |accessor, (identifier,)| open(accessor, view, identifier);
    linker.instance(name)?.func_wrap_concurrent("open", open)
}

fn open<T: Send + 'static>(accessor: &Accessor<T>, view: View<T>, identifier: String) -> HostFuture<'_, Bucket> {
    Box::pin(async move {
        let opened = accessor.with(|mut access| view(access.data_mut()).open_bucket(&identifier));
        to_host_result(opened.map(Ok))
    })
}
