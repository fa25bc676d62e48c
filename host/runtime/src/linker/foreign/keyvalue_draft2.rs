//! The interface `store` of `wasi:keyvalue@0.2.0-draft2`: cursors are text.

use wasmtime::component::Linker;

use super::super::interface::View;
use super::Import;
use super::answer::{answer, invalid};
use super::bucket::{self, list, read_cursor};
use super::types::{Error, Keys};

pub(super) fn add_store<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = bucket::add_store(linker, import, view)?;
    interface.func_wrap_async("[method]bucket.list-keys", move |mut store, (bucket, cursor): (_, Option<String>)| {
        answer::<Keys, Error>(async move {
            let cursor = read_cursor(cursor.as_deref()).map_err(invalid)?;
            list(&mut store, view, bucket, cursor).await.map(Keys::new)
        })
    })
}
