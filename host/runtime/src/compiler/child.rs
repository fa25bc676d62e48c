//! The process's side: sets its limits, then reads and compiles one component.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use super::exchange::{MAGIC, kind_of};
use super::limits;
use super::outcome::{OUT_OF_MEMORY, REFUSED};
use crate::cache::text::one_line;
use crate::engine::compiling_engine;

/// The process's exit status, and its message.
struct Failure(ExitCode, String);

pub(super) fn run() -> ExitCode {
    // One line, without the hint at backtraces.
    std::panic::set_hook(Box::new(|panic| {
        let _written = writeln!(io::stderr(), "{}", one_line(&panic.to_string()));
    }));
    match compile(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(status, message)) => {
            let _written = writeln!(io::stderr(), "{}", one_line(&message));
            status
        }
    }
}

fn compile(input: &mut impl Read, output: &mut impl Write) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure(ExitCode::FAILURE, error.to_string());
    let mut head = [[0; 8]; 4];
    input.read_exact(head.as_flattened_mut()).map_err(broken)?;
    let [magic, kind, memory, seconds] = head;
    if magic != MAGIC {
        return Err(Failure(ExitCode::FAILURE, "this command compiles plugins for a running host".to_owned()));
    }
    limits::limit_this_process(u64::from_le_bytes(memory), u64::from_le_bytes(seconds)).map_err(broken)?;
    let mut component = Vec::new();
    input.read_to_end(&mut component).map_err(|error| match error.kind() {
        io::ErrorKind::OutOfMemory => Failure(ExitCode::from(OUT_OF_MEMORY), error.to_string()),
        _ => broken(error),
    })?;
    let engine = compiling_engine(kind_of(kind)).map_err(|error| Failure(ExitCode::FAILURE, error.to_string()))?;
    let compiled = engine.precompile_component(&component).map_err(|error| {
        let is_memory = error.downcast_ref::<wasmtime::OutOfMemory>().is_some()
            || error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory);
        let status = if is_memory { OUT_OF_MEMORY } else { REFUSED };
        Failure(ExitCode::from(status), error.root_cause().to_string())
    })?;
    output.write_all(&compiled).and_then(|()| output.flush()).map_err(broken)
}
