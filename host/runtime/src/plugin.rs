//! A plugin that is loaded, compiled and linked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::InstancePre;

use crate::config::{Config, Variables};
use crate::engine::EngineKind;
use crate::engines::Engines;
use crate::error::Error;
#[cfg(feature = "serve")]
use crate::file_version::FileVersion;
use crate::loading::{Loader, Refusal, missing_import};
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
    metrics: RunMetrics,
    env: Variables,
    #[cfg(feature = "serve")]
    outgoing: Arc<Outgoing>,
    #[cfg(feature = "serve")]
    version: FileVersion,
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
        let linked = loader.load(path, engines).and_then(|loaded| {
            let linked = engines.get(loaded.kind).map_err(|error| Refusal::invalid(&error.to_string()))?;
            let pre = linked.linker.instantiate_pre(&loaded.component).map_err(|error| missing_import(&error))?;
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
            metrics: RunMetrics::new(&name),
            env: config.grant(&name).env,
            #[cfg(feature = "serve")]
            outgoing: Arc::new(Outgoing::new(&name, config)),
            #[cfg(feature = "serve")]
            version,
            name,
        })
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

    pub(crate) fn metrics(&self) -> &RunMetrics {
        &self.metrics
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
