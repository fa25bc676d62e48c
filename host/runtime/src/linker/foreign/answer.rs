//! How calls of foreign interfaces are answered, with the error type of the interface.

use super::super::cache::{CallError, CallResult};
use super::super::wit;

/// The result that the plugin gets, or a trap.
pub(super) type HostResult<R, E> = wasmtime::Result<(Result<R, E>,)>;

/// A host function's result that the plugin awaits.
pub(super) type HostFuture<'a, R, E> = Box<dyn Future<Output = HostResult<R, E>> + Send + 'a>;

/// The future of a call.
pub(super) fn answer<'a, R: 'a, E: From<wit::Error> + 'a>(
    call: impl Future<Output = CallResult<R>> + Send + 'a,
) -> HostFuture<'a, R, E> {
    Box::new(async move { to_host_result(call.await) })
}

pub(super) fn to_host_result<R, E: From<wit::Error>>(outcome: CallResult<R>) -> HostResult<R, E> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(CallError::Plugin(error)) => Ok((Err(error.into()),)),
        Err(CallError::Limit(limit)) => Ok((Err(wit::Error::Other(limit).into()),)),
        Err(CallError::Trap(trap)) => Err(trap),
    }
}

/// An argument that breaks a rule, which the text names.
pub(super) fn invalid(rule: &str) -> CallError {
    CallError::Plugin(wit::Error::InvalidArgument(rule.to_owned()))
}
