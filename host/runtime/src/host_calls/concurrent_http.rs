//! `wasi:http` of WASI 0.3: the memory that the host holds for messages and their fields is charged to the instance.

use wasmtime::component::{Access, FutureReader, Linker, Resource, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi_http::p3::bindings::http::client::HostWithStore as _;
use wasmtime_wasi_http::p3::bindings::http::types::{
    ErrorCode, HeaderError, Host as _, HostFields, HostRequest, HostRequestWithStore, HostResponse,
    HostResponseWithStore, Method, RequestOptions,
};
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{FieldMap, WasiHttp, WasiHttpView};

use super::concurrent_interface;
use crate::plugin_state::PluginState;
use crate::sandbox::{MAX_AUTHORITY, MESSAGE};

/// The longest method of a request, in bytes.
const MAX_METHOD: usize = 64;

type Store<'a> = StoreContextMut<'a, PluginState>;
type Fields = Resource<FieldMap>;

/// The trailers of a body, or why it is not complete.
type Trailers = FutureReader<Result<Option<Fields>, ErrorCode>>;

/// The result of a function of `fields`.
type FieldsResult<T> = wasmtime::Result<(Result<T, HeaderError>,)>;

pub(super) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(concurrent_interface!("http/types"))?;
    interface.func_wrap("[constructor]fields", |mut store, (): ()| {
        let created = HostFields::new(&mut store.data_mut().http())?;
        charged(store, created, MESSAGE)
    })?;
    interface.func_wrap("[static]fields.from-list", |store, (list,): (Vec<(String, Vec<u8>)>,)| {
        fields_result(store, |state| state.http().from_list(list))
    })?;
    interface.func_wrap("[method]fields.set", |store, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
        fields_result(store, |state| state.http().set(fields, name, values))
    })?;
    interface.func_wrap("[method]fields.append", |store, (fields, name, value): (Fields, String, Vec<u8>)| {
        fields_result(store, |state| state.http().append(fields, name, value))
    })?;
    interface.func_wrap("[method]fields.clone", |mut store, (fields,): (Fields,)| {
        let created = HostFields::clone(&mut store.data_mut().http(), fields)?;
        let held = store.data().shares.fields_held();
        charged(store, created, held)
    })?;
    interface.func_wrap(
        "[static]request.new",
        |mut store, (headers, contents, trailers, options): (_, Option<StreamReader<u8>>, Trailers, _)| {
            let options: Option<Resource<RequestOptions>> = options;
            let access = Access::<_, WasiHttp>::new(store.as_context_mut(), PluginState::http);
            let created = <WasiHttp as HostRequestWithStore<_>>::new(access, headers, contents, trailers, options)?;
            charged(store, created, MESSAGE.saturating_add(MAX_AUTHORITY))
        },
    )?;
    interface.func_wrap(
        "[method]request.set-method",
        |mut store, (request, method): (Resource<Request>, Method)| {
            if matches!(&method, Method::Other(name) if name.len() > MAX_METHOD) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_method(request, method)?,))
        },
    )?;
    interface.func_wrap(
        "[method]request.set-path-with-query",
        |mut store, (request, path): (Resource<Request>, Option<String>)| {
            let len = path.as_ref().map_or(0, String::len);
            if len > store.data().shares.fields() {
                return Ok((Err(()),));
            }
            let set = store.data_mut().http().set_path_with_query(request, path)?;
            charged(store, set, len)
        },
    )?;
    interface.func_wrap(
        "[method]request.set-authority",
        |mut store, (request, authority): (Resource<Request>, Option<String>)| {
            if authority.as_ref().is_some_and(|authority| authority.len() > MAX_AUTHORITY) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_authority(request, authority)?,))
        },
    )?;
    interface.func_wrap("[method]request.get-headers", |mut store, (request,): (Resource<Request>,)| {
        let created = HostRequest::get_headers(&mut store.data_mut().http(), request)?;
        charged_map(store, created)
    })?;
    interface.func_wrap(
        "[static]response.new",
        |mut store, (headers, contents, trailers): (_, Option<StreamReader<u8>>, Trailers)| {
            let access = Access::<_, WasiHttp>::new(store.as_context_mut(), PluginState::http);
            let created = <WasiHttp as HostResponseWithStore<_>>::new(access, headers, contents, trailers)?;
            charged(store, created, MESSAGE)
        },
    )?;
    interface.func_wrap("[method]response.get-headers", |mut store, (response,): (Resource<Response>,)| {
        let created = HostResponse::get_headers(&mut store.data_mut().http(), response)?;
        charged_map(store, created)
    })?;
    linker.instance(concurrent_interface!("http/client"))?.func_wrap_concurrent(
        "send",
        |accessor, (request,): (Resource<Request>,)| {
            Box::pin(async move {
                let accessor = accessor.with_getter::<WasiHttp>(PluginState::http);
                match WasiHttp::send(&accessor, request).await {
                    Ok(response) => accessor.with(|mut access| {
                        let state = access.data_mut();
                        let held = state.shares.fields_held().saturating_add(MESSAGE);
                        state.charge(held)?;
                        Ok((Ok(response),))
                    }),
                    Err(error) => accessor.with(|mut access| Ok((Err(access.get().convert_error_code(error)?),))),
                }
            })
        },
    )?;
    Ok(())
}

/// Charges what was created to the instance, and returns it.
fn charged<T>(mut store: Store<'_>, created: T, bytes: usize) -> wasmtime::Result<(T,)> {
    store.data_mut().charge(bytes)?;
    Ok((created,))
}

/// As [`charged`], for fields that are a copy of others.
fn charged_map(store: Store<'_>, created: Fields) -> wasmtime::Result<(Fields,)> {
    let held = store.data().shares.fields_held();
    charged(store, created, held)
}

/// Calls a function of `fields`, and charges what the set may hold after it.
fn fields_result<T>(
    mut store: Store<'_>,
    call: impl FnOnce(&mut PluginState) -> Result<T, wasmtime_wasi::TrappableError<HeaderError>>,
) -> FieldsResult<T> {
    let state = store.data_mut();
    match call(state) {
        Ok(value) => {
            state.charge(state.shares.fields_held())?;
            Ok((Ok(value),))
        }
        Err(error) => Ok((Err(state.http().convert_header_error(error)?),)),
    }
}
