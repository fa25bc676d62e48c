//! `wasi:config`: the settings of the plugin. All versions have the same functions.

use wasmtime::component::Linker;

use super::super::interface::View;
use super::Import;
use super::answer::HostResult;
use super::types::ConfigError;

pub(super) fn add<T: Send + 'static>(linker: &mut Linker<T>, import: &Import, view: View<T>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.func_wrap("get", move |mut store, (key,): (String,)| -> HostResult<Option<String>, ConfigError> {
        Ok((Ok(view(store.data_mut()).ctx.settings.get(&key).map(str::to_owned)),))
    })?;
    interface.func_wrap("get-all", move |mut store, (): ()| -> HostResult<Vec<(String, String)>, ConfigError> {
        let settings = &view(store.data_mut()).ctx.settings;
        Ok((Ok(settings.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),))
    })
}
