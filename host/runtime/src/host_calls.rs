//! Functions of WASI that replace wasmtime's: they check a limit of the instance, and then call wasmtime's.
//!
//! A function is replaced if a plugin could otherwise make the host hold memory, take time or write to disk in
//! proportion to an argument. `SECURITY.md` lists all functions of this kind, and what bounds each.

// Decision: docs/decisions/0063-wasi-functions-are-limited-by-replacing-them.md

mod concurrent_files;
#[cfg(feature = "serve")]
mod concurrent_http;
mod files;
#[cfg(feature = "serve")]
mod http;
mod io;
mod random;

use wasmtime::component::Linker;

use crate::plugin_state::PluginState;

/// The version of the interfaces in wasmtime's linker. A plugin built for any version 0.2 gets the functions.
macro_rules! interface {
    ($name:literal) => {
        concat!("wasi:", $name, "@0.2.12")
    };
}
pub(crate) use interface;

/// The same for version 0.3.
macro_rules! concurrent_interface {
    ($name:literal) => {
        concat!("wasi:", $name, "@0.3.0")
    };
}
pub(crate) use concurrent_interface;

/// Replaces the functions in a linker that already has those of wasmtime.
///
/// # Errors
///
/// Wasmtime's, if a function cannot be defined.
pub(crate) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    io::add_limits(linker)?;
    random::add_limits(linker)?;
    files::add_limits(linker)?;
    #[cfg(feature = "serve")]
    http::add_limits(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Replaces functions of WASI 0.3 in a linker that already has those of wasmtime.
///
/// # Errors
///
/// Wasmtime's, if a function cannot be defined.
pub(crate) fn add_concurrent_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    concurrent_files::add_limits(linker)?;
    #[cfg(feature = "serve")]
    concurrent_http::add_limits(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}
