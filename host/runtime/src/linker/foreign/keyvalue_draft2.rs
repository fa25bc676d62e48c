//! The interface `store` of `wasi:keyvalue@0.2.0-draft2`: cursors are text.

use wasmtime::component::Linker;

use super::super::interface::View;
use super::Import;
use super::answer::{answer, invalid, to_host_result};
use super::bucket::{Bucket, add_calls, list, read_cursor};
use super::types::{Error, Keys};

pub(super) fn add_store<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    add_calls::<T, Error>(&mut interface, "bucket", view)?;
    let only = import.cache.clone();
    interface.func_wrap("open", move |mut store, (identifier,): (String,)| {
        to_host_result::<Bucket, Error>(view(store.data_mut()).open_bucket(&identifier, only.as_deref()))
    })?;
    interface.func_wrap_async("[method]bucket.list-keys", move |mut store, (bucket, cursor): (_, Option<String>)| {
        answer::<Keys, Error>(async move {
            let cursor = read_cursor(cursor.as_deref()).map_err(invalid)?;
            list(&mut store, view, bucket, cursor).await.map(Keys::new)
        })
    })
}
