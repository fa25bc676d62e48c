//! `wasi:http`: the memory that the host holds for messages and their fields is charged to the instance.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, WasmList, WasmStr};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self, ErrorCode, HeaderError, Host as _, HostFields, HostOutgoingRequest as _, Method,
};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse,
};
use wasmtime_wasi_http::p2::{HeaderError as FieldsError, HeaderResult};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpView};

use super::interface;
use crate::plugin_state::PluginState;
use crate::sandbox::MAX_AUTHORITY;

/// The longest method of a request, in bytes.
const MAX_METHOD: usize = 64;

type Store<'a> = StoreContextMut<'a, PluginState>;
type Fields = Resource<FieldMap>;
type Request = Resource<HostOutgoingRequest>;
type Response = Resource<HostOutgoingResponse>;
type FutureResponse = Resource<HostFutureIncomingResponse>;

/// The result of a function of `fields`.
type FieldsResult<T> = wasmtime::Result<(Result<T, HeaderError>,)>;

/// What `future-incoming-response.get` returns.
type Received = Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>;

pub(super) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(interface!("http/types"))?;
    interface.func_wrap("[constructor]fields", |mut store, (): ()| {
        let created = HostFields::new(&mut store.data_mut().http())?;
        weighed(store, created)
    })?;
    interface.func_wrap("[static]fields.from-list", from_list)?;
    interface.func_wrap("[method]fields.set", set)?;
    interface.func_wrap("[method]fields.append", append)?;
    interface.func_wrap("[method]fields.clone", |mut store, (fields,): (Fields,)| {
        let created = HostFields::clone(&mut store.data_mut().http(), fields)?;
        weighed(store, created)
    })?;
    interface.func_wrap("[constructor]outgoing-response", |mut store, (headers,): (Fields,)| {
        let created: Response = types::HostOutgoingResponse::new(&mut store.data_mut().http(), headers)?;
        weighed(store, created)
    })?;
    interface.func_wrap("[constructor]outgoing-request", |mut store, (headers,): (Fields,)| {
        let created: Request = types::HostOutgoingRequest::new(&mut store.data_mut().http(), headers)?;
        weighed(store, created)
    })?;
    interface.func_wrap("[method]outgoing-request.set-method", |mut store, (request, method): (Request, Method)| {
        if matches!(&method, Method::Other(name) if name.len() > MAX_METHOD) {
            return Ok((Err(()),));
        }
        Ok((store.data_mut().http().set_method(request, method)?,))
    })?;
    interface.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store, (request, path): (Request, Option<String>)| {
            if path.as_ref().is_some_and(|path| path.len() > store.data().shares.fields()) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_path_with_query(request, path)?,))
        },
    )?;
    interface.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store, (request, authority): (Request, Option<String>)| {
            if authority.as_ref().is_some_and(|authority| authority.len() > MAX_AUTHORITY) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_authority(request, authority)?,))
        },
    )?;
    interface.func_wrap("[method]future-incoming-response.get", |mut store, (future,): (FutureResponse,)| {
        let received: Received = types::HostFutureIncomingResponse::get(&mut store.data_mut().http(), future)?;
        weighed(store, received)
    })?;
    linker.instance(interface!("http/outgoing-handler"))?.func_wrap("handle", handle)?;
    Ok(())
}

/// Charges what was created to the instance, and returns it.
fn weighed<T>(mut store: Store<'_>, created: T) -> wasmtime::Result<(T,)> {
    store.data_mut().weigh()?;
    Ok((created,))
}

fn from_list(mut store: Store<'_>, (list,): (WasmList<(WasmStr, WasmList<u8>)>,)) -> FieldsResult<Fields> {
    let max = store.data().shares.fields();
    let mut entries = Vec::new();
    let mut size = 0_usize;
    for index in 0..list.len() {
        let Some(entry) = list.get(&mut store, index) else { break };
        let (name, value) = entry?;
        let name = name.to_str(&store)?;
        // Each field counts with more than one byte, so this also limits the number of entries.
        size = size.saturating_add(name.len()).saturating_add(value.len()).saturating_add(1);
        if size > max {
            return Err(too_large(max));
        }
        let name = name.into_owned();
        entries.push((name, value.as_le_slice(&store).to_vec()));
    }
    let created = store.data_mut().http().from_list(entries);
    let (created,) = fields_result(&mut store, created)?;
    store.data_mut().weigh()?;
    Ok((created,))
}

fn set(mut store: Store<'_>, (fields, name, list): (Fields, WasmStr, WasmList<WasmList<u8>>)) -> FieldsResult<()> {
    let max = store.data().shares.fields();
    let name = name.to_str(&store)?;
    let mut size = name.len();
    if size > max {
        return Err(too_large(max));
    }
    let name = name.into_owned();
    let mut values = Vec::new();
    for index in 0..list.len() {
        let Some(value) = list.get(&mut store, index) else { break };
        let value = value?;
        size = size.saturating_add(value.len()).saturating_add(1);
        if size > max {
            return Err(too_large(max));
        }
        values.push(value.as_le_slice(&store).to_vec());
    }
    let outcome = store.data_mut().http().set(fields, name, values);
    fields_result(&mut store, outcome)
}

fn append(mut store: Store<'_>, (fields, name, value): (Fields, WasmStr, WasmList<u8>)) -> FieldsResult<()> {
    let max = store.data().shares.fields();
    let name = name.to_str(&store)?;
    if name.len().saturating_add(value.len()) > max {
        return Err(too_large(max));
    }
    let name = name.into_owned();
    let value = value.as_le_slice(&store).to_vec();
    let outcome = store.data_mut().http().append(fields, name, value);
    fields_result(&mut store, outcome)
}

fn handle(
    mut store: Store<'_>,
    (request, options): (Request, Option<Resource<RequestOptions>>),
) -> wasmtime::Result<(Result<FutureResponse, ErrorCode>,)> {
    let mut http = store.data_mut().http();
    let outcome = match http.handle(request, options) {
        Ok(future) => Ok(future),
        Err(error) => Err(http.convert_error_code(error)?),
    };
    weighed(store, outcome)
}

/// The result that the plugin gets. The interface has no error for fields that are too large.
fn fields_result<T>(store: &mut Store<'_>, outcome: HeaderResult<T>) -> FieldsResult<T> {
    let state = store.data_mut();
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(convert(state, error)?),)),
    }
}

fn convert(state: &mut PluginState, error: FieldsError) -> wasmtime::Result<HeaderError> {
    let max = state.shares.fields();
    state.http().convert_header_error(error).map_err(|error| error.context(too_large_text(max)))
}

fn too_large(max: usize) -> wasmtime::Error {
    wasmtime::Error::msg(too_large_text(max))
}

fn too_large_text(max: usize) -> String {
    format!("a set of HTTP fields takes at most {max} bytes (`max_memory` / 512, at most 16 KiB)")
}
