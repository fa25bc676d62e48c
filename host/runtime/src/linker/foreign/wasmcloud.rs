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
use super::super::ctx::{LarderCtx, LarderView};
use super::super::handles::OpenCache;
use super::super::interface::View;
use super::super::mistakes::Mistake;
use super::super::wit;
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
    Box::pin(async move {
        let handle = bucket.rep();
        let outcome = call(accessor, view, bucket, len, report, make).await;
        if let Err(error) = &outcome {
            accessor.with(|mut access| view(access.data_mut()).log_lost_reason(handle, error));
        }
        to_host_result(outcome.map(finish))
    })
}

impl LarderView<'_> {
    /// Logs the reason of the error of a call of a bucket, if the plugin does not get it.
    fn log_lost_reason(&mut self, bucket: u32, error: &CallError) {
        let cache = self.table.get(&Bucket::new_borrow(bucket)).map(|OpenCache(cache)| Arc::clone(cache));
        self.ctx.log_lost_reason(cache.as_ref().map_or("", |cache| cache.name()), error);
    }
}

impl LarderCtx {
    /// Logs the reason of an error, if the plugin does not get it: these errors of the interface have no text.
    fn log_lost_reason(&mut self, cache: &str, error: &CallError) {
        match error {
            CallError::Plugin(wit::Error::InvalidArgument(rule)) => {
                self.log_reason(Mistake::InvalidArgument, cache, "invalid-argument", rule);
            }
            CallError::Limit(limit) => self.log_reason(Mistake::LimitReached, cache, "quota-exceeded", limit),
            CallError::Plugin(_) | CallError::Trap(_) => {}
        }
    }
}

fn to_host_result<R>(outcome: CallResult<Result<R, Error>>) -> HostResult<R, Error> {
    match outcome {
        Ok(result) => Ok((result,)),
        Err(CallError::Plugin(error)) => Ok((Err(error.into()),)),
        Err(CallError::Limit(_)) => Ok((Err(Error::QuotaExceeded),)),
        Err(CallError::Trap(trap)) => Err(trap),
    }
}
