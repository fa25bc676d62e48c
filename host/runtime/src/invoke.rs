//! A call of one exported function, written in WAVE.

mod mistake;

use std::fmt;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::wasm_wave::parser::ParserError;
use wasmtime::component::wasm_wave::untyped::UntypedFuncCall;
use wasmtime::component::{Component, ComponentExportIndex, Instance, Val, types};
use wasmtime::{Engine, Store};

use crate::nearest::did_you_mean;

/// A call that matches a function of the plugin and its parameters.
#[derive(Debug)]
pub(crate) struct Invocation {
    function: ComponentExportIndex,
    params: Vec<Val>,
    results: usize,
}

/// An exported function.
#[derive(Debug)]
pub(crate) struct Export {
    /// The interface that contains it; `None` at the root.
    interface: Option<String>,
    name: String,
    ty: types::ComponentFunc,
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{interface}#{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// All functions that a component exports, at the root and in interfaces.
pub(crate) fn functions(engine: &Engine, component: &Component) -> Vec<Export> {
    let mut functions = Vec::new();
    for (name, export) in component.component_type().exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(ty) => functions.push(Export { interface: None, name: name.to_owned(), ty }),
            ComponentItem::ComponentInstance(interface) => {
                for (function, export) in interface.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = export.ty {
                        functions.push(Export { interface: Some(name.to_owned()), name: function.to_owned(), ty });
                    }
                }
            }
            _ => {}
        }
    }
    functions
}

impl Invocation {
    /// Parses a call such as `f("x", 1)`. A function in an exported interface is found by its name alone, if the name
    /// is unique.
    ///
    /// # Errors
    ///
    /// The reason why the call does not match the component, for the user.
    pub(crate) fn parse(engine: &Engine, component: &Component, call: &str) -> Result<Self, String> {
        let exported = functions(engine, component);
        let parsed = UntypedFuncCall::parse(call);
        // Also the name of a call that cannot be parsed.
        let name =
            parsed.as_ref().map_or_else(|_| call.split('(').next().unwrap_or_default().trim(), |call| call.name());
        let mut named = exported.iter().filter(|export| export.name == name);
        let export = match (named.next(), named.next()) {
            (Some(export), None) => export,
            (Some(first), Some(second)) => {
                return Err(format!("the name is ambiguous: it matches `{first}` and `{second}`"));
            }
            (None, _) if exported.is_empty() => return Err("the plugin exports no function".to_owned()),
            (None, _) => {
                let names: Vec<_> = exported.iter().map(|export| format!("`{export}`")).collect();
                let meant = did_you_mean(name, exported.iter().map(|export| export.name.as_str()));
                return Err(format!("the plugin exports no such function, only {}{meant}", names.join(", ")));
            }
        };
        let mistake = |error: ParserError| mistake::reason(call, export, &error.to_string());
        let parsed = parsed.map_err(mistake)?;
        let interface = export.interface.as_ref().map(|interface| component.get_export_index(None, interface.as_str()));
        let function = match interface {
            None => component.get_export_index(None, export.name.as_str()),
            Some(interface) => {
                interface.and_then(|index| component.get_export_index(Some(&index), export.name.as_str()))
            }
        };
        let function = function.ok_or_else(|| format!("`{export}` cannot be looked up"))?;
        let types: Vec<_> = export.ty.params().map(|(_, ty)| ty).collect();
        let params = parsed.to_wasm_params(&types).map_err(mistake)?;
        Ok(Self { function, params, results: export.ty.results().len() })
    }

    /// Calls the function. The result is in WAVE, and `Err` if the function returned an error.
    pub(crate) async fn call<T: Send>(
        &self,
        instance: &Instance,
        store: &mut Store<T>,
    ) -> wasmtime::Result<Result<String, String>> {
        let function = instance
            .get_func(&mut *store, self.function)
            .ok_or_else(|| wasmtime::Error::msg("the instance lacks a function of its component"))?;
        let mut results = vec![Val::Bool(false); self.results];
        function.call_async(store, &self.params, &mut results).await?;
        let text = results.iter().map(Val::to_wave).collect::<wasmtime::Result<Vec<_>>>()?.join("\n");
        Ok(match results.as_slice() {
            [Val::Result(Err(_))] => Err(text),
            _ => Ok(text),
        })
    }
}
