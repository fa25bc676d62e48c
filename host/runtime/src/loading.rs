//! Loads a plugin's file: reads it within bounds, and compiles it or takes its compiled form from disk.

mod absent;
mod compiled_folder;
mod compiled_form;
mod engine_kind;
mod file;
mod notice;
mod refusal;
mod resources;
mod slots;
mod structure;
mod trusted_folder;

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compiler::{self, Bounds, CompilerProcess};
use crate::config::{Loading, Sandbox};
use crate::engine::EngineKind;
use crate::engines::{Engines, LinkedEngine};
use crate::runtime::OnSlowCompilation;
use compiled_folder::{CompiledFolder, Name};
use notice::Compiling;
use resources::Room;
use slots::Slots;

pub(crate) use compiled_form::CompiledForm;
pub(crate) use refusal::Refusal;

/// How much larger than the largest file a compiled plugin may be, and what it may have in any case. Rust and Python compile
/// to three to five times the size; the smallest component to 20 KB.
const MAX_EXPANSION: u64 = 8;
const MIN_COMPILED: u64 = 16 << 20;

/// How many plugins are loaded at a time: each is in memory, with its compiled form.
const MAX_LOADS: usize = 4;

/// How many of them are compiled: each may use `max_compile_memory`, and one that takes long must not keep the others
/// waiting.
const MAX_COMPILATIONS: usize = 2;

/// Loads plugins.
#[derive(Debug)]
pub(crate) struct Loader {
    /// `max_memory` of `[sandbox]`.
    max_memory: u64,
    limits: Loading,
    compiler: Option<CompilerProcess>,
    on_slow: Option<OnSlowCompilation>,
    folder: Option<CompiledFolder>,
    loads: Slots,
    compilations: Slots,
}

/// A component, and whether it was compiled: the label `outcome` of `larder_plugin_loads_total`.
pub(crate) struct Loaded {
    pub(crate) component: Component,
    pub(crate) kind: EngineKind,
    pub(crate) outcome: &'static str,
}

impl Loader {
    pub(crate) fn new(
        sandbox: &Sandbox,
        compiler: Option<CompilerProcess>,
        on_slow: Option<OnSlowCompilation>,
    ) -> Self {
        Self {
            max_memory: sandbox.max_memory,
            limits: sandbox.loading,
            compiler,
            on_slow,
            folder: CompiledFolder::open(),
            loads: Slots::new(MAX_LOADS),
            compilations: Slots::new(MAX_COMPILATIONS),
        }
    }

    /// Reads and compiles a plugin's file. Blocks the thread while it does, and while as many others as may do the same.
    /// With a compiler process each has a limit of time.
    pub(crate) fn load(&self, path: &Path, engines: &Engines) -> Result<Loaded, Refusal> {
        let _load = self.loads.take();
        let bytes = read(path, self.limits.max_plugin_bytes)?;
        let kind = engine_kind::of(&bytes, self.limits.max_core_instances);
        let LinkedEngine { engine, counts, .. } =
            engines.get(kind).map_err(|error| Refusal::invalid(&error.to_string()))?;
        let room = Room { counts: *counts, max_memory: self.max_memory };
        let kept = self.folder.as_ref().map(|folder| (folder, Name::new(engine, &bytes)));
        if let Some((folder, name)) = &kept
            && let Some(compiled) = folder.read(name, self.max_compiled())
        {
            match deserialize(engine, &compiled) {
                Ok(component) => {
                    room.check(&component)?;
                    return Ok(Loaded { component, kind, outcome: "kept" });
                }
                // A file that cannot be loaded is replaced, unless the limits are lower than when it was written.
                Err(error) => room.refusal(&error).map_or(Ok(()), Err)?,
            }
        }
        structure::check(&bytes, self.compiler.is_none())?;
        let compilation = self.compilations.take();
        let compiling = Compiling::begin(self.on_slow, path, kept.is_some());
        let compiled = self.compile(&bytes, kind, engine)?;
        drop((compiling, compilation, bytes));
        let component = deserialize(engine, &compiled).map_err(|error| {
            let other = || Refusal::invalid(&format!("its compiled form cannot be loaded: {}", error.root_cause()));
            room.refusal(&error).unwrap_or_else(other)
        })?;
        room.check(&component)?;
        if let Some((folder, name)) = &kept {
            folder.write(name, &compiled);
        }
        Ok(Loaded { component, kind, outcome: "compiled" })
    }

    fn compile(&self, bytes: &[u8], kind: EngineKind, engine: &Engine) -> Result<CompiledForm, Refusal> {
        let Some(compiler) = &self.compiler else {
            let compiled = engine.precompile_component(bytes);
            return compiled
                .map(CompiledForm::from)
                .map_err(|error| Refusal::not_a_component(&error.root_cause().to_string()));
        };
        let limits = &self.limits;
        let memory = compiler::memory(limits.max_compile_memory);
        let bounds = Bounds { memory, time: limits.compile_timeout, compiled: self.max_compiled() };
        compiler.compile(bytes, kind, bounds)
    }

    fn max_compiled(&self) -> u64 {
        self.limits.max_plugin_bytes.saturating_mul(MAX_EXPANSION).saturating_add(MIN_COMPILED)
    }
}

/// Checks a plugin's file without compiling it. `max` is the largest size in bytes.
pub(crate) fn check(path: &Path, max: u64) -> Result<(), Refusal> {
    structure::check(&read(path, max)?, false)
}

/// Reads a file that begins as a component does.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, Refusal> {
    let bytes = file::read_in_time(path, max)?;
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Err(Refusal::invalid(
            "this is a core WebAssembly module, not a component; build it for the target `wasm32-wasip2`",
        )),
        Some([0, b'a', b's', b'm', ..]) => Ok(bytes),
        _ => Err(Refusal::invalid("this is not a WebAssembly file")),
    }
}

/// Loads a compiled component. It is mapped from a file in memory, if there is one, and copied otherwise.
#[allow(unsafe_code, reason = "wasmtime cannot verify compiled code; where it comes from is verified instead")]
fn deserialize(engine: &Engine, compiled: &CompiledForm) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are the output of `Engine::precompile_component`. They come from our own compiler, in this
    // process or in one that this process started. Or they come from a file with the right checksum, in a folder that
    // only this user and root can change, and were written there by such a process. Wasmtime itself refuses those of
    // another version or with other settings. The file that is mapped is not the one in that folder but a copy in memory,
    // which has no name and is sealed: no process can change it while it is mapped. Decision:
    // docs/decisions/0059-compiled-plugins-are-kept-in-files-of-our-own.md
    unsafe {
        if let Some(file) = compiled.sealed_file() {
            let mapped = Component::deserialize_file(engine, file);
            if !mapped.as_ref().is_err_and(is_refused_by_the_system) {
                return mapped;
            }
        }
        Component::deserialize(engine, compiled.bytes()?)
    }
}

/// True if a file cannot be mapped, or not as code: a system may allow code in anonymous memory only.
fn is_refused_by_the_system(error: &wasmtime::Error) -> bool {
    #[cfg(unix)]
    if error.is::<rustix::io::Errno>() {
        return true;
    }
    error.is::<std::io::Error>()
}
