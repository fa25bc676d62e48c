//! A plugin that is loaded, compiled and linked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::config::{Config, Loading, Variables};
use crate::engine::EngineKind;
use crate::engines::Engines;
use crate::error::Error;
#[cfg(feature = "serve")]
use crate::file_version::FileVersion;
use crate::linker::{add_foreign_to_linker, imports_foreign, missing_import};
use crate::loading::{self, Loader, Refusal};
#[cfg(feature = "serve")]
use crate::outgoing::Outgoing;
use crate::plugin_state::PluginState;
use crate::run_metrics::{RunMetrics, count_load};

/// A plugin that is loaded, compiled and linked. Each run gets a new instance of it; so does each HTTP request, unless
/// the plugin has a `reuse`.
pub struct Plugin {
    name: Arc<str>,
    path: PathBuf,
    pre: InstancePre<PluginState>,
    kind: EngineKind,
    metrics: Arc<RunMetrics>,
    env: Variables,
    #[cfg(feature = "serve")]
    outgoing: Arc<Outgoing>,
    #[cfg(feature = "serve")]
    version: FileVersion,
}

/// Links a component, with those interfaces of other projects that it imports. `labels` has the cache of each label.
pub(crate) fn link(
    linker: &Linker<PluginState>,
    component: &Component,
    labels: &BTreeMap<String, String>,
) -> wasmtime::Result<InstancePre<PluginState>> {
    if !imports_foreign(component) {
        return linker.instantiate_pre(component);
    }
    let mut linker = linker.clone();
    add_foreign_to_linker(&mut linker, component, labels, PluginState::larder)?;
    linker.instantiate_pre(component)
}

/// True if a component exports the HTTP handler of any version.
pub(crate) fn serves_http(engine: &Engine, component: &Component) -> bool {
    let is_handler =
        |name: &str| name.starts_with("wasi:http/incoming-handler@") || name.starts_with("wasi:http/handler@");
    component.component_type().exports(engine).any(|(name, _)| is_handler(name))
}

impl Plugin {
    /// Loads a plugin. Its name is `name`, or the file name without extension.
    pub(crate) fn load(
        loader: &Loader,
        engines: &Engines,
        config: &Config,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Self, Error> {
        let name: Arc<str> = match name {
            Some(name) => Arc::from(name),
            None => Arc::from(path.file_stem().unwrap_or_default().to_string_lossy()),
        };
        // Taken before the file is read, so that a write during the read counts as a change.
        #[cfg(feature = "serve")]
        let version = FileVersion::of(path);
        let grant = config.grant(&name);
        let linked = loader.load(path, engines).and_then(|loaded| {
            let linked = engines.get(loaded.kind).map_err(|error| Refusal::invalid(&error.to_string()))?;
            let pre = link(&linked.linker, &loaded.component, &grant.imports)
                .map_err(|error| Refusal::invalid(&missing_import(&loaded.component, &error)))?;
            Ok((pre, loaded.kind, loaded.outcome))
        });
        let outcome = linked.as_ref().map_or_else(|refusal| refusal.outcome, |(_, _, outcome)| outcome);
        count_load(&name, outcome);
        let (pre, kind, _) =
            linked.map_err(|refusal| Error::Load { path: path.display().to_string(), reason: refusal.reason })?;
        Ok(Self {
            path: path.to_owned(),
            pre,
            kind,
            metrics: Arc::new(RunMetrics::new(&name)),
            env: grant.env,
            #[cfg(feature = "serve")]
            outgoing: Arc::new(Outgoing::new(&name, config)),
            #[cfg(feature = "serve")]
            version,
            name,
        })
    }

    /// Checks that a file can be read, is within `max_plugin_bytes` and is a component, without compiling it.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with the reason. The operator must correct the path or put a component there.
    pub fn check_file(path: &Path, loading: &Loading) -> Result<(), Error> {
        let refused = |refusal: Refusal| Error::Load { path: path.display().to_string(), reason: refusal.reason };
        loading::check(path, loading.max_plugin_bytes).map_err(refused)
    }

    /// The plugin's name, which selects its grant.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, shared by all runs.
    pub(crate) fn name_shared(&self) -> &Arc<str> {
        &self.name
    }

    /// The plugin's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn pre(&self) -> &InstancePre<PluginState> {
        &self.pre
    }

    /// The kind of the engine that it runs on.
    pub(crate) fn kind(&self) -> EngineKind {
        self.kind
    }

    pub(crate) fn metrics(&self) -> &Arc<RunMetrics> {
        &self.metrics
    }

    /// True if it exports the HTTP handler of any version.
    pub(crate) fn serves_http(&self) -> bool {
        serves_http(self.pre.engine(), self.pre.component())
    }

    /// The environment variables of its table in the configuration.
    pub(crate) fn env(&self) -> &Variables {
        &self.env
    }

    #[cfg(feature = "serve")]
    pub(crate) fn outgoing(&self) -> &Arc<Outgoing> {
        &self.outgoing
    }

    /// The version of the file that was loaded.
    #[cfg(feature = "serve")]
    pub(crate) fn version(&self) -> FileVersion {
        self.version
    }

    /// The error of a plugin that lacks a required export.
    pub(crate) fn load_error(&self, reason: &str) -> Error {
        Error::Load { path: self.path.display().to_string(), reason: Refusal::invalid(reason).reason }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}
