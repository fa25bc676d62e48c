//! docs/interface.md is generated from wit/cache.wit by `make interface`.

use std::fmt::Write;

use larder_tests::repository::{read, root};
use wit_parser::{Docs, Function, FunctionKind, Handle, Interface, Resolve, Type, TypeDefKind, TypeId};

const PAGE: &str = "docs/interface.md";
const SOURCE: &str = "wit/cache.wit";

#[test]
fn the_page_of_the_interface_is_that_of_the_wit() {
    let page = page();
    if std::env::var_os("LARDER_UPDATE").is_some() {
        std::fs::write(root().join(PAGE), &page).unwrap();
    }
    assert!(read(PAGE) == page, "{PAGE} differs from {SOURCE}: run `make interface`");
}

fn page() -> String {
    let mut resolve = Resolve::default();
    let package = resolve.push_source(SOURCE, &read(SOURCE)).unwrap();
    let package = &resolve.packages[package];
    let mut page = format!(
        "# The interface\n\n`{}` is the interface that [plugins](plugins.md) in any language import. This page is generated \
         from\n`{SOURCE}` by `make interface`.\n",
        package.name
    );
    for (name, id) in &package.interfaces {
        let writer = Writer { resolve: &resolve, interface: &resolve.interfaces[*id] };
        write!(page, "\n## Interface `{name}`\n{}", text(&writer.interface.docs, "")).unwrap();
        page.push_str(&writer.members());
    }
    for (name, id) in &package.worlds {
        let world = &resolve.worlds[*id];
        let imports: Vec<String> = world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
        write!(page, "\n## World `{name}`\n{}", text(&world.docs, "")).unwrap();
        writeln!(page, "\nImports `{}`.", imports.join("`, `")).unwrap();
    }
    page
}

/// Formats a documentation comment as paragraphs after a blank line.
fn text(docs: &Docs, indent: &str) -> String {
    let docs = docs.contents.as_deref().unwrap_or_default().trim_end();
    assert!(!docs.is_empty(), "an item of {SOURCE} has no documentation");
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{indent}{line}\n") };
    "\n".to_owned() + &docs.lines().map(line).collect::<String>()
}

struct Writer<'a> {
    resolve: &'a Resolve,
    interface: &'a Interface,
}

impl Writer<'_> {
    fn members(&self) -> String {
        let mut page = String::new();
        for function in self.functions(|kind| matches!(kind, FunctionKind::Freestanding)) {
            page.push_str(&self.function("###", function));
        }
        for (name, id) in &self.interface.types {
            let definition = &self.resolve.types[*id];
            let kind = definition.kind.as_str();
            write!(page, "\n### {}{} `{name}`\n", kind[..1].to_uppercase(), &kind[1..]).unwrap();
            page.push_str(&text(&definition.docs, ""));
            match &definition.kind {
                TypeDefKind::Variant(variant) => {
                    page.push('\n');
                    for case in &variant.cases {
                        let payload = case.ty.map(|ty| format!("({})", self.name(ty))).unwrap_or_default();
                        let docs = text(&case.docs, "  ");
                        writeln!(page, "- `{}{payload}`: {}", case.name, docs.trim()).unwrap();
                    }
                }
                TypeDefKind::Record(record) => {
                    page.push('\n');
                    for field in &record.fields {
                        let docs = text(&field.docs, "  ");
                        writeln!(page, "- `{}: {}`: {}", field.name, self.name(field.ty), docs.trim()).unwrap();
                    }
                }
                TypeDefKind::Resource => {
                    for function in self.functions(|kind| kind.resource() == Some(*id)) {
                        page.push_str(&self.function("####", function));
                    }
                }
                other => panic!("`{name}` is a {}, which this generator does not support", other.as_str()),
            }
        }
        page
    }

    fn functions(&self, is_wanted: impl Fn(&FunctionKind) -> bool) -> impl Iterator<Item = &Function> {
        self.interface.functions.values().filter(move |function| is_wanted(&function.kind))
    }

    fn function(&self, heading: &str, function: &Function) -> String {
        let name = function.item_name();
        // The first parameter of a method is the resource, which WIT does not write.
        let skipped = usize::from(matches!(function.kind, FunctionKind::Method(_)));
        let is_static = matches!(function.kind, FunctionKind::Static(_));
        let parameters = function.params.iter().skip(skipped);
        let parameters: Vec<_> =
            parameters.map(|parameter| format!("{}: {}", parameter.name, self.name(parameter.ty))).collect();
        let result = function.result.map(|ty| format!(" -> {}", self.name(ty))).unwrap_or_default();
        let signature = format!("{}func({}){result}", if is_static { "static " } else { "" }, parameters.join(", "));
        let docs = text(&function.docs, "");
        format!("\n{heading} `{name}`\n\n```wit\n{name}: {signature};\n```\n{docs}")
    }

    fn name(&self, ty: Type) -> String {
        match ty {
            Type::Bool => "bool".to_owned(),
            Type::U8 => "u8".to_owned(),
            Type::U64 => "u64".to_owned(),
            Type::String => "string".to_owned(),
            Type::Id(id) => self.defined(id),
            other => panic!("this generator does not support {other:?}"),
        }
    }

    fn defined(&self, id: TypeId) -> String {
        let definition = &self.resolve.types[id];
        if let Some(name) = &definition.name {
            return name.clone();
        }
        let or_none = |ty: Option<Type>| ty.map_or("_".to_owned(), |ty| self.name(ty));
        match &definition.kind {
            TypeDefKind::List(ty) => format!("list<{}>", self.name(*ty)),
            TypeDefKind::Option(ty) => format!("option<{}>", self.name(*ty)),
            TypeDefKind::Result(result) => format!("result<{}, {}>", or_none(result.ok), or_none(result.err)),
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<_> = tuple.types.iter().map(|ty| self.name(*ty)).collect();
                format!("tuple<{}>", types.join(", "))
            }
            TypeDefKind::Handle(Handle::Own(id)) => self.defined(*id),
            other => panic!("this generator does not support a {}", other.as_str()),
        }
    }
}
