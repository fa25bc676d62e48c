//! How much memory the host holds for the WASI resources of one plugin instance.
//!
//! A resource is weighed by the most that it can hold, because the plugin fills it after it is created.

use std::any::Any;

use wasmtime::component::ResourceTable;

use super::{Listing, Shares};

/// What the resources in the table hold at most, in bytes, except for those that [`Shares::entries`] bounds.
pub(crate) fn weight(table: &mut ResourceTable, shares: Shares) -> usize {
    table.iter_mut().map(|resource| resource_weight(resource, shares)).fold(0, usize::saturating_add)
}

fn resource_weight(resource: &mut (dyn Any + Send), shares: Shares) -> usize {
    if let Some(listing) = resource.downcast_ref::<Listing>() {
        return listing.weight;
    }
    #[cfg(feature = "serve")]
    return http::weight(resource, shares);
    #[cfg(not(feature = "serve"))]
    {
        let _no_http = shares;
        0
    }
}

#[cfg(feature = "serve")]
mod http {
    use std::any::{Any, TypeId};

    use hyper::HeaderMap;
    use wasmtime_wasi_http::FieldMap;
    use wasmtime_wasi_http::p2::body::HostFutureTrailers;
    use wasmtime_wasi_http::p2::types::{
        HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest,
        HostOutgoingResponse,
    };
    use wasmtime_wasi_http::p3;

    use crate::sandbox::Shares;

    /// The host's own structures of a message with a body, or of a response that is awaited. In bytes.
    pub(crate) const MESSAGE: usize = 8 << 10;

    /// The longest head of a request to a plugin, in bytes. A longer one is answered with status 431.
    pub(crate) const MAX_HEAD: usize = 32 << 10;

    /// The longest authority of a request, in bytes: a host name and a port.
    pub(crate) const MAX_AUTHORITY: usize = 1 << 10;

    /// The types that are weighed. The type of a resource is asked once: each question is a call.
    const WEIGHED: [TypeId; 9] = [
        TypeId::of::<p3::Request>(),
        TypeId::of::<p3::Response>(),
        TypeId::of::<FieldMap>(),
        TypeId::of::<HostOutgoingResponse>(),
        TypeId::of::<HostOutgoingRequest>(),
        TypeId::of::<HostIncomingResponse>(),
        TypeId::of::<HostIncomingRequest>(),
        TypeId::of::<HostFutureIncomingResponse>(),
        TypeId::of::<HostFutureTrailers>(),
    ];

    pub(super) fn weight(resource: &mut (dyn Any + Send), shares: Shares) -> usize {
        if !WEIGHED.contains(&Any::type_id(&*resource)) {
            return 0;
        }
        // A body that is not read yet: two chunks, and the trailers.
        let body = || shares.chunk().saturating_mul(2).saturating_add(shares.fields_held()).saturating_add(MESSAGE);
        let fields = |map: &HeaderMap| fields(map).max(shares.fields_held());
        if let Some(request) = resource.downcast_ref::<p3::Request>() {
            let texts = [request.path_with_query.as_ref().map(|path| path.as_str().len())];
            let texts = texts.into_iter().flatten().fold(MAX_AUTHORITY, usize::saturating_add);
            self::fields(&request.headers).saturating_add(MESSAGE).saturating_add(texts)
        } else if let Some(response) = resource.downcast_ref::<p3::Response>() {
            self::fields(&response.headers).saturating_add(MESSAGE)
        } else if let Some(map) = resource.downcast_ref::<FieldMap>() {
            fields(map)
        } else if let Some(response) = resource.downcast_ref::<HostOutgoingResponse>() {
            fields(&response.headers).saturating_add(body())
        } else if let Some(request) = resource.downcast_ref::<HostOutgoingRequest>() {
            let target = shares.fields().saturating_add(MAX_AUTHORITY);
            fields(&request.headers).saturating_add(body()).saturating_add(target)
        } else if let Some(response) = resource.downcast_ref::<HostIncomingResponse>() {
            fields(&response.headers).saturating_add(MESSAGE)
        } else if let Some(request) = resource.downcast_ref::<HostIncomingRequest>() {
            // Its head is not accessible here. That of the request that is answered is the connection's; an instance that
            // answers many may keep those of earlier ones.
            if request.body.is_none() { MAX_HEAD.saturating_add(MESSAGE) } else { 0 }
        } else if resource.is::<HostFutureIncomingResponse>() {
            MESSAGE
        } else if let Some(HostFutureTrailers::Done(Ok(Some(map)))) = resource.downcast_ref() {
            fields(map)
        } else {
            0
        }
    }

    /// The memory of a map of fields: its slots for names and for further values, and an allocation for each text.
    fn fields(map: &HeaderMap) -> usize {
        const SLOT: usize = 112;
        const FURTHER_VALUE: usize = 72;
        const ALLOCATION: usize = 32;
        let further = map.len().saturating_sub(map.keys_len());
        let further = further.checked_next_power_of_two().unwrap_or(further).saturating_mul(FURTHER_VALUE);
        let slots = map.capacity().saturating_mul(SLOT).saturating_add(further);
        let names = map.keys().map(|name| name.as_str().len());
        let values = map.values().map(|value| value.len());
        names.chain(values).fold(slots, |sum, text| sum.saturating_add(text).saturating_add(ALLOCATION))
    }

    #[cfg(test)]
    mod tests {
        use hyper::header::{HeaderName, HeaderValue};
        use wasmtime_wasi_http::FieldMap;

        use super::*;

        #[test]
        fn a_set_of_short_fields_holds_at_most_four_times_its_size() {
            for (max_memory, is_one_name) in [(2, false), (2, true), (3, false), (128, false), (128, true)] {
                let shares = Shares::new(max_memory << 20);
                let mut map = FieldMap::new_mutable(shares.fields());
                let mut n = 0_usize;
                let name = |n: usize| {
                    let text = if is_one_name { "x".to_owned() } else { format!("x{n}") };
                    HeaderName::from_bytes(text.as_bytes()).unwrap()
                };
                while map.append_raw(name(n), HeaderValue::from_static("")).is_ok() {
                    n += 1;
                    assert!(fields(&map) <= shares.fields_held(), "{n} fields: {}", fields(&map));
                }
                assert!(n > 40, "{n}");
            }
        }
    }
}

#[cfg(feature = "serve")]
pub(crate) use http::{MAX_AUTHORITY, MAX_HEAD, MESSAGE};
