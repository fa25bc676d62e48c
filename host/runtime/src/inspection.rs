//! What a plugin's file needs and offers, for its author: nothing of it is run, and no cache is connected.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};

use crate::compiler::CompilerProcess;
use crate::config::Config;
use crate::engines::Engines;
use crate::error::Error;
use crate::invoke::functions;
use crate::linker::{UnboundLabels, import_of, missing_import};
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
    /// The interfaces and functions that it imports, by their names: for an interface under a label, that is the label.
    pub imports: Vec<String>,
    /// The interface of each label.
    pub labels: BTreeMap<String, String>,
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

/// An import that this host does not provide to the plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MissingImport {
    /// Its name; `None` if wasmtime names none.
    pub name: Option<String>,
    /// True for a label that has no cache in `imports` of the plugin's table. The host provides its interface.
    pub is_unbound: bool,
    /// The reason, and what can be done.
    pub reason: String,
}

/// Loads a plugin's file and reports what it needs and offers. Blocks the thread while it compiles, with the
/// limits of `[sandbox]`.
///
/// The plugin's name in the configuration is `name`, or that of a route with this file, or the file name without extension. Its
/// table names the caches of its labels.
///
/// # Errors
///
/// [`Error::Load`] if the file cannot be read, exceeds a limit, or is not a valid component. [`Error::Engine`] if this
/// machine cannot run wasmtime.
pub fn inspect(
    path: &Path,
    config: &Config,
    name: Option<&str>,
    compiler: Option<CompilerProcess>,
) -> Result<PluginReport, Error> {
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
    let label = |(name, interface): (&str, Option<&str>)| Some((name.to_owned(), interface?.to_owned()));
    let caches = config.grant(&name_of(path, config, name)).imports;
    Ok(PluginReport {
        bytes: std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
        engine: if loaded.kind.is_concurrent { "0.3" } else { "0.2" },
        imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
        labels: ty.imports(engine).filter_map(|(name, import)| label((name, import.implements))).collect(),
        functions: functions(engine, component).iter().map(ToString::to_string).collect(),
        is_command: exports.iter().any(|name| name.starts_with("wasi:cli/run@")),
        serves_http: serves_http(engine, component),
        exports,
        missing: missing(engine, &linked.linker, component, caches),
        load_time,
        was_kept: loaded.outcome == "kept",
    })
}

/// The name of the plugin in the configuration.
fn name_of(path: &Path, config: &Config, name: Option<&str>) -> String {
    let is_same = |other: &Path| std::fs::canonicalize(other).ok() == std::fs::canonicalize(path).ok();
    let route = || config.routes.iter().find(|route| is_same(&route.path)).map(|route| route.plugin.as_str());
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    name.or_else(route).map_or_else(stem, str::to_owned)
}

// Decision: docs/decisions/0098-a-missing-import-gets-a-stand-in-so-that-the-next-one-is-found.md
/// Each label without a cache, and each import that is missing. Wasmtime names the first one; it gets a stand-in, and the
/// next one is looked for.
fn missing(
    engine: &Engine,
    linker: &Linker<PluginState>,
    component: &Component,
    mut caches: BTreeMap<String, String>,
) -> Vec<MissingImport> {
    let (mut linker, mut missing) = (linker.clone(), Vec::new());
    if let Some(unbound) = UnboundLabels::of(component, &caches) {
        for (label, reason) in unbound.each() {
            let (name, reason) = (Some(label.to_owned()), Refusal::invalid(&reason).reason);
            missing.push(MissingImport { name, is_unbound: true, reason });
            // Nothing is opened.
            caches.insert(label.to_owned(), String::new());
        }
    }
    while let Err(error) = link(&linker, component, &caches) {
        let name = import_of(&error.to_string()).map(str::to_owned);
        let is_replaced = name.as_deref().is_some_and(|name| stand_in(engine, &mut linker, component, name).is_some());
        let reason = Refusal::invalid(&missing_import(component, &error)).reason;
        missing.push(MissingImport { name, is_unbound: false, reason });
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
