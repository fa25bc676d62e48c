//! Interfaces of other projects, served by the plugin's caches and its settings.
//!
//! A component is linked with those that it imports, and nothing else, so that they cost others nothing. They have the
//! same grants, namespaces and limits as our interface.

mod answer;
mod atomics;
mod batch;
mod bucket;
mod config;
mod keyvalue_draft;
mod keyvalue_draft2;
mod labels;
mod missing;
mod spin;
mod types;
mod wasmcloud;

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{Component, Linker};

use super::ctx::LarderView;
use super::interface::View;

pub(crate) use labels::UnboundLabels;
pub(crate) use missing::{import_of, missing_import};

/// An import of a component that is one of the interfaces.
struct Import {
    /// Its name in the component: that of the interface, or a label.
    name: String,
    /// The only cache that it opens, if it has a label.
    cache: Option<Arc<str>>,
}

/// Adds one interface to a linker.
type Add<T> = fn(&mut Linker<T>, &Import, View<T>) -> wasmtime::Result<()>;

/// The names of all interfaces, with what adds each.
fn interfaces<T: Send + 'static>() -> [(&'static str, Add<T>); 17] {
    [
        ("wasi:keyvalue/store@0.2.0-draft", keyvalue_draft::add_store),
        ("wasi:keyvalue/atomics@0.2.0-draft", keyvalue_draft::add_atomics),
        ("wasi:keyvalue/batch@0.2.0-draft", batch::add),
        ("wasi:keyvalue/store@0.2.0-draft2", keyvalue_draft2::add_store),
        ("wasi:keyvalue/atomics@0.2.0-draft2", atomics::add),
        (BATCH_OF_TWO_SHAPES, batch::add),
        ("wasi:config/store@0.2.0-draft", config::add),
        ("wasi:config/store@0.2.0-draft-2024-09-27", config::add),
        ("wasi:config/store@0.2.0-rc.1", config::add),
        ("wasi:config/runtime@0.2.0-draft", config::add),
        ("wasi:config/runtime@0.2.0-draft-2024-09-27", config::add),
        ("fermyon:spin/key-value@2.0.0", spin::add),
        ("wasmcloud:keyvalue/types@0.2.0", wasmcloud::add_types),
        ("wasmcloud:keyvalue/store@0.2.0", wasmcloud::add_store),
        ("wasmcloud:keyvalue/atomics@0.2.0", wasmcloud::add_atomics),
        ("wasmcloud:keyvalue/cas@0.2.0", wasmcloud::add_cas),
        ("wasmcloud:keyvalue/batch@0.2.0", wasmcloud::add_batch),
    ]
}

// Decision: docs/decisions/0097-a-label-of-an-import-opens-one-cache.md
/// The interfaces that open caches. The others get a bucket, or have no cache.
const OPENING: [&str; 4] = [
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "fermyon:spin/key-value@2.0.0",
    "wasmcloud:keyvalue/store@0.2.0",
];

/// The interface that upstream and Spin define differently under one name.
const BATCH_OF_TWO_SHAPES: &str = "wasi:keyvalue/batch@0.2.0-draft2";

/// Adds those interfaces of other projects that the component imports to a linker: `wasi:keyvalue`, `wasmcloud:keyvalue` and
/// `fermyon:spin/key-value`, which are served by the caches, and `wasi:config`, which is served by the settings of the
/// [`LarderCtx`](super::LarderCtx). `view` is the same as for [`add_to_linker`](super::add_to_linker).
///
/// A component may import an interface more than once, each time under a label. The map `labels` has the name of the cache for
/// each label of an interface that opens caches; [`Grant::imports`](crate::config::Grant::imports) is one.
///
/// Use a linker of its own for each component, or for those of the same sources: Spin and upstream define
/// `wasi:keyvalue/batch@0.2.0-draft2` differently, and the linker gets what this component imports.
///
/// # Errors
///
/// Wasmtime's error if the linker already has one of them, if the map has no cache for a label, or if the component imports
/// `wasmcloud:keyvalue` and its engine has no concurrency support.
pub fn add_foreign_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    component: &Component,
    labels: &BTreeMap<String, String>,
    view: fn(&mut T) -> LarderView<'_>,
) -> wasmtime::Result<()> {
    if let Some(unbound) = UnboundLabels::of(component, labels) {
        return Err(wasmtime::Error::new(unbound));
    }
    let engine = component.engine();
    for (name, import) in component.component_type().imports(engine) {
        let interface = import.implements.unwrap_or(name);
        let Some((interface, add)) = interfaces().into_iter().find(|(known, _)| *known == interface) else { continue };
        let is_label = name != interface && OPENING.contains(&interface);
        let cache = labels.get(name).filter(|_| is_label).map(|cache| cache.as_str().into());
        let import = Import { name: name.to_owned(), cache };
        if interface == BATCH_OF_TWO_SHAPES && batch::is_of_spin(component, name) {
            batch::add_of_spin(linker, &import, view)?;
        } else {
            add(linker, &import, view)?;
        }
    }
    Ok(())
}

/// True if the component imports one of the interfaces.
pub(crate) fn imports_foreign(component: &Component) -> bool {
    let names = interfaces::<()>().map(|(name, _)| name);
    let ty = component.component_type();
    ty.imports(component.engine()).any(|(name, import)| names.contains(&import.implements.unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;
    use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
    use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

    use super::*;

    /// A component that imports all interfaces of a folder of `foreign-wit` and does not use them. Those of wasmCloud have
    /// asynchronous functions.
    fn importer(engine: &Engine, folder: &str) -> Component {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(format!("foreign-wit/{folder}")).unwrap();
        let world = resolve.select_world(&[package], Some("imports")).unwrap();
        let abi = if folder.ends_with("wasmcloud") {
            ManglingAndAbi::Legacy(LiftLowerAbi::AsyncCallback)
        } else {
            ManglingAndAbi::Standard32
        };
        let mut module = dummy_module(&resolve, world, abi);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        Component::new(engine, ComponentEncoder::default().module(&module).unwrap().encode().unwrap()).unwrap()
    }

    fn folders() -> Vec<String> {
        let entries = std::fs::read_dir("foreign-wit").unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.path().is_dir());
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn link(component: &Component) -> wasmtime::Result<()> {
        let mut linker = Linker::<()>::new(component.engine());
        add_foreign_to_linker(&mut linker, component, &BTreeMap::new(), |_| unreachable!("no function is called"))?;
        linker.instantiate_pre(component).map(|_| ())
    }

    #[test]
    fn the_linker_has_every_function_of_each_wit_with_its_types() {
        let engine = Engine::default();
        let folders = folders();
        assert_eq!(folders.len(), 8, "{folders:?}");
        for folder in folders {
            let component = importer(&engine, &folder);
            assert!(imports_foreign(&component), "{folder}");
            assert!(Linker::<()>::new(&engine).instantiate_pre(&component).is_err(), "{folder}: the linker is empty");
            link(&component).unwrap_or_else(|error| panic!("{folder}: {error:#}"));
        }
    }

    #[test]
    fn the_two_shapes_of_get_many_are_told_apart() {
        let engine = Engine::default();
        let is_of_spin = |folder| batch::is_of_spin(&importer(&engine, folder), BATCH_OF_TWO_SHAPES);
        assert!(is_of_spin("keyvalue-draft2-spin"));
        assert!(!is_of_spin("keyvalue-draft2"));
        assert!(!is_of_spin("keyvalue-draft"), "it does not import this version");
    }

    #[test]
    fn a_component_without_such_imports_gets_nothing() {
        let engine = Engine::default();
        let component = Component::new(&engine, wat::parse_str("(component)").unwrap()).unwrap();
        assert!(!imports_foreign(&component));
        let mut linker = Linker::<()>::new(&engine);
        let labels = BTreeMap::new();
        add_foreign_to_linker(&mut linker, &component, &labels, |_| unreachable!("no function is called")).unwrap();
        // Its names are free.
        linker.instance("wasi:keyvalue/store@0.2.0-draft2").unwrap();
    }
}
