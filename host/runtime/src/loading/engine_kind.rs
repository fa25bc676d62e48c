//! Which kind of engine a component needs. Reads its imports, types and canonical functions, and of its core modules only
//! what says how large an instance is.

mod size;

use wasmparser::{
    CanonicalFunction, CanonicalOption, Chunk, ComponentDefinedType, ComponentFuncType, ComponentType,
    ComponentTypeDeclaration, InstanceTypeDeclaration, Parser, Payload,
};

use crate::engine::EngineKind;
use size::Size;

/// The longest section of types that is read, in bytes. Types may be nested, and are read with recursion: a longer section
/// could overflow the stack. The larger ones of WASI 0.3 are known by the names of their interfaces.
const MAX_TYPES: usize = 1 << 10;

/// How deep components may be nested here. Those that are nested deeper are refused.
const MAX_NESTING: usize = 100;

/// The kind of engine that the component needs. A file that cannot be parsed needs none: the compiler says what is wrong
/// with it. One with more core instances than may be is not small: the pool refuses it.
pub(super) fn of(component: &[u8], max_core_instances: usize) -> EngineKind {
    let mut parsers = vec![Parser::new(0)];
    let mut rest = component;
    let mut size = Size::default();
    let mut is_concurrent = false;
    while parsers.len() <= MAX_NESTING
        && let Some(current) = parsers.last_mut()
    {
        let Ok(Chunk::Parsed { consumed, payload }) = current.parse(rest, true) else { break };
        rest = rest.get(consumed..).unwrap_or_default();
        size.add(&payload);
        match payload {
            Payload::ModuleSection { parser, .. } | Payload::ComponentSection { parser, .. } => parsers.push(parser),
            Payload::CodeSectionStart { size: bytes, .. } => {
                current.skip_section();
                rest = rest.get(usize::try_from(bytes).unwrap_or(usize::MAX)..).unwrap_or_default();
            }
            Payload::ComponentImportSection(imports) => {
                let mut names = imports.into_iter().flatten().map(|import| import.name);
                is_concurrent |= names.any(|name| is_concurrent_name(name.implements.unwrap_or(name.name)));
            }
            Payload::ComponentTypeSection(types) if types.range().len() <= MAX_TYPES => {
                is_concurrent |= types.into_iter().flatten().any(|ty| is_concurrent_type(&ty));
            }
            Payload::ComponentCanonicalSection(functions) => {
                is_concurrent |= functions.into_iter().flatten().any(|function| is_concurrent_function(&function));
            }
            Payload::End(_) => drop(parsers.pop()),
            _ => {}
        }
    }
    EngineKind { is_concurrent, is_small: size.is_small(max_core_instances) }
}

fn is_concurrent_name(name: &str) -> bool {
    name.starts_with("wasi:") && name.contains("@0.3.")
        || ["larder:cache/cache-async@", "wasmcloud:keyvalue/"].iter().any(|prefix| name.starts_with(prefix))
}

fn is_concurrent_type(ty: &ComponentType<'_>) -> bool {
    let is_async = |function: &ComponentFuncType<'_>| function.async_;
    match ty {
        ComponentType::Func(function) => is_async(function),
        ComponentType::Defined(ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_)) => true,
        ComponentType::Component(declarations) => declarations
            .iter()
            .any(|declaration| matches!(declaration, ComponentTypeDeclaration::Type(ty) if is_concurrent_type(ty))),
        ComponentType::Instance(declarations) => declarations
            .iter()
            .any(|declaration| matches!(declaration, InstanceTypeDeclaration::Type(ty) if is_concurrent_type(ty))),
        ComponentType::Defined(_) | ComponentType::Resource { .. } => false,
    }
}

fn is_concurrent_function(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.contains(&CanonicalOption::Async)
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        // Tasks, streams, futures, threads.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> EngineKind {
        of(&wat::parse_str(text).unwrap(), usize::MAX)
    }

    #[test]
    fn a_component_without_asynchronous_types_needs_no_concurrent_engine() {
        assert!(!kind_of("(component)").is_concurrent);
        let text = r#"(component
            (import "a:b/c@0.2.0" (instance (export "f" (func (param "x" u32) (result string)))))
            (core module $m (func (export "f") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func (export "f") (result u32) (canon lift (core func $i "f"))))"#;
        assert!(!kind_of(text).is_concurrent);
        assert!(!of(b"no component", usize::MAX).is_concurrent);
    }

    #[test]
    fn an_asynchronous_type_at_any_depth_needs_the_concurrent_engine() {
        for text in [
            r#"(component (import "f" (func async (result u32))))"#,
            r#"(component (import "wasi:b/c@0.3.1" (instance (export "f" (func)))))"#,
            r#"(component (import "a:b/c@0.3.0" (instance (export "f" (func async)))))"#,
            r#"(component (import "wasmcloud:keyvalue/types@0.2.0" (instance)))"#,
            r#"(component (core module (func)) (component (component (import "f" (func async)))))"#,
            r#"(component (type (stream u8)))"#,
            r#"(component (type (instance (type (future)))))"#,
            r#"(component (core func (canon task.cancel)))"#,
        ] {
            assert!(kind_of(text).is_concurrent, "{text}");
        }
    }

    #[test]
    fn types_that_are_nested_deeply_do_not_overflow_the_stack() {
        let depth = 100_000_u32;
        let mut section = vec![1];
        (0..depth).for_each(|_| section.extend([0x41, 1, 1]));
        section.extend([0x41, 0]);
        let len = u32::try_from(section.len()).unwrap();
        let mut component = b"\0asm\x0d\0\x01\0\x07".to_vec();
        // LEB128 of five bytes.
        component.extend((0..5).map(|n| ((len >> (7 * n)) & 0x7f) as u8 | if n < 4 { 0x80 } else { 0 }));
        component.extend(section);
        assert!(!of(&component, usize::MAX).is_concurrent);
    }
}
