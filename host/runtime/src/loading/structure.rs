//! Checks of a component's structure before it is compiled. They read section headers only.

use wasmparser::{Parser, Payload};

use super::refusal::Refusal;

/// How deep components may be nested: far above what composition tools generate. The compiler's memory grows with the
/// square of the depth.
const MAX_NESTING: usize = 100;

/// The maximum number of functions, if this process compiles the component itself. CPython has about 20,000.
const MAX_FUNCTIONS: usize = 200_000;

/// The maximum size of one function, if this process compiles the component itself, in bytes. The largest ones of
/// CPython have less than a tenth of it. The compiler's time grows faster than the size.
const MAX_FUNCTION_BYTES: usize = 1 << 20;

/// Checks the structure. `compiles_here` adds those checks that a compiler process with limits makes unnecessary.
pub(super) fn check(component: &[u8], compiles_here: bool) -> Result<(), Refusal> {
    let too_complex = |reason: String| Refusal::new("too-complex", &reason);
    let mut depth = 0_usize;
    let mut functions = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => {
                depth = depth.saturating_add(1);
                if depth > MAX_NESTING {
                    return Err(too_complex(format!("its components are nested more than {MAX_NESTING} deep")));
                }
            }
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::CodeSectionEntry(body)) if compiles_here => {
                functions = functions.saturating_add(1);
                if functions > MAX_FUNCTIONS {
                    return Err(too_complex(format!("it has more than {MAX_FUNCTIONS} functions")));
                }
                if body.range().len() > MAX_FUNCTION_BYTES {
                    return Err(too_complex(format!("one of its functions has more than {MAX_FUNCTION_BYTES} bytes")));
                }
            }
            Ok(_) => {}
            // The compiler fails at the same place, with a better message.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}
