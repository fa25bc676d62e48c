//! What is wrong with a call that does not fit its function, and how to type it.

use std::fmt::{self, Write};

use wasmtime::component::wasm_wave::untyped::UntypedFuncCall;
use wasmtime::component::wasm_wave::wasm::DisplayType;
use wasmtime::component::{Type, Val};

use super::Export;

/// The longest declaration that a message shows, in bytes: a type can be larger than its file by far.
const MAX_DECLARATION: usize = 300;

/// Text up to a number of bytes. Formatting ends with an error at the first byte over it.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len().saturating_add(text.len()) > MAX_DECLARATION {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The reason why a call cannot be made, for its user. `error` is that of the parser.
pub(super) fn reason(call: &str, export: &Export, error: &str) -> String {
    let params: Vec<(String, Type)> = export.ty.params().map(|(name, ty)| (name.to_owned(), ty)).collect();
    if let Some(quoted) = quote_strings(call, &params) {
        // A shell removes double quotes that are not in single ones.
        let typed = quoted.replace('\'', r"'\''");
        return format!("quote its strings: type `--invoke '{typed}'`, with the single quotes for the shell");
    }
    let mut declaration = Bounded(String::new());
    match declare(&mut declaration, &export.name, &params) {
        Ok(()) => format!("{error}; its function is `{}`", declaration.0),
        Err(fmt::Error) => error.to_owned(),
    }
}

/// Writes `name(parameter: type, ...)`.
fn declare(text: &mut Bounded, name: &str, params: &[(String, Type)]) -> fmt::Result {
    write!(text, "{name}(")?;
    for (n, (param, ty)) in params.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(text, "{comma}{param}: {}", DisplayType(ty))?;
    }
    text.write_str(")")
}

/// The call with quotes around those arguments that must be strings and have none, if that makes it right.
fn quote_strings(call: &str, params: &[(String, Type)]) -> Option<String> {
    let (name, arguments) = call.trim().split_once('(')?;
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    // A single argument may have commas.
    let arguments: Vec<&str> = if params.len() == 1 { vec![arguments] } else { arguments.split(',').collect() };
    if arguments.len() != params.len() || arguments.iter().any(|argument| argument.trim().is_empty()) {
        return None;
    }
    let in_quotes = |(argument, (_, ty)): (&&str, &(String, Type))| match ty {
        Type::String => quote(argument.trim()),
        _ => argument.trim().to_owned(),
    };
    let with_quotes: Vec<String> = arguments.iter().zip(params).map(in_quotes).collect();
    if with_quotes.iter().zip(&arguments).all(|(quoted, argument)| quoted == argument.trim()) {
        return None;
    }
    let quoted = format!("{name}({})", with_quotes.join(", "));
    let types: Vec<&Type> = params.iter().map(|(_, ty)| ty).collect();
    let is_right = UntypedFuncCall::parse(&quoted).is_ok_and(|call| call.to_wasm_params::<Val>(types).is_ok());
    is_right.then_some(quoted)
}

/// The text in double quotes, unless it has them. Single ones are replaced.
fn quote(argument: &str) -> String {
    if argument.starts_with('"') {
        return argument.to_owned();
    }
    let inner = argument.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(argument);
    format!("\"{}\"", inner.replace('\\', r"\\").replace('"', "\\\""))
}
