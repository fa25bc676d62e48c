//! `wasmcloud:keyvalue@0.2.0`, which components of WASI 0.3 import: each function is asynchronous.
//!
//! The calls have the limits of [`concurrent`](super::super::concurrent), and let other tasks of the instance go on too.

mod atomics;
mod batch;
mod bucket;
mod cas;
mod store;
mod types;

use std::pin::Pin;
use std::sync::Arc;

use wasmtime::component::Accessor;

pub(super) use atomics::add as add_atomics;
pub(super) use batch::add as add_batch;
pub(super) use bucket::add as add_types;
pub(super) use cas::add as add_cas;
pub(super) use store::add as add_store;

use super::super::cache::{CallError, CallResult};
use super::super::concurrent::{call, report};
use super::super::interface::View;
use super::answer::HostResult;
use super::bucket::Bucket;
use crate::cache::{CacheError, ScopedCache};
use types::Error;

/// The result that the plugin awaits.
type HostFuture<'a, R> = Pin<Box<dyn Future<Output = HostResult<R, Error>> + Send + 'a>>;

/// Makes a call of a bucket, whose arguments have `len` bytes. `finish` makes what the plugin gets of its outcome.
fn answer<'a, T, R, O, C>(
    accessor: &'a Accessor<T>,
    view: View<T>,
    bucket: Bucket,
    len: usize,
    make: impl FnOnce(Arc<ScopedCache>) -> C + Send + 'a,
    finish: fn(O) -> Result<R, Error>,
) -> HostFuture<'a, R>
where
    T: Send + 'static,
    R: Send + 'a,
    O: Send + 'a,
    C: Future<Output = Result<O, CacheError>> + Send + 'a,
{
    Box::pin(async move { to_host_result(call(accessor, view, bucket, len, report, make).await.map(finish)) })
}

fn to_host_result<R>(outcome: CallResult<Result<R, Error>>) -> HostResult<R, Error> {
    match outcome {
        Ok(result) => Ok((result,)),
        Err(CallError::Plugin(error)) => Ok((Err(error.into()),)),
        Err(CallError::Limit(_)) => Ok((Err(Error::QuotaExceeded),)),
        Err(CallError::Trap(trap)) => Err(trap),
    }
}
