//! Compiles plugins in a process of their own, with limits on memory and time.
//!
//! Compilation is the one step in which a plugin's file decides how much memory and time the host uses. In a process of
//! its own it can be bounded and can fail without an effect on the host. The program `larder` uses itself as that
//! process. An embedder names its own program: a [`CompilerProcess`] in
//! [`RuntimeOptions`](crate::runtime::RuntimeOptions), which calls [`run`] and nothing else.

// Decision: docs/decisions/0058-plugins-are-compiled-in-a-process-with-limits.md

mod child;
mod exchange;
mod limits;
mod outcome;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::engine::EngineKind;
use crate::loading::{CompiledForm, Refusal};

pub(crate) use exchange::Bounds;
pub(crate) use limits::memory;

/// A program that compiles one plugin, as [`run`] does, and its arguments.
///
/// The process gets an environment of its own without any variable of the host. On Linux it limits its memory and
/// processor time, is the first one that the kernel ends if memory runs out, and ends with the thread that started it.
/// On other systems only the time of the clock is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerProcess {
    program: PathBuf,
    args: Vec<OsString>,
}

impl CompilerProcess {
    /// The program at this path, with these arguments.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect() }
    }

    /// The program that is running, with these arguments. On Linux it stays the same if its file is replaced.
    ///
    /// # Errors
    ///
    /// If the system does not tell the program's path. The caller can name it with [`CompilerProcess::new`].
    pub fn current_program(args: impl IntoIterator<Item = impl Into<OsString>>) -> io::Result<Self> {
        let link = std::path::Path::new("/proc/self/exe");
        let program = if link.exists() { link.to_owned() } else { std::env::current_exe()? };
        Ok(Self::new(program, args))
    }

    /// Compiles a component within the bounds.
    pub(crate) fn compile(&self, component: &[u8], kind: EngineKind, bounds: Bounds) -> Result<CompiledForm, Refusal> {
        exchange::compile(&self.program, &self.args, component, kind, bounds)
    }
}

/// Compiles one plugin: the program of a [`CompilerProcess`]. It limits its own memory and time, reads the component
/// from standard input, and writes the compiled form to standard output or one line to standard error. Call it first in
/// `main`, before the program starts threads or opens files.
pub fn run() -> ExitCode {
    child::run()
}
