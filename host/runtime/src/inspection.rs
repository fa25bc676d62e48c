//! What a plugin's file needs and offers, for its author: nothing of it is run, and no cache is connected.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};

use crate::compiler::CompilerProcess;
use crate::config::Config;
use crate::engine::EngineKind;
use crate::engines::Engines;
use crate::error::Error;
use crate::invoke::functions;
use crate::linker::{import_of, missing_import};
use crate::loading::{Loader, Refusal};
use crate::plugin::{link, serves_http};
use crate::plugin_state::PluginState;

/// What a plugin's file needs and offers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PluginReport {
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The version of WASI whose engine runs it: `0.2` or `0.3`.
    pub engine: &'static str,
    /// The interfaces and functions that it imports.
    pub imports: Vec<String>,
    /// The interfaces and functions that it exports.
    pub exports: Vec<String>,
    /// The functions that `larder run --invoke` can call.
    pub functions: Vec<String>,
    /// True if `larder run` runs it.
    pub is_command: bool,
    /// True if `larder serve` serves it.
    pub serves_http: bool,
    /// What it imports and this host does not provide. Empty if it can be run.
    pub missing: Vec<MissingImport>,
    /// How long it took to load.
    pub load_time: Duration,
    /// True if its compiled form was there from an earlier run.
    pub was_kept: bool,
}

/// An import that this host does not provide.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MissingImport {
    /// Its name; `None` if wasmtime names none.
    pub name: Option<String>,
    /// The reason, and what can be done.
    pub reason: String,
}

/// Loads a plugin's file and reports what it needs and offers. Blocks the thread while it compiles, with the
/// limits of `[sandbox]`.
///
/// # Errors
///
/// [`Error::Load`] if the file cannot be read, exceeds a limit, or is not a valid component. [`Error::Engine`] if this
/// machine cannot run wasmtime.
pub fn inspect(path: &Path, config: &Config, compiler: Option<CompilerProcess>) -> Result<PluginReport, Error> {
    let engines = Engines::new(None, config.sandbox)?;
    let loader = Loader::new(&config.sandbox, compiler, None);
    let refused = |refusal: Refusal| Error::Load { path: path.display().to_string(), reason: refusal.reason };
    let start = Instant::now();
    let loaded = loader.load(path, &engines).map_err(refused)?;
    let load_time = start.elapsed();
    let linked = engines.get(loaded.kind)?;
    let (engine, component) = (&linked.engine, &loaded.component);
    let ty = component.component_type();
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    Ok(PluginReport {
        bytes: std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
        engine: match loaded.kind {
            EngineKind::Sequential => "0.2",
            EngineKind::Concurrent => "0.3",
        },
        imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
        functions: functions(engine, component).iter().map(ToString::to_string).collect(),
        is_command: exports.iter().any(|name| name.starts_with("wasi:cli/run@")),
        serves_http: serves_http(engine, component),
        exports,
        missing: missing(engine, &linked.linker, component),
        load_time,
        was_kept: loaded.outcome == "kept",
    })
}

// Decision: docs/decisions/0098-a-missing-import-gets-a-stand-in-so-that-the-next-one-is-found.md
/// Each import that is missing. Wasmtime names the first one; it gets a stand-in, and the next one is looked for.
fn missing(engine: &Engine, linker: &Linker<PluginState>, component: &Component) -> Vec<MissingImport> {
    let (mut linker, mut missing) = (linker.clone(), Vec::new());
    // A label is missing as long as the table of a plugin gives it no cache: the reason says so.
    while let Err(error) = link(&linker, component, &BTreeMap::new()) {
        let name = import_of(&error.to_string()).map(str::to_owned);
        let is_replaced = name.as_deref().is_some_and(|name| stand_in(engine, &mut linker, component, name).is_some());
        missing.push(MissingImport { name, reason: Refusal::invalid(&missing_import(&error)).reason });
        if !is_replaced {
            break;
        }
    }
    missing
}

/// Defines an interface by functions that fail. `None` if the linker has a part of it.
fn stand_in(engine: &Engine, linker: &mut Linker<PluginState>, component: &Component, name: &str) -> Option<()> {
    let ComponentItem::ComponentInstance(interface) = component.component_type().get_import(engine, name)?.ty else {
        return None;
    };
    define(engine, &interface, linker.instance(name).ok()?).ok()
}

fn define(
    engine: &Engine,
    interface: &ComponentInstance,
    mut linker: LinkerInstance<'_, PluginState>,
) -> wasmtime::Result<()> {
    for (name, export) in interface.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(_) => {
                linker.func_new(name, |_, _, _, _| Err(wasmtime::Error::msg("this host does not provide it")))?;
            }
            ComponentItem::Resource(_) => linker.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?,
            _ => {}
        }
    }
    Ok(())
}
