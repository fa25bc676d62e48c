//! What an instance still holds when its request has ended.

use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostResponseOutparam,
};

/// What an instance may take before it reaches a bound that holds for the instance and not for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// True if the instance has asked for more memory than it may have.
    pub(crate) is_exceeded: bool,
    /// Bytes of `max_memory`.
    pub(crate) memory: u64,
    /// Entries of the table of WASI resources.
    pub(crate) entries: usize,
    /// Bytes of the share of WASI resources.
    pub(crate) weight: usize,
    /// Cache handles.
    pub(crate) handles: usize,
    /// Vacancies, with those of requests that have ended.
    pub(crate) vacancies: usize,
}

impl Room {
    /// True if of any of it less than a quarter is left of what it was. The next request might be one too many.
    pub(crate) fn is_small_beside(&self, first: &Self) -> bool {
        let few = |left: usize, first: usize| left < first.div_ceil(4);
        self.is_exceeded
            || few(self.entries, first.entries)
            || few(self.weight, first.weight)
            || few(self.handles, first.handles)
            || few(self.vacancies, first.vacancies)
            || self.memory < first.memory.div_ceil(4)
    }
}

/// True if the table has a part of an HTTP message that someone may wait for, or that a task works on: a body that is not
/// finished or not read to its end, a request without a response. Only the end of the instance ends them all, because
/// their streams cannot be told from others.
pub(crate) fn has_open_message(table: &mut ResourceTable) -> bool {
    table.iter_mut().any(|resource| {
        if let Some(request) = resource.downcast_mut::<HostIncomingRequest>() {
            // It is not read any more, and would hold the connection.
            drop(request.body.take());
            return false;
        }
        if let Some(response) = resource.downcast_ref::<HostIncomingResponse>() {
            return response.body.is_some();
        }
        if let Some(future) = resource.downcast_ref::<HostFutureIncomingResponse>() {
            return !matches!(future, HostFutureIncomingResponse::Consumed);
        }
        resource.is::<HostResponseOutparam>()
            || resource.is::<HostOutgoingBody>()
            || resource.is::<HostIncomingBody>()
            || resource.is::<HostFutureTrailers>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_small_if_of_any_bound_less_than_a_quarter_is_left() {
        let first = Room { is_exceeded: false, memory: 100, entries: 100, weight: 100, handles: 1, vacancies: 0 };
        assert!(!first.is_small_beside(&first));
        assert!(!Room { memory: 25, entries: 25, weight: 25, ..first }.is_small_beside(&first));
        for small in [
            Room { memory: 24, ..first },
            Room { entries: 24, ..first },
            Room { weight: 24, ..first },
            Room { handles: 0, ..first },
            Room { is_exceeded: true, ..first },
        ] {
            assert!(small.is_small_beside(&first), "{small:?}");
        }
        // A bound that the first request has used up does not make every later request the last one.
        let full = Room { handles: 0, memory: 0, ..first };
        assert!(!full.is_small_beside(&full));
    }
}
